"""Single requests and batches over HTTP: against what a team writes first, and against nothing."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.baselines import naive_http
from benchmarks.bench import Asked, Bench
from benchmarks.http_load import Target
from benchmarks.http_turns import (
    BATCH,
    BATCH_CONNECTIONS,
    CONNECTIONS,
    COST,
    P50,
    P99,
    RATE,
    SPENDERS,
    HttpLoad,
    spread_over,
)
from benchmarks.invariants import check_ledger
from benchmarks.ledger_load import GRANTED, account, open_accounts, writing
from benchmarks.measure import TIMES, Column, Contestant, Goal, Measured, Table
from benchmarks.services import Services

NAIVE, NAIVE_HOT = "FastAPI + psycopg, a transaction each", "FastAPI + psycopg, one account"
SCRIP, SCRIP_HOT = "Scrip", "Scrip, one account"
SCRIP_ALONE = "Scrip, worker paused"
NOTHING, BATCHES = "Scrip without a ledger", f"Scrip, batches of {BATCH}"


def measure(bench: Bench) -> Measured:
    """Measure targets 4 to 6."""
    spread = bench.sizes.accounts
    with (
        bench.database() as ours,
        bench.database(migrated=False) as theirs,
        Services(bench, ours) as services,
    ):
        bench.tell("opening accounts")
        naive_http.prepare(theirs.owner_url, spread + 1, GRANTED)
        with writing(ours.app_url) as writer:
            opened = open_accounts(writer, map(account, range(spread + 1)))
        port = services.start_api()
        services.start_worker()
        loads = {name: HttpLoad(bench, services, services.token) for name in (NAIVE, SCRIP)}
        bench.tell("warming up")
        naive = services.start_baseline("naive", theirs.owner_url)
        loads[SCRIP].warm(spread_over(port, spread))
        nothing = services.start_baseline("no-ledger", ours.app_url)
        rows = bench.in_turn(_contestants(loads, spread, port=port, naive=naive, nothing=nothing))
        bench.tell("checking")
        checks = check_ledger(ours.app_url, events=opened + loads[SCRIP].commands)
        naive_http.check(theirs.owner_url, commands=loads[NAIVE].commands, granted=GRANTED)
    columns = [
        Column(name=RATE, spread=True),
        Column(name=P50, decimals=1),
        Column(name=P99, decimals=1),
    ]
    columns += [Column(name=COST.format(who)) for who in SPENDERS]
    table = Table(
        title=f"Reserve + capture over HTTP, {spread} accounts or one, {CONNECTIONS} connections",
        columns=columns,
        rows=rows,
        ratio=RATE,
        bases=[NAIVE],
    )
    return Measured(how=HOW, tables=[table], goals=_goals(table), checks=[*checks, NAIVE_CHECKED])


HOW = (
    "One API process, the worker with its nats-server, PostgreSQL and the client share the cores;"
    " the projections and the outbox run meanwhile. 'FastAPI + psycopg' is"
    " benchmarks/baselines/naive_http.py, served by the same server with the same settings, one"
    " process. 'Scrip without a ledger' is the same application in front of a writer that answers"
    " at once (benchmarks/baselines/no_ledger.py): routed, authenticated, decoded, rendered and"
    " logged as ever. 'Worker paused': as if it ran on another machine. The last columns are the"
    " processor time that a command costs each of them, until the projections and the outbox have"
    " caught up; all of it has to fit on the cores. Before the first turn most accounts have been"
    " used, so that the process has them in memory."
)
NAIVE_CHECKED = "for the baseline, one row a command, nothing lost and nothing left reserved"


def _contestants(
    loads: Mapping[str, HttpLoad], spread: int, *, port: int, naive: int, nothing: int
) -> list[Contestant]:
    ours, theirs = loads[SCRIP], loads[NAIVE]
    services = ours.services
    aside = HttpLoad(ours.bench, services, services.token)

    def one(port: int) -> list[Target]:
        # An account beside those that the rest is spread over.
        return [Target(port=port, connections=CONNECTIONS, first=spread, last=spread)]

    everywhere, few = spread_over(port, spread), spread_over(port, spread, BATCH_CONNECTIONS)
    return [
        Contestant(NAIVE, lambda: theirs.run(spread_over(naive, spread))),
        Contestant(SCRIP, lambda: ours.run(everywhere)),
        Contestant(SCRIP_ALONE, lambda: ours.run(everywhere, within=services.worker_paused)),
        Contestant(NOTHING, lambda: aside.run(spread_over(nothing, spread))),
        Contestant(NAIVE_HOT, lambda: theirs.run(one(naive))),
        Contestant(SCRIP_HOT, lambda: ours.run(one(port))),
        Contestant(BATCHES, lambda: ours.run(few, batch=BATCH)),
    ]


def _goals(table: Table) -> list[Goal]:
    def goal(number: str, what: str, bound: float, row: str, base: str) -> Goal:
        return Goal(
            number=number,
            what=what,
            kind="at least",
            bound=bound,
            unit=TIMES,
            values=table.ratios(row, base),
            decimals=2,
        )

    return [
        goal("4a", "HTTP, spread, against a transaction each", 5, SCRIP, NAIVE),
        goal("4b", "HTTP, one hot account, against a transaction each", 10, SCRIP_HOT, NAIVE_HOT),
        goal("5", "HTTP, against the same route without a ledger", 0.6, SCRIP, NOTHING),
        goal("6", f"batches of {BATCH} over HTTP, against single requests", 5, BATCHES, SCRIP),
    ]


PART = Asked(name="over-http", title="Over HTTP", turns=7, measure=measure)
