"""One turn of the load over HTTP, with what it cost each process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from msgspec import structs

from benchmarks.bench import Bench
from benchmarks.http_load import Outcome, Plan, Target
from benchmarks.services import Services

RATE, P50, P99 = "commands/s", "reserve p50 ms", "reserve p99 ms"
COST, RETRIED = "µs {}", "sent again"
SPENDERS = ("server", "worker", "postgres", "client")
"""Whose processor time a command is told to cost."""
CONNECTIONS = 64
BATCH, BATCH_CONNECTIONS = 500, 4
WARM_SECONDS = 0.5
MICROSECONDS = 1e6


def spread_over(port: int, accounts: int, connections: int = CONNECTIONS) -> list[Target]:
    """Return all accounts of one server as a target."""
    return [Target(port=port, connections=connections, first=0, last=accounts - 1)]


class HttpLoad:
    """A load on one server; counts what was answered."""

    def __init__(self, bench: Bench, services: Services, token: str) -> None:
        """Send as the holder of `token`."""
        self.bench = bench
        self.services = services
        self.token = token
        self.commands = 0

    def ask(self, targets: list[Target], *, batch: int = 0) -> Outcome:
        """Do one turn; all that was begun is answered, and nothing is refused."""
        plan = Plan(**self.plan(targets), batch=batch)
        return self.answered(self.bench.ask("benchmarks.http_load", plan, Outcome))

    def warm(self, targets: list[Target]) -> None:
        """Have nearly all accounts of `targets` in memory: each is used about twice, in batches."""
        few = [structs.replace(target, connections=BATCH_CONNECTIONS) for target in targets]
        enough = self.commands + 4 * sum(one.last - one.first + 1 for one in few)
        while self.commands < enough:
            self.ask(few, batch=BATCH)
        self.services.settle()

    def plan(self, targets: list[Target]) -> dict[str, Any]:
        """Return what the plans of all turns have."""
        return {
            "targets": targets,
            "token": self.token,
            "run": self.bench.fresh("run"),
            "seconds": self.bench.seconds,
            "warm_seconds": min(WARM_SECONDS, self.bench.seconds),
        }

    def answered(self, outcome: Outcome) -> Outcome:
        """Count what a turn has done; nothing may have been refused."""
        assert not outcome.bad, outcome.bad
        self.commands += outcome.commands
        return outcome

    def run(
        self,
        targets: list[Target],
        *,
        batch: int = 0,
        within: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> Mapping[str, float]:
        """Do one turn, and return its figures; the worker has come to rest afterwards."""
        before = self.services.usage()
        with within():
            outcome = self.ask(targets, batch=batch)
        self.services.settle()
        used = self.services.usage().since(before)
        return {
            RATE: outcome.rate,
            P50: outcome.reserve_p50,
            P99: outcome.reserve_p99,
            **{
                COST.format(who): used.get(who, 0.0) / outcome.commands * MICROSECONDS
                for who in (*SPENDERS, "nats")
            },
            RETRIED: outcome.retries,
            COST.format("client"): outcome.cpu,
        }
