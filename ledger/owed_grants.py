"""Grants that are decided and not told to the ledger yet: a row each, written with the cause.

Whoever decides that credits are given for a reason that happens once writes them here, in the
transaction that keeps the reason. The worker tells the ledger until it has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from psycopg import AsyncConnection

from ledger.domain.commands import GrantCredits

INSERT_OWED: Final = """
INSERT INTO scrip.clock_grants (tenant, account, grant_id, command, once, decided_at)
VALUES (%(tenant)s, %(account)s, %(grant)s, %(command)s, %(once)s, %(now)s)
ON CONFLICT (tenant, account, grant_id) DO NOTHING
"""


async def owe(
    connection: AsyncConnection[Any],
    tenant: str,
    account: str,
    grants: Sequence[GrantCredits],
    now: datetime,
    *,
    once: bool,
) -> None:
    """Have these grants told to the ledger, in this order; nothing, where an id is known here.

    With `once` the row is kept for ever, and says that there is no second such grant.
    """
    for grant in grants:
        assert grant.id is not None, "the id is what makes it count once"
        row = {
            "tenant": tenant,
            "account": account,
            "grant": grant.id,
            "command": msgspec.json.encode(grant),
            "once": once,
            "now": now,
        }
        await connection.execute(INSERT_OWED, row)
