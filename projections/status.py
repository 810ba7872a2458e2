"""How the projections are doing, as the database tells it: the same for every process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from msgspec import Struct
from psycopg import AsyncConnection, Connection
from psycopg.rows import tuple_row

from projections.projection import Projection
from projections.registry import PROJECTIONS
from projections.tables import LOCKS, RUNNER_LOCK

State = Literal["running", "stopped", "standby"]

PREPARED = "SELECT to_regclass('projections.failures') IS NOT NULL"
SELECT_STATUS = """
SELECT t.application_name, t.notification_id, greatest(head.position - t.notification_id, 0),
    coalesce(extract(epoch FROM now() - next.recorded_at)::float8, 0), f.position, f.event, f.error,
    EXISTS (
        SELECT FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
        WHERE l.locktype = 'advisory' AND l.granted AND d.datname = current_database()
            AND l.classid = %(lock)s::bigint AND l.objid = %(number)s::bigint AND l.objsubid = 2
    )
FROM projections.tracking AS t
CROSS JOIN (
    SELECT coalesce(max(notification_id), 0) AS position FROM scrip.ledger_events) AS head
LEFT JOIN LATERAL (
    SELECT e.recorded_at FROM scrip.ledger_events AS e
    WHERE e.notification_id > t.notification_id ORDER BY e.notification_id LIMIT 1) AS next ON true
LEFT JOIN projections.failures AS f ON f.projection = t.application_name
"""


class Failure(Struct, frozen=True):
    """Why a projection stopped, and at which event."""

    position: int
    event: str | None
    error: str

    def __str__(self) -> str:
        """Say it in one line."""
        what = f" ({self.event})" if self.event else ""
        return f"at position {self.position}{what}: {self.error}"


class ProjectionStatus(Struct, frozen=True, kw_only=True):
    """How far a projection has come.

    `lag_events` counts positions, which have gaps; `lag_seconds` is the age of the oldest event
    that is not in the rows yet. `standby`: nobody runs it, or, of a runner, another process does.
    """

    name: str
    position: int
    lag_events: int
    lag_seconds: float
    state: State
    error: Failure | None


def read_status(
    connection: Connection[Any], projections: tuple[Projection, ...] = PROJECTIONS
) -> list[ProjectionStatus]:
    """Return how all projections are doing."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        prepared = cursor.execute(PREPARED).fetchone()
        if prepared is None or not prepared[0]:
            return statuses([], projections)
        rows = cursor.execute(SELECT_STATUS, {"lock": LOCKS, "number": RUNNER_LOCK}).fetchall()
    return statuses(rows, projections)


async def status(
    conn: AsyncConnection[Any], projections: tuple[Projection, ...] = PROJECTIONS
) -> list[ProjectionStatus]:
    """Return how all projections are doing."""
    async with conn.cursor(row_factory=tuple_row) as cursor:
        prepared = await (await cursor.execute(PREPARED)).fetchone()
        if prepared is None or not prepared[0]:
            return statuses([], projections)
        await cursor.execute(SELECT_STATUS, {"lock": LOCKS, "number": RUNNER_LOCK})
        return statuses(await cursor.fetchall(), projections)


def statuses(
    rows: Iterable[tuple[Any, ...]], projections: tuple[Projection, ...]
) -> list[ProjectionStatus]:
    """Return the status in each row, in the order of `projections`."""
    found = {row[0]: row[1:] for row in rows}
    result = []
    for projection in projections:
        nothing = (0, 0, 0.0, None, None, None, False)
        position, lag, seconds, *failure, runs = found.get(projection.tracked_as, nothing)
        error = Failure(*failure) if failure[0] is not None else None
        result.append(
            ProjectionStatus(
                name=projection.name,
                position=position,
                lag_events=lag,
                lag_seconds=max(0.0, seconds),
                state=("stopped" if error else "running") if runs else "standby",
                error=error,
            )
        )
    return result
