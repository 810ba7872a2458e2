"""How long one reservation takes when nothing else is to be done."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.baselines import naive_http, one_insert
from benchmarks.bench import Asked, Bench
from benchmarks.http_turns import HttpLoad, spread_over
from benchmarks.invariants import check_ledger
from benchmarks.ledger_load import GRANTED, account, open_accounts, writing
from benchmarks.measure import TIMES, Column, Contestant, Goal, Measured, Table
from benchmarks.services import Services

P50, P99 = "p50 ms", "p99 ms"
INSERT, INSERT_AUTO = "INSERT and COMMIT of one row", "INSERT of one row, autocommit"
NAIVE, SCRIP = "reserve, FastAPI + psycopg", "reserve, Scrip"
ACCOUNTS = 100


def measure(bench: Bench) -> Measured:
    """Measure target 13."""
    accounts = min(ACCOUNTS, bench.sizes.accounts)
    with (
        bench.database() as ours,
        bench.database(migrated=False) as theirs,
        Services(bench, ours) as services,
    ):
        naive_http.prepare(theirs.owner_url, accounts, GRANTED)
        one_insert.prepare(theirs.owner_url)
        with writing(ours.app_url) as writer:
            opened = open_accounts(writer, map(account, range(accounts)))
        port = services.start_api()
        services.start_worker()
        naive = services.start_baseline("naive", theirs.owner_url)
        services.settle()
        load, other = (HttpLoad(bench, services, services.token) for _ in range(2))

        def insert(*, autocommit: bool) -> Mapping[str, float]:
            question = one_insert.Question(theirs.owner_url, bench.seconds, autocommit)
            answer = bench.ask("benchmarks.baselines.one_insert", question, one_insert.Answer)
            return {P50: answer.p50, P99: answer.p99}

        def reserve(load: HttpLoad, port: int) -> Mapping[str, float]:
            outcome = load.ask(spread_over(port, accounts, connections=1))
            return {P50: outcome.reserve_p50, P99: outcome.reserve_p99}

        rows = bench.in_turn(
            [
                Contestant(INSERT, lambda: insert(autocommit=False)),
                Contestant(INSERT_AUTO, lambda: insert(autocommit=True)),
                Contestant(NAIVE, lambda: reserve(other, naive)),
                Contestant(SCRIP, lambda: reserve(load, port)),
            ]
        )
        bench.tell("checking")
        checks = check_ledger(ours.app_url, events=opened + load.commands)
        naive_http.check(theirs.owner_url, commands=other.commands, granted=GRANTED)
    table = Table(
        title="One at a time",
        columns=[Column(name=P50, decimals=2, spread=True), Column(name=P99, decimals=2)],
        rows=rows,
        ratio=P50,
        bases=[INSERT],
    )
    goal = Goal(
        number="13",
        what="one reserve over HTTP, p50, against an INSERT and COMMIT of one row",
        kind="at most",
        bound=3,
        unit=TIMES,
        values=table.ratios(SCRIP, INSERT),
        decimals=2,
    )
    return Measured(how=HOW, tables=[table], goals=[goal], checks=checks)


HOW = (
    "One connection, one request after another, captures between the reservations. The INSERT is"
    " one row of three columns through psycopg's pool on an event loop, without HTTP; with COMMIT"
    " it is three statements (BEGIN, INSERT, COMMIT), as the pool does it unless told otherwise."
)
PART = Asked(name="latency", title="Unloaded latency", turns=4, measure=measure)
