"""The clock as a client: what is due is asked of the ledger, so that it is also on record.

Balances are right without it: whoever decides or reads takes into account what is due. This makes
the events appear soon after their time, also on accounts that nobody uses. Any number of processes
may do it: to settle what is settled changes nothing.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from psycopg import AsyncConnection

from consumers.health import Part
from consumers.writing import submit_all
from ledger.domain.commands import Settle
from ledger.domain.errors import LedgerError
from ledger.recorder import LIVELY
from ledger.records import Order
from ledger.writer import Writer
from projections.balances import due_accounts

log = structlog.get_logger(__name__)

BY: Final = "service:deadlines"
POLL_SECONDS: Final = 1.0
PAGE_MAX: Final = 1_000
CONNECT_SECONDS_MAX: Final = 5


async def settle_deadlines(
    database_url: str,
    writer: Writer,
    part: Part,
    stop: asyncio.Event,
    poll_seconds: float = POLL_SECONDS,
) -> None:
    """Settle what is due, every `poll_seconds`, until `stop`."""
    connection = await AsyncConnection.connect(
        database_url, autocommit=True, connect_timeout=CONNECT_SECONDS_MAX, **LIVELY
    )
    async with connection:
        part.running()
        while not stop.is_set():
            await settle_due(connection, writer, datetime.now(UTC))
            part.alive()
            try:
                async with asyncio.timeout(poll_seconds):
                    await stop.wait()
            except TimeoutError:
                continue


async def settle_due(connection: AsyncConnection[Any], writer: Writer, now: datetime) -> int:
    """Settle every account that is due by `now`, page by page; return how many accounts changed."""
    changed = 0
    while True:
        due = await due_accounts(connection, now, PAGE_MAX)
        orders = [
            Order(tenant=one.tenant, account=one.account, command=Settle(), key=None, by=BY)
            for one in due
        ]
        answers = await submit_all(writer, orders)
        refusals = [answer for answer in answers if isinstance(answer, LedgerError)]
        settled = sum(
            not isinstance(answer, LedgerError) and answer.recorded is not None
            for answer in answers
        )
        changed += settled
        if refusals:
            log.warning("deadlines.refused", count=len(refusals), why=refusals[0].code)
        if settled:
            log.info("deadlines.settled", accounts=settled)
        if len(due) < PAGE_MAX or not settled:
            # Where nothing changed, the projection has yet to see what has been settled.
            return changed
