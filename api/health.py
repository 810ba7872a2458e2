"""Whether this process lives, whether it can do its work, and its metrics."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct
from psycopg import AsyncConnection, Error
from psycopg.rows import scalar_row
from psycopg_pool import PoolTimeout

from api.looking import SELECT_NEWEST
from api.metrics import CONTENT_TYPE
from api.routes import Call, Nothing, Read, Reply
from ledger.migrate import SELECT_VERSIONS, known_migrations
from projections.registry import PROJECTIONS
from projections.tracking import reached

CHECK_SECONDS: Final = 2.0


class Live(Struct, kw_only=True):
    """This process answers."""

    status: Literal["live"] = "live"
    version: str


class Ready(Struct, kw_only=True):
    """Whether this process can do its work, and what it was judged by: `ok`, or what is wrong."""

    status: Literal["ready", "not_ready"]
    checks: dict[str, str]


async def _live(call: Call, query: Nothing) -> Live:
    del query
    return Live(version=call.room.deps.version)


async def _ready(call: Call, query: Nothing) -> Reply:
    del query
    checks = {"writer": "ok" if call.room.deps.writer.alive else "is not running"}
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            async with call.room.deps.pool.connection() as connection:
                checks |= await _database(connection, call.room.deps.ready_lag_events_max)
    except (Error, PoolTimeout, TimeoutError) as error:
        checks["database"] = f"cannot be asked ({type(error).__name__})"
    ready = all(state == "ok" for state in checks.values())
    if call.room.deps.nats is not None:
        # Told, and no reason to keep HTTP requests away.
        checks["nats"] = call.room.deps.nats.state
    answer = Ready(status="ready" if ready else "not_ready", checks=checks)
    return Reply(
        status=200 if ready else 503,
        body=msgspec.json.encode(answer),
        headers=((b"cache-control", b"no-store"),),
    )


async def _database(connection: AsyncConnection[Any], lag_max: int) -> dict[str, str]:
    async with connection.cursor(row_factory=scalar_row) as cursor:
        applied = await (await cursor.execute(SELECT_VERSIONS)).fetchall()
        newest = await (await cursor.execute(SELECT_NEWEST)).fetchone() or 0
    lags = {
        projection.name: newest - await reached(connection, projection.name)
        for projection in PROJECTIONS
    }
    behind = [f"{name} by {lag}" for name, lag in lags.items() if lag > lag_max]
    return {
        "database": "ok",
        "schema": "ok" if applied == known_migrations() else "is another version",
        "projections": f"behind: {', '.join(behind)}" if behind else "ok",
    }


async def _metrics(call: Call, query: Nothing) -> Reply:
    del query
    return Reply(body=call.room.metrics.text(), content_type=CONTENT_TYPE)


LIVE = Read(
    method="GET",
    path="/health/live",
    name="live",
    tag="health",
    summary="Tell whether this process answers",
    roles=None,
    handle=_live,
    answer=Live,
)
READY = Read(
    method="GET",
    path="/health/ready",
    name="ready",
    tag="health",
    summary="Tell whether this process can do its work",
    details="503 with the same answer if it cannot.",
    roles=None,
    handle=_ready,
    answer=Ready,
)
METRICS = Read(
    method="GET",
    path="/metrics",
    name="metrics",
    tag="health",
    summary="Tell Prometheus",
    roles=None,
    handle=_metrics,
    answer=str,
)
