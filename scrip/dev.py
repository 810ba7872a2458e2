"""All of Scrip on one machine, its data in a folder: embedded servers, API processes, a worker.

`scrip dev` and `scrip demo` are this, with another `when_ready`.
"""

import asyncio
import errno
import http.client
import json
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psycopg
from psycopg.rows import scalar_row

from scrip.embedded import EmbeddedNats, EmbeddedPostgres
from scrip.spawn import HOST, FolderLock, PortInUseError, Server, child_command, free_port
from scrip.supervisor import SUPERVISOR, Lines, Service, Supervisor

DATA_FOLDER = Path(".scrip")
READY_FILE = "dev.json"
PORT = 8000
BACKLOG_MAX = 2_048
PROBE_SECONDS_MAX = 2.0
PROBE_POLL_SECONDS = 0.05
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
APP_ROLE = "scrip_app"
SECRETS_KEYS = "SCRIP_SECRETS_KEYS"
TENANT = "demo"
SELECT_TENANT = "SELECT 1 FROM scrip.tenants WHERE tenant = %(tenant)s"


@dataclass(frozen=True, kw_only=True)
class Keys:
    """The secret of one key of each role."""

    service: str = field(repr=False)
    admin: str = field(repr=False)
    reader: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Running:
    """Where everything is: what `dev.json` says. The URLs and keys are secrets."""

    base_url: str
    nats_url: str = field(repr=False)
    nats_monitor_url: str
    database_url: str = field(repr=False)
    database_owner_url: str = field(repr=False)
    worker_url: str
    tenant: str
    keys: Keys
    secrets_keys: str = field(repr=False)


WhenReady = Callable[[Running], Awaitable[int]]
"""Called once everything serves; when it returns, all is stopped, and its answer is the status."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run. `port` None is 8000, or a free one where that is taken."""

    data_dir: Path | None = None
    port: int | None = None
    ephemeral: bool = False
    api_processes: int = 1
    environment: Mapping[str, str] = field(repr=False)
    lines: Lines


async def until_stopped(_: Running) -> int:
    """Serve until a signal comes."""
    await asyncio.Event().wait()
    raise AssertionError


def run(plan: Plan, when_ready: WhenReady = until_stopped) -> int:
    """Run everything and return the exit status. Ctrl-C and SIGTERM stop all, cleanly, with 0.

    Raises FolderInUseError, PortInUseError, ServerStartError and CannotKeepUpError.
    """
    return asyncio.run(_run(plan, when_ready))


async def _run(plan: Plan, when_ready: WhenReady) -> int:
    task = asyncio.current_task()
    assert task is not None
    supervisor = Supervisor(plan.lines)
    stopped = _stop_on_signal(task, supervisor, plan.lines)
    try:
        with _folders(plan) as (folder, work), _listening(plan.port) as listener:
            parts = Parts(
                EmbeddedPostgres(work / "postgres"),
                EmbeddedNats(work / "nats"),
                listener,
                work / "keys.json",
                _kept_secrets_keys(work / "secrets-keys.json", plan.environment),
            )
            with _prepared(parts.postgres), _prepared(parts.nats):
                return await _serve(plan, when_ready, folder, parts, supervisor)
    except asyncio.CancelledError:
        if not stopped.is_set():
            raise
        task.uncancel()
        return 0


@contextmanager
def _prepared(server: Server) -> Iterator[None]:
    try:
        # In this thread: what it starts dies with the thread that started it.
        server.prepare()
        yield
    finally:
        server.release()


@dataclass(frozen=True)
class Parts:
    """The servers and the API's socket. The keys lie beside the database that has their hashes."""

    postgres: EmbeddedPostgres
    nats: EmbeddedNats
    listener: socket.socket
    keys_file: Path
    secrets_keys: str = field(repr=False)


async def _serve(
    plan: Plan, when_ready: WhenReady, folder: Path, parts: Parts, supervisor: Supervisor
) -> int:
    worker_port = free_port()
    async with supervisor.running(_stages(plan, parts, worker_port)):
        running = Running(
            base_url=f"http://{HOST}:{parts.listener.getsockname()[1]}",
            nats_url=parts.nats.url,
            nats_monitor_url=parts.nats.monitor_url,
            database_url=parts.postgres.app_url,
            database_owner_url=parts.postgres.owner_url,
            worker_url=f"http://{HOST}:{worker_port}",
            tenant=TENANT,
            keys=_read_keys(parts.keys_file),
            secrets_keys=parts.secrets_keys,
        )
        await _until_ready(parts.listener.getsockname()[1])
        with _announced(folder, running, plan.lines):
            return await when_ready(running)


def _stop_on_signal(
    task: asyncio.Task[object], supervisor: Supervisor, lines: Lines
) -> asyncio.Event:
    """Make the first signal stop all cleanly, and the second one at once."""
    stopped = asyncio.Event()

    def on_signal() -> None:
        if stopped.is_set():
            supervisor.hurry()
            return
        stopped.set()
        lines(SUPERVISOR, "stopping; once more to stop at once")
        task.cancel()

    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    return stopped


def _stages(plan: Plan, parts: Parts, worker_port: int) -> list[list[Service]]:
    postgres, nats = parts.postgres, parts.nats
    environment = {
        **plan.environment,
        "DATABASE_URL": postgres.app_url,
        "NATS_URL": nats.url,
        "SCRIP_NATS_MONITOR_URL": nats.monitor_url,
        SECRETS_KEYS: parts.secrets_keys,
        "SCRIP_HTTP_FD": str(parts.listener.fileno()),
        "SCRIP_HTTP_HOST": HOST,
        "SCRIP_HTTP_PORT": str(parts.listener.getsockname()[1]),
        "SCRIP_WORKER_HTTP_PORT": str(worker_port),
    }
    environment.pop("DATABASE_OWNER_URL", None)
    port = parts.listener.getsockname()[1]

    def finish_postgres() -> None:
        postgres.finish()
        _migrate(postgres.owner_url, plan.lines)
        _make_keys(parts.keys_file, postgres.app_url)

    names = [
        f"api-{n}" if plan.api_processes > 1 else "api" for n in range(1, plan.api_processes + 1)
    ]
    api = [
        Service(
            name=name,
            command=lambda: _scrip("serve", "api"),
            environment=environment,
            is_ready=lambda: _answers(port, "/health/live"),
            pass_fds=(parts.listener.fileno(),),
        )
        for name in names
    ]
    worker = Service(
        name="worker",
        command=lambda: _scrip("serve", "worker"),
        environment=environment,
        is_ready=lambda: _answers(worker_port, "/health/live"),
        stop_signals=((signal.SIGTERM, 25.0),),
    )
    return [[_service(postgres, finish_postgres)], [_service(nats)], [*api, worker]]


def _service(server: Server, finish: Callable[[], None] | None = None) -> Service:
    return Service(
        name=server.name,
        command=server.command,
        environment=server.environment(),
        is_ready=server.is_ready,
        after_first_start=finish or server.finish,
        stop_signals=server.stop_signals,
    )


def _scrip(*words: str) -> list[str]:
    # SIGKILL: without the supervisor the servers are gone, and nothing acknowledged is in danger.
    program = [sys.executable, "-m", "scrip", *words]
    return child_command(program, death_signal=signal.SIGKILL)


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=PROBE_SECONDS_MAX)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


async def _until_ready(port: int) -> None:
    """Wait until the API says that it can do its work; the projections may have to catch up."""
    while True:
        if await asyncio.to_thread(_answers, port, "/health/ready"):
            return
        await asyncio.sleep(PROBE_POLL_SECONDS)


@contextmanager
def _folders(plan: Plan) -> Iterator[tuple[Path, Path]]:
    """Lock the data folder; yield it, and the folder of the servers, which may be a passing one."""
    passing = Path(tempfile.mkdtemp(prefix="scrip-")) if plan.ephemeral else None
    folder = plan.data_dir or passing or DATA_FOLDER
    try:
        lock = FolderLock(folder)
        try:
            (folder / READY_FILE).unlink(missing_ok=True)  # Of a run that was killed.
            yield folder.resolve(), (passing or folder).resolve()
        finally:
            lock.release()
    finally:
        if passing is not None:
            shutil.rmtree(passing)


@contextmanager
def _listening(port: int | None) -> Iterator[socket.socket]:
    """Listen for the API processes: while one is restarted, connections wait in the socket."""
    try:
        listener = socket.create_server((HOST, port or PORT), backlog=BACKLOG_MAX)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        if port is not None:
            message = f"another program listens on port {port}"
            raise PortInUseError(message) from None
        listener = socket.create_server((HOST, free_port()), backlog=BACKLOG_MAX)
    with listener:
        yield listener


def _migrate(owner_url: str, lines: Lines) -> None:
    from ledger.migrate import migrate  # noqa: PLC0415 - not before it is needed

    for name in migrate(owner_url, APP_ROLE):
        lines(SUPERVISOR, f"migrated: {name}")


def _make_keys(file: Path, app_url: str) -> None:
    """Make the demo tenant and its keys, which are kept: the database holds hashes only."""
    from api.keys import create_key, create_tenant  # noqa: PLC0415 - not before it is needed

    with psycopg.connect(app_url, row_factory=scalar_row) as connection:
        if connection.execute(SELECT_TENANT, {"tenant": TENANT}).fetchone() is None:
            create_tenant(connection, TENANT, "test")
        elif file.exists():
            return
        made = {
            role: create_key(connection, TENANT, role, label="scrip dev")[1]
            for role in ("service", "admin", "reader")
        }
        _write_secret(file, made)


def _kept_secrets_keys(file: Path, environment: Mapping[str, str]) -> str:
    """Return the keys that the environment names, or one that is kept, made at first use."""
    if SECRETS_KEYS in environment:
        return environment[SECRETS_KEYS]
    from api.sealing import new_key  # noqa: PLC0415 - not before it is needed

    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        _write_secret(file, {SECRETS_KEYS: new_key("dev")})
    return str(json.loads(file.read_text())[SECRETS_KEYS])


def _read_keys(file: Path) -> Keys:
    return Keys(**json.loads(file.read_text()))


@contextmanager
def _announced(folder: Path, running: Running, lines: Lines) -> Iterator[None]:
    """Keep `dev.json` while all is served, so that scripts need not read the terminal."""
    file = folder / READY_FILE
    _write_secret(file, asdict(running))
    lines(SUPERVISOR, f"ready: {running.base_url} (keys in {file}); Ctrl-C stops")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _write_secret(file: Path, content: Mapping[str, object]) -> None:
    """Write JSON for this user only, whole or not at all."""
    new = file.with_suffix(".new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_text(json.dumps(content, indent=2) + "\n")
    new.replace(file)
