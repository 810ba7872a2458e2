"""When an account's free credits come again, as the clock has it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct
from psycopg import AsyncConnection
from psycopg.rows import tuple_row

from ledger.domain.catalog import Catalog, fallback_at
from ledger.domain.free_plan import FreePlan

SELECT_STATE = """
SELECT state, look_at FROM scrip.free_plans
WHERE tenant = %(tenant)s AND account = %(account)s AND NOT paid
"""


class NextRefill(Struct, frozen=True, kw_only=True):
    """What the next free period gives, and when: by the catalog as it is now."""

    plan: str
    at: datetime
    amount: int
    """In micro-credits."""


async def next_refill(
    connection: AsyncConnection[Any], catalog: Catalog, tenant: str, account: str
) -> NextRefill | None:
    """Return the next refill of the free plan, which comes unless a paid one is had then.

    None for an account that had a paid plan when a free period would have begun, and where there is
    no free plan. Whoever has a paid plan now is to be told of its next period instead.
    """
    async with connection.cursor(row_factory=tuple_row) as cursor:
        found = await cursor.execute(SELECT_STATE, {"tenant": tenant, "account": account})
        row = await found.fetchone()
    if row is None or row[1] is None:
        return None
    at = msgspec.json.decode(row[0], type=FreePlan).since
    plan = fallback_at(catalog, at)
    if plan is None:
        return None
    return NextRefill(plan=plan.plan, at=at, amount=plan.terms.credits)
