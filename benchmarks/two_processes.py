"""A second API process beside the first, on accounts of their own or on the same ones."""

from __future__ import annotations

from benchmarks.bench import Asked, Bench
from benchmarks.http_load import Target
from benchmarks.http_turns import CONNECTIONS, COST, P50, P99, RATE, RETRIED, SPENDERS, HttpLoad
from benchmarks.invariants import check_ledger
from benchmarks.ledger_load import account, open_accounts, writing
from benchmarks.measure import TIMES, Column, Contestant, Goal, Measured, Table
from benchmarks.services import Services

ONE, TWO = "one process, spread", "two processes, accounts of their own"
ONE_SHARED, TWO_SHARED = "one process, {} accounts", "two processes, the same {} accounts"


def measure(bench: Bench) -> Measured:
    """Measure target 11."""
    spread, shared = bench.sizes.accounts, bench.sizes.shared
    # Each contestant has accounts that no other has touched: what one process holds of them in
    # memory is then still so.
    alone, halves = (0, spread - 1), ((spread, 3 * spread // 2 - 1), (3 * spread // 2, 2 * spread))
    one_shared = (2 * spread + 1, 2 * spread + shared)
    two_shared = (one_shared[1] + 1, one_shared[1] + shared)
    with bench.database() as urls, Services(bench, urls) as services:
        bench.tell("opening accounts")
        with writing(urls.app_url) as writer:
            opened = open_accounts(writer, map(account, range(two_shared[1] + 1)))
        first, second = services.start_api(), services.start_api()
        services.start_worker()
        services.settle()
        load = HttpLoad(bench, services, services.token)

        def targets(*used: tuple[int, tuple[int, int]]) -> list[Target]:
            share = CONNECTIONS // len(used)
            return [
                Target(port=port, connections=share, first=lowest, last=highest)
                for port, (lowest, highest) in used
            ]

        each = targets((first, halves[0]), (second, halves[1]))
        same = targets((first, two_shared), (second, two_shared))
        bench.tell("warming up")
        load.warm(targets((first, alone)))
        load.warm(each)
        rows = bench.in_turn(
            [
                Contestant(ONE, lambda: load.run(targets((first, alone)))),
                Contestant(TWO, lambda: load.run(each)),
                Contestant(
                    ONE_SHARED.format(shared), lambda: load.run(targets((first, one_shared)))
                ),
                Contestant(TWO_SHARED.format(shared), lambda: load.run(same)),
            ]
        )
        bench.tell("checking")
        checks = check_ledger(urls.app_url, events=opened + load.commands)
    columns = [
        Column(name=RATE, spread=True),
        Column(name=P50, decimals=1),
        Column(name=P99, decimals=1),
        Column(name=RETRIED),
        *(Column(name=COST.format(who)) for who in SPENDERS),
    ]
    table = Table(
        title=f"Reserve + capture over HTTP, {CONNECTIONS} connections in all",
        columns=columns,
        rows=rows,
        ratio=RATE,
        bases=[ONE],
    )
    return Measured(how=HOW, tables=[table], goals=_goals(table, shared), checks=checks)


def _goals(table: Table, shared: int) -> list[Goal]:
    ratios = {
        "11a": (TWO, ONE, 1.3, "two API processes against one, accounts of their own"),
        "11b": (
            TWO_SHARED.format(shared),
            ONE_SHARED.format(shared),
            0.8,
            f"two API processes against one, the same {shared} accounts",
        ),
    }
    return [
        Goal(
            number=number,
            what=what,
            kind="at least",
            bound=bound,
            unit=TIMES,
            values=table.ratios(row, base),
            decimals=2,
        )
        for number, (row, base, bound, what) in ratios.items()
    ]


HOW = (
    "The API processes, the worker, PostgreSQL and the client share the cores. Half of the"
    " connections go to each process; on the same accounts, each process finds again and again"
    " that the other has written first."
)
PART = Asked(name="two-processes", title="Two API processes", turns=4, measure=measure)
