"""Reading the tables: from which position on, and what to do when they are behind.

A read that does not find what it is asked for asks the ledger how far the account has come, waits
for that, and looks again: what has just been written is never reported as missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final, TypeVar

from msgspec import Struct
from psycopg import AsyncConnection
from psycopg.rows import scalar_row

from api.problems import ProjectionBehind, invalid
from api.routes import Call
from ledger.domain.errors import AccountNotFound
from ledger.records import View
from projections.balances import read_balance
from projections.projection import Projection
from projections.tracking import reached

POLL_SECONDS: Final = 0.005
SELECT_NEWEST: Final = "SELECT max(notification_id) FROM scrip.ledger_events"
Row = TypeVar("Row")


class Look(Struct, frozen=True, kw_only=True):
    """A connection, and up to which position what is read on it is complete at least."""

    connection: AsyncConnection[Any]
    position: int
    as_of: datetime


def now_of(call: Call) -> datetime:
    """Return the time, by the ledger's clock."""
    return call.room.deps.writer.clock()


@asynccontextmanager
async def looking(
    call: Call, projections: tuple[Projection, ...], position: int
) -> AsyncIterator[Look]:
    """Open a look at tables that have come to `position`.

    Raises ProjectionBehind if they do not in time, InvalidRequest for a position that the ledger
    itself has not come to: no write has answered it.
    """
    deadline = asyncio.get_running_loop().time() + call.room.deps.position_wait_seconds
    while True:
        async with call.room.deps.pool.connection() as connection:
            come = min([await reached(connection, projection.name) for projection in projections])
            if come >= position:
                yield Look(connection=connection, position=come, as_of=now_of(call))
                return
            await _check_exists(connection, position)
        # The connection is given back while waiting: others need it.
        if asyncio.get_running_loop().time() >= deadline:
            raise ProjectionBehind(asked=str(position), reached=str(come))
        await asyncio.sleep(POLL_SECONDS)


async def _check_exists(connection: AsyncConnection[Any], position: int) -> None:
    async with connection.cursor(row_factory=scalar_row) as cursor:
        newest = await (await cursor.execute(SELECT_NEWEST)).fetchone() or 0
    if position > newest:
        raise invalid("position", "invalid", f"must not be beyond the ledger, which is at {newest}")


async def find(
    call: Call,
    projections: tuple[Projection, ...],
    position: int,
    read: Callable[[Look], Awaitable[Row | None]],
) -> tuple[Row | None, Look]:
    """Return one row of the account that the path names, None if there is none.

    Raises AccountNotFound, ProjectionBehind.
    """
    async with looking(call, projections, position) as look:
        row = await read(look)
    if row is None:
        view = await opened(call)
        if view.position > look.position:
            async with looking(call, projections, view.position) as look:
                row = await read(look)
    return row, look


async def opened(call: Call) -> View:
    """Return the account that the path names, as the ledger sees it now. Raises AccountNotFound."""
    view = await call.room.ledger.view(call.tenant, call.path["account"])
    if not view.opened:
        raise AccountNotFound
    return view


async def is_due(call: Call, look: Look) -> bool:
    """Tell whether time has changed the account that the path names since its last event.

    Then its rows are out of date, and `opened` tells what is so. Raises AccountNotFound.
    """
    row = await read_balance(look.connection, call.tenant, call.path["account"])
    if row is None:
        await opened(call)
        return False
    return row.due_at is not None and row.due_at <= look.as_of
