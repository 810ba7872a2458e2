"""Scrip as it ships: `scrip serve api` and `scrip serve worker`, each in a process of its own."""

from __future__ import annotations

import http.client
import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import psutil
import psycopg
from msgspec import Struct
from psycopg.rows import scalar_row

from api.keys import create_key, create_tenant
from benchmarks.bench import Bench, Failed
from benchmarks.ledger_load import TENANT
from projections.status import read_status
from scrip.embedded import DatabaseUrls, EmbeddedNats
from scrip.spawn import HOST, Child, free_port

READY_SECONDS_MAX = 60.0
QUIET_SECONDS_MAX = 300.0
QUIET_SECONDS = 0.3
POLL_SECONDS = 0.05
ANSWER_SECONDS_MAX = 10.0
STOP_SIGNALS = ((signal.SIGTERM, 25.0),)
OK = 200
HEAD = "SELECT coalesce(max(notification_id), 0) FROM scrip.ledger_events"


class Usage(Struct, frozen=True):
    """Processor seconds that were used, by who used them."""

    seconds: dict[str, float]

    def since(self, before: Usage) -> dict[str, float]:
        """Return what each has used since `before`."""
        return {name: used - before.seconds.get(name, 0.0) for name, used in self.seconds.items()}


class Services:
    """The processes that serve one database."""

    def __init__(self, bench: Bench, urls: DatabaseUrls) -> None:
        """Prepare; nothing runs yet."""
        self.bench = bench
        self.urls = urls
        self.token = ""
        self.ports: list[int] = []
        self.children: dict[str, list[Child]] = {"api": [], "baseline": [], "worker": []}
        self.nats = EmbeddedNats(bench.folder / bench.fresh("nats"))
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Make a tenant and its key, and start a nats-server."""
        self.token = make_key(self.urls)
        self._stack.enter_context(self.nats)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop all."""
        self._stack.close()

    @property
    def nats_url(self) -> str:
        """Where NATS is; the URL holds the password."""
        return self.nats.url

    def start_api(self) -> int:
        """Start another API process and return its port, once it serves."""
        port = free_port()
        self.serve("api", port, {"SCRIP_HTTP_PORT": str(port)}, "/health/live")
        self.ports.append(port)
        return port

    def start_worker(self) -> None:
        """Start the worker, and wait until it serves."""
        port = free_port()
        self.serve("worker", port, {"SCRIP_WORKER_HTTP_PORT": str(port)}, "/health/ready")

    def start_baseline(self, name: str, url: str) -> int:
        """Start what Scrip is compared with on a database, and return its port."""
        port = free_port()
        environment = {"DATABASE_URL": url, "SCRIP_HTTP_PORT": str(port)}
        environment["BASELINE_TOKEN"] = self.token
        child = self.bench.start("benchmarks.baselines.serve", environment, name)
        self._stack.callback(child.stop, STOP_SIGNALS)
        path = "/openapi.json" if name == "naive" else "/health/live"
        wait_until(lambda: answers(port, path), name, child)
        self.children["baseline"].append(child)
        return port

    def serve(self, kind: str, port: int, environment: dict[str, str], path: str) -> Child:
        """Start a process and wait until it answers."""
        more = {
            "DATABASE_URL": self.urls.app_url,
            "NATS_URL": self.nats.url,
            "SCRIP_NATS_MONITOR_URL": self.nats.monitor_url,
            "SCRIP_HTTP_HOST": HOST,
            **environment,
        }
        child = self.bench.start("scrip", more, "serve", kind)
        self._stack.callback(child.stop, STOP_SIGNALS)
        wait_until(lambda: answers(port, path), f"scrip serve {kind}", child)
        self.children[kind].append(child)
        return child

    @contextmanager
    def worker_paused(self) -> Iterator[None]:
        """Stop the worker's process for a while, as if it were on another machine."""
        processes = [psutil.Process(child.pid) for child in self.children["worker"]]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                process.resume()

    def settle(self) -> None:
        """Wait until the worker has nothing more to do: its work must not slow who comes next."""
        if not self.children["worker"]:
            return
        with psycopg.connect(self.urls.app_url, autocommit=True) as connection:
            wait_until(lambda: caught_up(connection), "the projections")
        before, since = self._published(), time.monotonic()
        deadline = time.monotonic() + QUIET_SECONDS_MAX
        while time.monotonic() - since < QUIET_SECONDS:
            time.sleep(POLL_SECONDS)
            if (now := self._published()) != before:
                before, since = now, time.monotonic()
            if time.monotonic() > deadline:
                raise Failed("the outbox does not come to rest")

    def usage(self) -> Usage:
        """Return what the processes have used so far, PostgreSQL and NATS among them."""
        used = {kind: sum(map(cpu_of, children)) for kind, children in self.children.items()}
        used["server"] = used["api"] + used["baseline"]
        used["postgres"] = cpu_of_family(self.bench.postgres.pid)
        used["nats"] = cpu_of_family(self.nats.pid)
        return Usage(used)

    def _published(self) -> int:
        url = self.nats.monitor_url.removeprefix("http://")
        return int(get_json(url, "/jsz").get("messages", 0))


def make_key(urls: DatabaseUrls, role: str = "service") -> str:
    """Return the secret of a new key of the benchmark's tenant."""
    with psycopg.connect(urls.app_url, row_factory=scalar_row) as connection:
        known = "SELECT 1 FROM scrip.tenants WHERE tenant = %(tenant)s"
        if connection.execute(known, {"tenant": TENANT}).fetchone() is None:
            create_tenant(connection, TENANT, "live")
        assert role in {"service", "admin", "reader"}
        return create_key(connection, TENANT, role, label="benchmark")[1]  # type: ignore[arg-type]


def caught_up(connection: psycopg.Connection[Any]) -> bool:
    """Tell whether all projections stand at the end of the ledger. Raises Failed if one stopped."""
    statuses = read_status(connection)
    stopped = [str(one.error) for one in statuses if one.error is not None]
    if stopped:
        raise Failed(stopped[0])
    with connection.cursor(row_factory=scalar_row) as cursor:
        head = cursor.execute(HEAD).fetchone()
    return all(one.position == head for one in statuses)


def wait_until(condition: Callable[[], bool], what: str, child: Child | None = None) -> None:
    """Wait for something that must come. Raises Failed."""
    seconds = READY_SECONDS_MAX if child is not None else QUIET_SECONDS_MAX
    deadline = time.monotonic() + seconds
    while not condition():
        if child is not None and not child.is_running:
            raise Failed(f"{what} has ended: {child.log_tail()}")
        if time.monotonic() > deadline:
            raise Failed(f"waited {seconds:g} s for {what}")
        time.sleep(POLL_SECONDS)


def answers(port: int, path: str) -> bool:
    """Tell whether a server says that all is well."""
    try:
        get_json(f"{HOST}:{port}", path)
    except (OSError, http.client.HTTPException, Failed):
        return False
    return True


def get_json(address: str, path: str) -> dict[str, Any]:
    """Return what a server says. Raises Failed for another status than 200."""
    body = get(address, path)
    answer: dict[str, Any] = json.loads(body) if body else {}
    return answer


def metric(port: int, name: str) -> float:
    """Return what a process tells under the name of a metric. Raises Failed."""
    for line in get(f"{HOST}:{port}", "/metrics").decode().splitlines():
        if line.startswith(name):
            return float(line.split()[1])
    raise Failed(f"there is no metric {name}")


def get(address: str, path: str) -> bytes:
    """Return the body of an answer. Raises Failed for another status than 200."""
    connection = http.client.HTTPConnection(address, timeout=ANSWER_SECONDS_MAX)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != OK:
        raise Failed(f"{path}: {response.status}")
    return body


def cpu_of(child: Child) -> float:
    """Return the processor seconds of a process."""
    times = psutil.Process(child.pid).cpu_times()
    return float(times.user + times.system)


def cpu_of_family(pid: int) -> float:
    """Return the processor seconds of a server and its processes, of those that ended as well."""
    parent = psutil.Process(pid)
    times = parent.cpu_times()
    used = times.user + times.system + times.children_user + times.children_system
    for child in parent.children():
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        used += times.user + times.system
    return float(used)


def resident_megabytes(children: Sequence[Child]) -> float:
    """Return the memory that processes hold, in MB (millions of bytes)."""
    return sum(psutil.Process(child.pid).memory_info().rss for child in children) / 1e6
