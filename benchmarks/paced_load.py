"""Commands at a fixed rate, whether or not answers come, and reads of what they have written.

`python -m benchmarks.paced_load` reads a Plan as JSON and prints an Outcome.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import time
from http import HTTPStatus

import msgspec
import uvloop
from msgspec import Struct

from benchmarks.measure import percentile
from scrip.replay.http import Answer, Http

MILLISECONDS = 1_000.0
RESERVE_BODY, CAPTURE_BODY = b'{"amount": "3"}', b'{"amount": "2"}'


class Plan(Struct, frozen=True, kw_only=True):
    """`rate` commands a second for so long; every `sample_every`-th is looked for in the balance.

    What happens in the first `warm_seconds` is not counted.
    """

    url: str
    token: str
    run: str
    accounts: int
    rate: float
    seconds: float
    warm_seconds: float
    connections: int
    sample_every: int


class Outcome(Struct, frozen=True, kw_only=True):
    """In milliseconds. `late` is how late the client itself began what was due."""

    commands: int
    rate: float
    lag_p50: float
    lag_p99: float
    command_p50: float
    command_p99: float
    late_p99: float
    samples: int


class Paced:
    """One run of a plan."""

    def __init__(self, plan: Plan, http: Http) -> None:
        """Send over `http`."""
        self.plan = plan
        self.http = http
        self.numbers = itertools.count(1)
        self.lags: list[float] = []
        self.taken: list[float] = []
        self.late: list[float] = []
        self.commands = 0

    async def run(self) -> Outcome:
        """Begin a pair whenever one is due."""
        plan = self.plan
        every = 2 / plan.rate
        began = time.perf_counter()
        warm = int(plan.warm_seconds / every)
        async with asyncio.TaskGroup() as group:
            for number in range(warm + int(plan.seconds / every)):
                due = began + number * every
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                counts = number >= warm
                if counts:
                    self.late.append(time.perf_counter() - due)
                group.create_task(self._pair(group, counts=counts))
        ended = time.perf_counter()
        lags, taken, late = sorted(self.lags), sorted(self.taken), sorted(self.late)
        return Outcome(
            commands=self.commands,
            rate=self.commands / (ended - began),
            lag_p50=percentile(lags, 0.5) * MILLISECONDS,
            lag_p99=percentile(lags, 0.99) * MILLISECONDS,
            command_p50=percentile(taken, 0.5) * MILLISECONDS,
            command_p99=percentile(taken, 0.99) * MILLISECONDS,
            late_p99=percentile(late, 0.99) * MILLISECONDS,
            samples=len(lags),
        )

    async def _pair(self, group: asyncio.TaskGroup, *, counts: bool) -> None:
        number = random.randrange(self.plan.accounts)  # noqa: S311 - a load, no secret
        account = f"/v1/accounts/account-{number}"
        made = await self._command(f"{account}/reservations", RESERVE_BODY, counts=counts)
        path = f"{account}/reservations/{made.json['id']}/capture"
        done = await self._command(path, CAPTURE_BODY, counts=counts)
        arrived = time.perf_counter()
        if counts and self.commands % self.plan.sample_every == 0:
            position = done.json["position"]
            group.create_task(self._look(f"{account}/balance?position={position}", arrived))

    async def _command(self, path: str, body: bytes, *, counts: bool) -> Answer:
        key = f"{self.plan.run}-{next(self.numbers)}"
        began = time.perf_counter()
        answer = await self._send("POST", path, {"Idempotency-Key": key}, body)
        if counts:
            self.taken.append(time.perf_counter() - began)
        self.commands += 1
        return answer

    async def _look(self, path: str, since: float) -> None:
        await self._send("GET", path, {}, None)
        self.lags.append(time.perf_counter() - since)

    async def _send(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None
    ) -> Answer:
        headers["Authorization"] = f"Bearer {self.plan.token}"
        answer = await self.http.request(method, path, headers, body)
        assert answer.status in {HTTPStatus.OK, HTTPStatus.CREATED}, answer
        return answer


async def run(plan: Plan) -> Outcome:
    """Carry out a plan."""
    async with Http(plan.url, connections_max=plan.connections) as http:
        return await Paced(plan, http).run()


if __name__ == "__main__":
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.stdout.buffer.write(msgspec.json.encode(runner.run(run(asked))))
