"""The load over HTTP: a program of its own, cheap enough not to be what is measured.

`python -m benchmarks.http_load` reads a Plan as JSON and prints an Outcome. Each connection has one
request in flight and sends the next one from within the callback that read the answer before it:
no tasks, no futures, some 15 µs a request. It reads the id of a reservation out of its answer, so
the pair is what a client of the API would do.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import resource
import sys
import time
from typing import cast

import httptools
import msgspec
import uvloop
from msgspec import Struct

from benchmarks.measure import percentile

RESERVE_BODY, CAPTURE_BODY = b'{"amount": "3"}', b'{"amount": "2"}'
ID = b'"id":"'
BAD_ANSWERS_KEPT = 3
MILLISECONDS, MICROSECONDS = 1_000.0, 1e6
FIRST_ERROR_STATUS, UNAVAILABLE = 300, 503
RETRIES_MAX, RETRY_SECONDS = 1_000, 0.01


class Target(Struct, frozen=True, kw_only=True):
    """Where so many connections go, and the accounts that they use: `account-FIRST` to `-LAST`."""

    port: int
    connections: int
    first: int
    last: int


class Plan(Struct, frozen=True, kw_only=True):
    """What to do. `batch` commands a request go to /v1/batch; 0: each has a request of its own.

    `run` makes idempotency keys that nobody has used. What happens in the first `warm_seconds`
    is not counted.
    """

    targets: list[Target]
    token: str
    run: str
    seconds: float
    warm_seconds: float
    batch: int = 0


class Outcome(Struct, frozen=True, kw_only=True):
    """What was done: all commands that were answered; and, of the counted time, the rest.

    Times in milliseconds. `cpu` is what a command has cost this program, in µs. `retries` counts
    the requests that were sent again, with the same key, since the server asked for that (503).
    """

    commands: int
    rate: float
    requests: float
    reserve_p50: float
    reserve_p99: float
    capture_p50: float
    capture_p99: float
    cpu: float
    retries: int
    bad: list[str]


class Result(Struct):
    """One answer in that to a batch."""

    status: int
    body: dict[str, object]


class Results(Struct):
    """The answer to a batch."""

    results: list[Result]


_results = msgspec.json.Decoder(Results).decode


class Load:
    """What all connections share: the plan, the clock, what was counted."""

    def __init__(self, plan: Plan) -> None:
        """Begin the clock when `start` is called."""
        self.plan = plan
        self.head = f"Host: 127.0.0.1\r\nAuthorization: Bearer {plan.token}\r\n".encode()
        self.head += b"Content-Type: application/json\r\n"
        self.key = f"{plan.run}-".encode()
        self.numbers = itertools.count()
        self.counts_from = self.ends = 0.0
        self.commands = self.counted = self.requests = self.retries = 0
        self.reserve_seconds: list[float] = []
        self.capture_seconds: list[float] = []
        self.bad: list[str] = []
        self.busy = 0
        self.finished = asyncio.Event()
        self.cpu_began = 0.0

    def start(self) -> None:
        """Begin the clock."""
        now = time.perf_counter()
        self.counts_from = now + self.plan.warm_seconds
        self.ends = self.counts_from + self.plan.seconds
        loop = asyncio.get_running_loop()
        loop.call_later(self.plan.warm_seconds, self._count)

    def _count(self) -> None:
        self.cpu_began = cpu_seconds()

    def answered(self, began: float, commands: int, *, reserve: bool) -> None:
        """Count an answer."""
        self.commands += commands
        now = time.perf_counter()
        if self.counts_from <= now <= self.ends:
            self.counted += commands
            self.requests += 1
            (self.reserve_seconds if reserve else self.capture_seconds).append(now - began)

    def ended(self) -> None:
        """Hear that one connection has finished."""
        self.busy -= 1
        if self.busy == 0:
            self.finished.set()

    def outcome(self, cpu: float) -> Outcome:
        """Return what was done."""
        seconds, reserves, captures = (
            self.plan.seconds,
            sorted(self.reserve_seconds),
            sorted(self.capture_seconds),
        )
        return Outcome(
            commands=self.commands,
            rate=self.counted / seconds,
            requests=self.requests / seconds,
            reserve_p50=percentile(reserves, 0.5) * MILLISECONDS,
            reserve_p99=percentile(reserves, 0.99) * MILLISECONDS,
            capture_p50=percentile(captures, 0.5) * MILLISECONDS,
            capture_p99=percentile(captures, 0.99) * MILLISECONDS,
            cpu=cpu / max(1, self.counted) * MICROSECONDS,
            retries=self.retries,
            bad=self.bad,
        )


class Pairs(asyncio.Protocol):
    """One connection: reserve, capture, reserve, capture, … until the time is over."""

    def __init__(self, load: Load, target: Target) -> None:
        """Use the accounts of `target`."""
        self.load = load
        self.first, self.last = target.first, target.last
        self.parser = httptools.HttpResponseParser(self)
        self.body = b""
        self.began = 0.0
        self.reserving = False
        self.prefix = self.sent = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to send."""
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Hear the end: the server must not be the first."""
        if not self.load.finished.is_set():
            self.load.bad.append(f"connection lost: {exc}")
            self.load.ended()

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the answer."""
        self.body = self.body + body if self.body else body

    def on_message_complete(self) -> None:
        """Go on with what follows an answer."""
        body, self.body = self.body, b""
        status = self.parser.get_status_code()
        if status == UNAVAILABLE and self.load.retries < RETRIES_MAX:
            self.load.retries += 1
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self.transport.write, self.sent)
            return
        if status >= FIRST_ERROR_STATUS:
            if len(self.load.bad) < BAD_ANSWERS_KEPT:
                self.load.bad.append(f"{status}: {body[:300]!r}")
            self.load.ended()
            return
        self.understood(body)

    def understood(self, body: bytes) -> None:
        """Count a good answer, and send what follows it."""
        self.load.answered(self.began, 1, reserve=self.reserving)
        if self.reserving:
            self.send(self.prefix + b"/" + id_in(body) + b"/capture", CAPTURE_BODY, reserving=False)
        else:
            self.begin()

    def begin(self) -> None:
        """Reserve on some account, or end."""
        if time.perf_counter() >= self.load.ends:
            self.load.ended()
            return
        number = random.randint(self.first, self.last)  # noqa: S311 - a load, no secret
        self.prefix = b"/v1/accounts/account-%d/reservations" % number
        self.send(self.prefix, RESERVE_BODY, reserving=True)

    def send(self, path: bytes, body: bytes, *, reserving: bool) -> None:
        """Send a request."""
        load = self.load
        self.reserving = reserving
        self.began = time.perf_counter()
        self.sent = (
            b"POST %b HTTP/1.1\r\n%bIdempotency-Key: %b%d\r\nContent-Length: %d\r\n\r\n%b"
            % (path, load.head, load.key, next(load.numbers), len(body), body)
        )
        self.transport.write(self.sent)


class Batches(Pairs):
    """One connection that sends many commands a request: reservations, then their captures."""

    def begin(self) -> None:
        """Reserve on some accounts, or end."""
        if time.perf_counter() >= self.load.ends:
            self.load.ended()
            return
        numbers = random.choices(range(self.first, self.last + 1), k=self.load.plan.batch)  # noqa: S311
        self.accounts = [f"account-{number}" for number in numbers]
        self._send_all(
            [{"op": "reserve", "account": name, "amount": "3"} for name in self.accounts],
            reserving=True,
        )

    def understood(self, body: bytes) -> None:
        """Count a good answer, and send what follows it."""
        results = _results(body).results
        bad = [result for result in results if result.status >= FIRST_ERROR_STATUS]
        if bad:
            self.load.bad.append(str(bad[0]))
            self.load.ended()
            return
        self.load.answered(self.began, len(results), reserve=self.reserving)
        if not self.reserving:
            self.begin()
            return
        self._send_all(
            [
                {
                    "op": "capture",
                    "account": name,
                    "reservation": result.body["id"],
                    "amount": "2",
                }
                for name, result in zip(self.accounts, results, strict=True)
            ],
            reserving=False,
        )

    def _send_all(self, commands: list[dict[str, object]], *, reserving: bool) -> None:
        for command in commands:
            command["key"] = f"{self.load.plan.run}-{next(self.load.numbers)}"
        self.send(b"/v1/batch", msgspec.json.encode({"commands": commands}), reserving=reserving)


def id_in(body: bytes) -> bytes:
    """Return the id that an answer begins with."""
    start = body.index(ID) + len(ID)
    return body[start : body.index(b'"', start)]


def cpu_seconds() -> float:
    """Return how long this process has computed."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def run(plan: Plan) -> Outcome:
    """Carry out a plan: all that was begun is finished, so that nothing is left reserved."""
    load = Load(plan)
    kind = Batches if plan.batch else Pairs
    loop = asyncio.get_running_loop()
    connections: list[Pairs] = []
    for target in plan.targets:
        for _ in range(target.connections):
            _, protocol = await loop.create_connection(
                lambda target=target: kind(load, target),  # type: ignore[misc]
                "127.0.0.1",
                target.port,
            )
            connections.append(protocol)
    load.busy = len(connections)
    load.start()
    for connection in connections:
        connection.begin()
    await asyncio.sleep(plan.warm_seconds + plan.seconds)
    cpu = cpu_seconds() - load.cpu_began
    await load.finished.wait()
    for connection in connections:
        connection.transport.close()
    return load.outcome(cpu)


if __name__ == "__main__":
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.stdout.buffer.write(msgspec.json.encode(runner.run(run(plan))))
