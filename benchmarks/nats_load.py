"""The load over NATS: request and reply, on one connection, so many in flight.

`python -m benchmarks.nats_load` reads a NatsPlan as JSON and prints an Outcome. It speaks the
protocol itself, for the same reason as the load over HTTP: it must not be what is measured.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from typing import cast
from urllib.parse import urlsplit

import msgspec
import uvloop

from benchmarks.http_load import (
    BAD_ANSWERS_KEPT,
    FIRST_ERROR_STATUS,
    Load,
    Outcome,
    Plan,
    cpu_seconds,
    id_in,
)

STATUS = b"Scrip-Status: "
STATUS_DIGITS = 3
INBOX = b"_INBOX.bench."
END = b"\r\n"


class NatsPlan(Plan, frozen=True, kw_only=True):
    """As over HTTP; the connections of the one target are the requests in flight."""

    url: str
    tenant: str


class Slot:
    """One request in flight: reserve, capture, reserve, capture, … until the time is over."""

    def __init__(self, load: Load, wire: Wire, number: int) -> None:
        """Answers come to an inbox of its own."""
        self.load = load
        self.wire = wire
        self.inbox = INBOX + b"%d" % number
        self.account = b""
        self.began = 0.0
        self.reserving = False

    def begin(self) -> None:
        """Reserve on some account, or end."""
        if time.perf_counter() >= self.load.ends:
            self.load.ended()
            return
        target = self.load.plan.targets[0]
        self.account = b"account-%d" % random.randint(target.first, target.last)  # noqa: S311
        self.send(b"reserve", b'{"account":"%b","amount":"3"}' % self.account, reserving=True)

    def send(self, name: bytes, body: bytes, *, reserving: bool) -> None:
        """Send a request."""
        self.reserving = reserving
        self.began = time.perf_counter()
        self.wire.publish(name, self.inbox, body)

    def answered(self, status: int, body: bytes) -> None:
        """Count an answer, and send what follows it."""
        if status >= FIRST_ERROR_STATUS:
            if len(self.load.bad) < BAD_ANSWERS_KEPT:
                self.load.bad.append(f"{status}: {body[:300]!r}")
            self.load.ended()
            return
        self.load.answered(self.began, 1, reserve=self.reserving)
        if not self.reserving:
            self.begin()
            return
        capture = b'{"account":"%b","reservation":"%b","amount":"2"}' % (self.account, id_in(body))
        self.send(b"capture", capture, reserving=False)


class Wire(asyncio.Protocol):
    """The connection, and the little of the protocol that is needed."""

    def __init__(self, load: Load, plan: NatsPlan) -> None:
        """Connect as the user in the plan's URL."""
        self.load = load
        parts = urlsplit(plan.url)
        self.login = msgspec.json.encode(
            {
                "verbose": False,
                "pedantic": False,
                "headers": True,
                "user": parts.username,
                "pass": parts.password,
            }
        )
        self.subject = f"scrip.{plan.tenant}.ledger.".encode()
        self.head = f"NATS/1.0\r\nAuthorization: Bearer {plan.token}\r\nIdempotency-Key: ".encode()
        self.slots = [Slot(load, self, n) for n in range(plan.targets[0].connections)]
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say who this is, and where answers go."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(b"CONNECT %b\r\nSUB %b* 1\r\n" % (self.login, INBOX))

    def connection_lost(self, exc: Exception | None) -> None:
        """Hear the end: the server must not be the first."""
        if not self.load.finished.is_set():
            self.load.bad.append(f"connection lost: {exc}")
            self.load.finished.set()

    def publish(self, name: bytes, inbox: bytes, body: bytes) -> None:
        """Send a request."""
        load = self.load
        head = b"%b%b%d\r\n\r\n" % (self.head, load.key, next(load.numbers))
        self.transport.write(
            b"HPUB %b%b %b %d %d\r\n%b%b\r\n"
            % (self.subject, name, inbox, len(head), len(head) + len(body), head, body)
        )

    def data_received(self, data: bytes) -> None:
        """Take the whole messages of what has come."""
        self.buffer += data
        while (end := self.buffer.find(END)) >= 0:
            line = self.buffer[:end]
            word = line[:4]
            if word != b"HMSG":
                assert not line.startswith((b"-ERR", b"MSG")), line
                self.buffer = self.buffer[end + 2 :]
                if word == b"PING":
                    self.transport.write(b"PONG\r\n")
                continue
            _, subject, _, head_bytes, all_bytes = line.split(b" ")
            start, stop = end + 2, end + 2 + int(all_bytes)
            if len(self.buffer) < stop + 2:
                return
            message = self.buffer[start:stop]
            self.buffer = self.buffer[stop + 2 :]
            head, body = message[: int(head_bytes)], message[int(head_bytes) :]
            slot = self.slots[int(subject[len(INBOX) :])]
            slot.answered(status_in(head), body)


def status_in(head: bytes) -> int:
    """Return the status of an answer; 503 where nobody serves."""
    start = head.find(STATUS)
    if start < 0:
        return 503
    start += len(STATUS)
    return int(head[start : start + STATUS_DIGITS])


async def run(plan: NatsPlan) -> Outcome:
    """Carry out a plan: all that was begun is finished, so that nothing is left reserved."""
    load = Load(plan)
    parts = urlsplit(plan.url)
    assert parts.hostname is not None
    assert parts.port is not None
    loop = asyncio.get_running_loop()
    _, wire = await loop.create_connection(lambda: Wire(load, plan), parts.hostname, parts.port)
    load.busy = len(wire.slots)
    load.start()
    for slot in wire.slots:
        slot.begin()
    await asyncio.sleep(plan.warm_seconds + plan.seconds)
    cpu = cpu_seconds() - load.cpu_began
    await load.finished.wait()
    wire.transport.close()
    return load.outcome(cpu)


if __name__ == "__main__":
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=NatsPlan)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.stdout.buffer.write(msgspec.json.encode(runner.run(run(asked))))
