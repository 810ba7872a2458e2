"""The clock as one who gives: free periods, trials, what goes over, rewards of referrals.

One process does it at a time (a lock in PostgreSQL). It would do no harm if two did: what is
decided is decided under the lock of its row, and every grant has an id that is made of its cause.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any, Final

import structlog
from psycopg import AsyncConnection
from psycopg.rows import tuple_row

from consumers.free_plans import decide_due, follow_ledger, wake_unpaid
from consumers.health import Part
from consumers.owed_grants import grant_owed
from consumers.paid_plans import grant_trials, roll_over
from ledger.domain.errors import LedgerError
from ledger.recorder import LIVELY
from ledger.writer import Writer

log = structlog.get_logger(__name__)

LOCK: Final = 7_305_804_385_214
"""The advisory lock of the process that decides. Of a session: it ends with its connection."""
POLL_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 10.0
"""How often it looks at what tells of itself by no event: payments and subscriptions."""
CONNECT_SECONDS_MAX: Final = 5

TRY_LOCK = "SELECT pg_try_advisory_lock(%(lock)s)"


async def grant_by_clock(
    database_url: str,
    writer: Writer,
    part: Part,
    stop: asyncio.Event,
    poll_seconds: float = POLL_SECONDS,
) -> None:
    """Decide and grant what the clock says, every `poll_seconds`, until `stop`."""
    connection = await AsyncConnection.connect(
        database_url, autocommit=True, connect_timeout=CONNECT_SECONDS_MAX, **LIVELY
    )
    async with connection:
        while not await _is_leading(connection):
            part.standby()
            if await _paused(stop, poll_seconds):
                return
        part.running()
        loop = asyncio.get_running_loop()
        looked_at = -LOOK_SECONDS
        while not stop.is_set():
            look = loop.time() - looked_at >= LOOK_SECONDS
            try:
                await grant_due(connection, writer, writer.clock(), look=look)
            except LedgerError as refusal:
                if not refusal.retryable:
                    raise
                # What was decided stands; the rest is decided the next time.
                log.warning("plans.interrupted", why=refusal.code)
            else:
                looked_at = loop.time() if look else looked_at
                part.alive()
            await _paused(stop, poll_seconds)


async def grant_due(
    connection: AsyncConnection[Any], writer: Writer, now: datetime, *, look: bool = True
) -> None:
    """Decide and grant all that the clock says at `now`. May be done by several, and again.

    Without `look`, payments and subscriptions are only looked at where a free period begins.
    Raises the LedgerError that keeps the ledger from it.
    """
    await grant_owed(connection, writer, now)
    await follow_ledger(connection, now)
    if look:
        await wake_unpaid(connection, writer, now)
        await grant_trials(connection, writer, now)
        await roll_over(connection, writer, now)
    await decide_due(connection, writer, now)
    await grant_owed(connection, writer, now)


async def _is_leading(connection: AsyncConnection[Any]) -> bool:
    async with connection.cursor(row_factory=tuple_row) as cursor:
        row = await (await cursor.execute(TRY_LOCK, {"lock": LOCK})).fetchone()
    return row is not None and bool(row[0])


async def _paused(stop: asyncio.Event, seconds: float) -> bool:
    """Wait, and tell whether `stop` was set meanwhile."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return False
    return True
