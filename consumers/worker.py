"""All that a worker process does, each part on its own: one that fails is started again alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import psycopg
import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from psycopg.errors import UndefinedTable
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from consumers import deadlines, deliveries, plans
from consumers.fetching import Fetch
from consumers.generations import capture_generations
from consumers.health import Health, Part
from consumers.outbox import StreamIsAhead, publish_ledger
from consumers.payments import Payments, capture_payments
from consumers.publishing import AckUnknown, Refused
from consumers.pulling import ConsumerGone
from consumers.settling import Settler
from consumers.streams import API_SECONDS_MAX, check_sync, connect, jetstream
from consumers.waiting import settle_waiting
from ledger.recorder import LIVELY
from ledger.writer import Writer

log = structlog.get_logger(__name__)

RESTART_SECONDS_FIRST: Final = 0.25
RESTART_SECONDS_MAX: Final = 15.0
RESTART_DOUBLINGS_MAX: Final = 10
STEADY_SECONDS: Final = 30.0
"""A part that ran this long begins with short pauses again."""
PROBE_SECONDS: Final = 5.0
CONNECTIONS_MAX: Final = 10
"""How many connections to the database payments use at most."""
PARTS: Final = (
    "deadlines",
    "deliveries",
    "plans",
    "waiting",
    "generations",
    "payments",
    "outbox",
    "nats",
)

OUTSIDE: Final = (
    NatsError,
    OSError,
    TimeoutError,
    psycopg.OperationalError,
    PoolTimeout,
    UndefinedTable,
    ConsumerGone,
    Refused,
    AckUnknown,
    StreamIsAhead,
)
"""What goes wrong outside of Scrip, and is waited out. Any other exception is a bug."""

Run = Callable[[Part, asyncio.Event], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class WorkerDeps:
    """What a worker works with. `database_url` is the services' role's.

    Without `fetch`, payments that must be asked of their provider wait.
    """

    writer: Writer
    database_url: str
    nats_url: str
    nats_monitor_url: str | None = None
    fetch: Fetch | None = None
    refuse_lazy_sync: bool = False
    deadlines_poll_seconds: float = deadlines.POLL_SECONDS
    webhook_payload_days: int = 30
    health: Health = field(default_factory=Health)


async def work(deps: WorkerDeps, stop: asyncio.Event) -> None:
    """Work until `stop` is set; then finish what is in flight. The caller closes the writer.

    Raises JetStreamUnsafe if NATS may lose what it acknowledges and `refuse_lazy_sync` is set.
    NATS and PostgreSQL may come and go; what depends on them waits.
    """
    await check_sync(deps.nats_monitor_url, refuse=deps.refuse_lazy_sync)
    parts = {name: deps.health.part(name) for name in PARTS}
    pool = AsyncConnectionPool(
        deps.database_url, min_size=1, max_size=CONNECTIONS_MAX, open=False, kwargs=LIVELY
    )
    settler = Settler(pool, deps.writer)
    async with pool, asyncio.TaskGroup() as group:
        for name, run in _without_nats(deps, settler).items():
            group.create_task(supervised(parts[name], run, stop))
        client = await _connected(deps.nats_url, stop)
        if client is None:
            return
        try:
            await _with_nats(deps, client, settler, parts, stop)
        finally:
            await client.close()


def _without_nats(deps: WorkerDeps, settler: Settler) -> dict[str, Run]:
    """Return the parts that need no NATS, and so do not wait for it."""
    url = deps.database_url
    return {
        "deadlines": lambda part, stop: deadlines.settle_deadlines(
            url, deps.writer, part, stop, deps.deadlines_poll_seconds
        ),
        "deliveries": lambda part, stop: deliveries.purge_old(
            url, deps.webhook_payload_days, part, stop
        ),
        "plans": lambda part, stop: plans.grant_by_clock(url, deps.writer, part, stop),
        "waiting": lambda part, stop: settle_waiting(settler, part, stop),
    }


async def _with_nats(
    deps: WorkerDeps,
    client: Client,
    settler: Settler,
    parts: dict[str, Part],
    stop: asyncio.Event,
) -> None:
    payments = Payments(settler.pool, settler, deps.fetch)
    runs: dict[str, Run] = {
        "generations": lambda part, stop: capture_generations(client, deps.writer, part, stop),
        "payments": lambda part, stop: capture_payments(client, payments, part, stop),
        "outbox": lambda part, stop: publish_ledger(client, deps.database_url, part, stop),
        "nats": lambda part, stop: probe(client, part, stop),
    }
    async with asyncio.TaskGroup() as group:
        for name, run in runs.items():
            group.create_task(supervised(parts[name], run, stop))


async def _connected(url: str, stop: asyncio.Event) -> Client | None:
    """Return a connection, however long that takes; None if `stop` comes first."""
    connecting = asyncio.create_task(connect(url, "scrip-worker"))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({connecting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if connecting.done():
        return connecting.result()
    connecting.cancel()
    await asyncio.gather(connecting, return_exceptions=True)
    return None


async def probe(client: Client, part: Part, stop: asyncio.Event) -> None:
    """Ask JetStream how it is, so that one that is stuck is noticed also when there is no work."""
    js = jetstream(client)
    while not stop.is_set():
        async with asyncio.timeout(API_SECONDS_MAX):
            await js.account_info()
        part.alive(connected=client.is_connected)
        part.running()
        await _paused(stop, PROBE_SECONDS)


async def supervised(part: Part, run: Run, stop: asyncio.Event) -> None:
    """Run a part until `stop`; whenever it ends before that, start it again after a pause."""
    failures = 0
    loop = asyncio.get_running_loop()
    while not stop.is_set():
        began = loop.time()
        try:
            await run(part, stop)
        except OUTSIDE as error:
            why = f"{type(error).__name__}: {error}"
            part.waiting(why)
            log.warning("worker.part_waits", part=part.name, why=why)
        except Exception as error:
            part.failed(f"{type(error).__name__}: {error}")
            log.exception("worker.part_failed", part=part.name, restarts=part.restarts)
        if stop.is_set():
            break
        failures = 1 if loop.time() - began > STEADY_SECONDS else failures + 1
        await _paused(stop, restart_seconds(failures))
    part.stopped()
    log.info("worker.part_stopped", part=part.name)


def restart_seconds(failures: int) -> float:
    """Return how long to wait after so many failures in a row: doubled each time, with jitter."""
    doublings = min(failures - 1, RESTART_DOUBLINGS_MAX)
    seconds = min(RESTART_SECONDS_FIRST * 2.0**doublings, RESTART_SECONDS_MAX)
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret


async def _paused(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
