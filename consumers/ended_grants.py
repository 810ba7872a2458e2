"""What was unspent of grants that have ended, as the ledger's events say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct
from psycopg import AsyncConnection
from psycopg.rows import tuple_row

from consumers.owed_grants import BY
from consumers.writing import submit_all
from ledger.codec import NAME_OF, decode
from ledger.domain.carrying import unspent_at_end
from ledger.domain.commands import Settle
from ledger.domain.entities import Grant
from ledger.domain.errors import LedgerError
from ledger.domain.events import GrantExpired, PaymentApplied
from ledger.records import Order, stream_id
from ledger.writer import Writer

TOPICS: Final = [NAME_OF[GrantExpired], NAME_OF[PaymentApplied]]

SELECT_ENDS = """
SELECT topic, state FROM scrip.ledger_events
WHERE originator_id = %(stream)s AND originator_version >= %(first)s AND topic = ANY(%(topics)s)
  AND originator_version <= %(last)s
ORDER BY originator_version
"""


class Ends(Struct, frozen=True, kw_only=True):
    """Grants of an account by their ids, of which those that have ended left so much unspent."""

    version: int
    """That of the account: all that was so by then is told here."""
    grants: dict[str, Grant]
    unspent: dict[str, int]


async def read_ends(
    connection: AsyncConnection[Any],
    writer: Writer,
    tenant: str,
    account: str,
    wanted: Callable[[str], bool],
) -> Ends:
    """Put on record what is due, then return the `wanted` grants and what was unspent of them.

    Raises the LedgerError that keeps the ledger from it.
    """
    while (ends := await _read_ends(connection, writer, tenant, account, wanted)) is None:
        pass  # Something ended after what was due was put on record: that is due now.
    return ends


async def _read_ends(
    connection: AsyncConnection[Any],
    writer: Writer,
    tenant: str,
    account: str,
    wanted: Callable[[str], bool],
) -> Ends | None:
    settle = Order(tenant=tenant, account=account, command=Settle(), key=None, by=BY)
    (answer,) = await submit_all(writer, [settle])
    if isinstance(answer, LedgerError):
        raise answer
    view = await asyncio.wrap_future(writer.view(tenant, account))
    grants = {grant.id: grant for grant in view.grants if wanted(grant.id)}
    if not grants:
        return Ends(version=view.version, grants={}, unspent={})
    parameters = {
        "stream": stream_id(tenant, account),
        # Nothing is told of a grant before it was made.
        "first": min(grant.sequence for grant in grants.values()),
        "last": view.version,
        "topics": TOPICS,
    }
    async with connection.cursor(row_factory=tuple_row) as cursor:
        rows = await (await cursor.execute(SELECT_ENDS, parameters)).fetchall()
    events = [decode(topic, state).event for topic, state in rows]
    told = {
        event.grant
        for event in events
        if isinstance(event, GrantExpired)
        or (isinstance(event, PaymentApplied) and event.status == "expired")
    }
    # A view counts as done what is due, on record or not; only what is on record says how much.
    if any(grant.status == "expired" and grant.id not in told for grant in grants.values()):
        return None
    unspent = {name: unspent_at_end(name, events) for name in grants}
    return Ends(version=view.version, grants=grants, unspent=unspent)
