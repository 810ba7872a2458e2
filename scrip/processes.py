"""The two processes that serve: the API, and the worker. Everything is put together here.

PostgreSQL and NATS may come and go under both: what needs them waits, and goes on by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.metadata
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, Literal

import psycopg
import structlog
import uvicorn
import uvloop
from eventsourcing.persistence import PersistenceError
from psycopg_pool import AsyncConnectionPool
from starlette.types import ASGIApp

from api.app import create_app
from api.routes import Deps, NatsWay
from consumers.health import Health
from consumers.streams import JetStreamUnsafe, connect, payment_subject, tenant_of
from consumers.worker import WorkerDeps, work
from ledger.guard import RefusedToStart
from ledger.store import Store
from ledger.writer import Writer
from projections.runner import Runner
from scrip.asking import Fetching, providers, secrets_keys
from scrip.http_protocol import WholeAnswers
from scrip.settings import Settings
from scrip.worker_health import worker_health

log = structlog.get_logger(__name__)

DATABASE_SECONDS_MAX: Final = 60.0
"""How long a process waits at its start for a database that is not up yet."""
DATABASE_RETRY_SECONDS: Final = 0.5
CONNECT_SECONDS_MAX: Final = 5
WATCH_SECONDS: Final = 0.2
GRACE_SECONDS_MAX: Final = 15
"""How long requests that are being answered may take when the process is told to stop."""
KEEP_ALIVE_SECONDS: Final = 75
BACKLOG: Final = 2_048
CONNECTIONS_MAX: Final = 10_000
"""Connections of one process; past it, requests are answered 503 without being looked at."""
GARBAGE_THRESHOLDS: Final = (5_000, 50, 100)
"""When Python looks for cycles. Looking through all accounts in memory takes tens of milliseconds,
and what a request leaves behind has no cycles: by Python's own thresholds it is done too often."""

Serve = Callable[[asyncio.Event], Awaitable[None]]


class Fatal(Exception):
    """A process cannot go on; the text says why, in one line."""


def serve_api(settings: Settings) -> int:
    """Serve HTTP until SIGTERM or SIGINT. Returns the exit status."""
    return _run(lambda: _api(settings))


def serve_worker(settings: Settings) -> int:
    """Follow the ledger, NATS and the clock until SIGTERM or SIGINT. Returns the exit status."""
    return _run(lambda: _worker(settings))


def _run(main: Callable[[], Awaitable[None]]) -> int:
    """Run a process, and say in one line why it ended, if it was not told to."""
    threading.excepthook = _thread_died
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_awaited(main))
    except (Fatal, RefusedToStart, JetStreamUnsafe) as error:
        log.critical("process.ended", why=str(error))
        return 1
    return 0


def _thread_died(died: threading.ExceptHookArgs) -> None:
    assert died.exc_value is not None
    name = died.thread.name if died.thread else None
    log.critical("thread.died", thread=name, exc_info=died.exc_value)


async def _awaited(main: Callable[[], Awaitable[None]]) -> None:
    await main()


# -- the API --------------------------------------------------------------------------------


async def _api(settings: Settings) -> None:
    async with stopping() as stop:
        store = await _opened(settings, stop)
        if store is None:
            return
        with contextlib.closing(store):
            async with _writer(settings, store).running() as writer:
                app = application(settings, writer)
                host, port, fd = settings.http_host, settings.http_port, settings.http_fd
                await _until_stopped(
                    stop,
                    writer,
                    lambda stop: serve_app(app, host, port, stop, lifespan="on", fd=fd),
                )


def application(settings: Settings, writer: Writer) -> ASGIApp:
    """Return the HTTP application in front of `writer`, which is the caller's to start."""
    return create_app(
        Deps(
            writer=writer,
            pool=_pool(settings),
            position_wait_seconds=settings.position_wait_ms / 1_000,
            body_bytes_max=settings.body_bytes_max,
            batch_bytes_max=settings.batch_bytes_max,
            ready_lag_events_max=settings.ready_lag_events_max,
            version=_version(),
            secrets_keys=secrets_keys(settings),
            stripe_api_url=settings.stripe_api_url,
            asaas_api_url=settings.asaas_api_url,
            nats=_nats(settings),
        )
    )


def _nats(settings: Settings) -> NatsWay | None:
    """Return how the API comes to NATS, which it can do without."""
    if settings.nats_url is None:
        return None
    url = settings.nats_url.get_secret_value()
    return NatsWay(
        connect=lambda: connect(url, "scrip-api"),
        tenant_of=tenant_of,
        payment_subject=payment_subject,
    )


def _version() -> str:
    try:
        return importlib.metadata.version("scrip")
    except importlib.metadata.PackageNotFoundError:
        return "0"  # A checkout that is run without being installed.


def _pool(settings: Settings) -> AsyncConnectionPool[Any]:
    """Return connections for reading, not open yet. One that died is replaced before it is used."""
    options = (
        f"-c statement_timeout={settings.statement_timeout_ms}"
        f" -c lock_timeout={settings.lock_timeout_ms} -c timezone=UTC -c enable_seqscan=off"
    )
    return AsyncConnectionPool(
        settings.database_url.get_secret_value(),
        min_size=min(2, settings.read_connections_max),
        max_size=settings.read_connections_max,
        open=False,
        name="reads",
        timeout=settings.statement_timeout_ms / 1_000,
        check=AsyncConnectionPool.check_connection,
        kwargs={
            "autocommit": True,
            "application_name": "scrip-reads",
            "connect_timeout": CONNECT_SECONDS_MAX,
            "options": options,
        },
    )


class _Server(uvicorn.Server):
    """uvicorn, but for the signals: the process has its own way to be stopped."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


async def serve_app(
    app: ASGIApp,
    host: str,
    port: int,
    stop: asyncio.Event,
    *,
    lifespan: Literal["on", "off"] = "off",
    fd: int | None = None,
) -> None:
    """Serve `app` until `stop`, then finish the requests that are being answered.

    With `fd`, an open socket that other processes may share, and that outlives this one.
    """
    listener = _listener(host, port) if fd is None else socket.socket(fileno=fd)
    server = _Server(
        uvicorn.Config(
            app,
            http=WholeAnswers,
            ws="none",
            lifespan=lifespan,
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=GRACE_SECONDS_MAX,
        )
    )
    serving = asyncio.create_task(server.serve([listener]))
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
    except asyncio.CancelledError:
        server.force_exit = server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        raise
    finally:
        stopped.cancel()


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise Fatal(f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}") from error


# -- the worker --------------------------------------------------------------------------------


async def _worker(settings: Settings) -> None:
    if settings.nats_url is None:
        raise Fatal("the worker needs NATS_URL")
    async with stopping() as stop, providers(settings) as asked:
        store = await _opened(settings, stop)
        if store is None:
            return
        with (
            contextlib.closing(store),
            _writer(settings, store) as writer,
            _runner(settings, store) as runner,
        ):
            health = Health()
            deps = WorkerDeps(
                writer=writer,
                database_url=settings.database_url.get_secret_value(),
                nats_url=settings.nats_url.get_secret_value(),
                nats_monitor_url=settings.nats_monitor_url,
                refuse_lazy_sync=settings.nats_refuse_lazy_sync,
                deadlines_poll_seconds=settings.deadlines_poll_seconds,
                webhook_payload_days=settings.webhook_payload_days,
                fetch=Fetching(asked),
                health=health,
            )
            app = worker_health(writer, runner, health)

            async def serve(stop: asyncio.Event) -> None:
                async with asyncio.TaskGroup() as group:
                    group.create_task(
                        serve_app(app, settings.http_host, settings.worker_http_port, stop)
                    )
                    group.create_task(work(deps, stop))

            await _until_stopped(stop, writer, serve, runner)


@contextmanager
def _runner(settings: Settings, store: Store) -> Iterator[Runner]:
    runner = Runner(
        store,
        batch_max=settings.projection_batch_max,
        poll_ms=settings.projection_poll_ms,
    )
    runner.start()
    try:
        yield runner
    finally:
        runner.close()


# -- both --------------------------------------------------------------------------------


@asynccontextmanager
async def stopping() -> AsyncIterator[asyncio.Event]:
    """Open a time in which SIGTERM and SIGINT set the event instead of ending the process."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


async def _until_stopped(
    stop: asyncio.Event, writer: Writer, serve: Serve, runner: Runner | None = None
) -> None:
    """Serve until `stop`. Raises Fatal at once if a thread that everything needs has died."""
    serving = asyncio.ensure_future(serve(stop))
    try:
        while not serving.done():
            await asyncio.wait({serving}, timeout=WATCH_SECONDS)
            if not writer.alive:
                raise Fatal("the writer has died; its last log line tells why")
            if runner is not None and not runner.alive:
                raise Fatal("the projections' thread has died; its last log line tells why")
        await serving
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    log.info("process.stopped")


async def _opened(settings: Settings, stop: asyncio.Event) -> Store | None:
    """Return the store once there is a database; None if `stop` comes first.

    Raises RefusedToStart for a database that is not fit, Fatal for one that stays away.
    """
    began = time.monotonic()
    told = False
    while not stop.is_set():
        try:
            return await asyncio.to_thread(_open, settings)
        except (psycopg.OperationalError, PersistenceError) as error:
            why = " ".join(str(error).split())
            if time.monotonic() - began > DATABASE_SECONDS_MAX:
                seconds = round(DATABASE_SECONDS_MAX)
                raise Fatal(f"no database in {seconds} s: {why}") from error
            if not told:
                log.warning("database.waiting", why=why, seconds_max=DATABASE_SECONDS_MAX)
                told = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DATABASE_RETRY_SECONDS):
                await stop.wait()
    return None


def _open(settings: Settings) -> Store:
    url = settings.database_url.get_secret_value()
    # The pool of the store waits long and says little; a plain connection tells at once.
    psycopg.connect(url, connect_timeout=CONNECT_SECONDS_MAX).close()
    return Store.open(
        url,
        pool_size=settings.store_connections_max,
        statement_timeout_ms=settings.statement_timeout_ms,
        lock_timeout_ms=settings.lock_timeout_ms,
    )


def _writer(settings: Settings, store: Store) -> Writer:
    return Writer(
        store,
        queue_max=settings.writer_queue_max,
        batch_max=settings.writer_batch_max,
        account_cache_max=settings.account_cache_max,
        snapshot_every=settings.snapshot_every_events,
        command_timeout_seconds=settings.command_timeout_seconds,
    )
