"""The same commands over NATS request/reply, beside HTTP."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.bench import Asked, Bench
from benchmarks.http_load import Outcome, Target
from benchmarks.http_turns import COST, P50, P99, RATE, SPENDERS, HttpLoad, spread_over
from benchmarks.invariants import check_ledger
from benchmarks.ledger_load import TENANT, account, open_accounts, writing
from benchmarks.measure import Column, Contestant, Measured, Table
from benchmarks.nats_load import NatsPlan
from benchmarks.services import Services, metric, wait_until

IN_FLIGHT = (1, 64)
HTTP, NATS = "HTTP, {} in flight", "NATS, {} in flight"
CONNECTED = "scrip_nats_connected"


class NatsLoad(HttpLoad):
    """The load over NATS: one connection, so many requests in flight."""

    def ask(self, targets: list[Target], *, batch: int = 0) -> Outcome:
        """Do one turn; all that was begun is answered, and nothing is refused."""
        assert batch == 0
        plan = NatsPlan(
            **self.plan(targets),
            url=self.services.nats_url,
            tenant=TENANT,
        )
        return self.answered(self.bench.ask("benchmarks.nats_load", plan, Outcome))


def measure(bench: Bench) -> Measured:
    """Measure request and reply over NATS; there is no target for it."""
    accounts = bench.sizes.accounts
    with bench.database() as urls, Services(bench, urls) as services:
        bench.tell("opening accounts")
        with writing(urls.app_url) as writer:
            opened = open_accounts(writer, map(account, range(accounts)))
        port = services.start_api()
        services.start_worker()
        wait_until(lambda: metric(port, CONNECTED) == 1, "requests over NATS to be answered")
        services.settle()
        loads = {
            HTTP: HttpLoad(bench, services, services.token),
            NATS: NatsLoad(bench, services, services.token),
        }

        def run(way: str, in_flight: int) -> Mapping[str, float]:
            return loads[way].run(spread_over(port, accounts, connections=in_flight))

        rows = bench.in_turn(
            [
                Contestant(
                    way.format(in_flight),
                    lambda way=way, in_flight=in_flight: run(way, in_flight),  # type: ignore[misc]
                )
                for in_flight in IN_FLIGHT
                for way in loads
            ]
        )
        bench.tell("checking")
        commands = sum(load.commands for load in loads.values())
        checks = check_ledger(urls.app_url, events=opened + commands)
    table = Table(
        title=f"Reserve + capture, {accounts} accounts",
        columns=[
            Column(name=RATE, spread=True),
            Column(name=P50, decimals=2),
            Column(name=P99, decimals=2),
            *(Column(name=COST.format(who)) for who in (*SPENDERS, "nats")),
        ],
        rows=rows,
    )
    return Measured(how=HOW, tables=[table], checks=checks)


HOW = (
    "One API process answers both. Over HTTP each request in flight has a connection; over NATS"
    " they share one. Both clients speak their protocol themselves."
)
PART = Asked(name="over-nats", title="Over NATS", turns=2 * len(IN_FLIGHT), measure=measure)
