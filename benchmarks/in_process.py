"""Reserve and capture without HTTP: the writer against aggregates of `eventsourcing`."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from benchmarks.baselines.aggregates import SETTINGS, AggregateLoad
from benchmarks.bench import Asked, Bench
from benchmarks.invariants import check_ledger
from benchmarks.ledger_load import (
    Chains,
    account,
    open_accounts,
    writing,
)
from benchmarks.measure import TIMES, Column, Contestant, Goal, Measured, Row, Table, quotients
from ledger.writer import Writer
from scrip.processes import GARBAGE_THRESHOLDS

RATE = "commands/s"
THREADS = (1, 16)
LARGE_BATCH, LARGE_IN_FLIGHT = 1_000, 2
SPREAD_256, SPREAD_64 = "writer, 256 in flight", "writer, 64 in flight"
HOT, BATCHES = (
    "writer, 256 in flight, one account",
    f"writer, {LARGE_IN_FLIGHT} batches of {LARGE_BATCH}",
)


class WriterLoad:
    """Pairs of reserve and capture on a writer; counts what was answered."""

    def __init__(self, writer: Writer, accounts: int, seconds: float) -> None:
        """Open the accounts."""
        self.writer = writer
        self.seconds = seconds
        self.names = [account(number) for number in range(accounts)]
        self.events = open_accounts(writer, self.names)

    def run(self, in_flight: int, size: int = 1, *, hot: bool = False) -> Mapping[str, float]:
        """Return commands a second, `size` of them submitted together."""
        chains = Chains(self.writer, self.names[:1] if hot else self.names, size)
        seconds = chains.run(in_flight, self.seconds)
        self.events += chains.commands
        return {RATE: chains.commands / seconds}


def measure(bench: Bench) -> Measured:
    """Measure targets 1 to 3."""
    with (
        bench.database() as ours,
        bench.database(migrated=False) as first,
        bench.database(migrated=False) as second,
    ):
        bench.tell("opening accounts")
        loads = {
            name: AggregateLoad(urls, settings, bench.sizes.aggregates, bench.seconds)
            for (name, settings), urls in zip(SETTINGS.items(), (first, second), strict=True)
        }
        with writing(ours.app_url) as writer, collecting_as_served():
            load = WriterLoad(writer, bench.sizes.accounts, bench.seconds)
            rows = bench.in_turn([*_baselines(loads), *_writers(load)])
        bench.tell("checking")
        checks = check_ledger(ours.app_url, events=load.events)
        for baseline in loads.values():
            baseline.check()
            baseline.close()
    title = f"Reserve + capture in process, {bench.sizes.accounts} accounts"
    bases = [_baseline(name, THREADS[0]) for name in SETTINGS]
    table = Table(
        title=title, columns=[Column(name=RATE, spread=True)], rows=rows, ratio=RATE, bases=bases
    )
    return Measured(
        how="Each command is one event, committed before it is answered. The baselines are"
        " benchmarks/baselines/aggregates.py, with the library's cache on: without lots, expiry,"
        " prices, keys or a hash chain. 'As it comes' is the library's default, right for any"
        " number of processes; without fast-forward it is right for one process alone. All collect"
        " garbage as seldom as `scrip serve` does. A baseline"
        f" uses {bench.sizes.aggregates} accounts, all in its cache.",
        tables=[table],
        goals=_goals(table),
        checks=[*checks, "for each baseline, one event a command and what is left in each account"],
    )


@contextmanager
def collecting_as_served() -> Iterator[None]:
    """Collect garbage as seldom as `scrip serve` does, for all that take part."""
    before = gc.get_threshold()
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _baseline(name: str, threads: int) -> str:
    return f"eventsourcing, {name}, {threads} thread{'s' if threads > 1 else ''}"


def _baselines(loads: Mapping[str, AggregateLoad]) -> list[Contestant]:
    return [
        Contestant(
            _baseline(name, threads),
            lambda load=load, threads=threads: {RATE: load.run(threads)},  # type: ignore[misc]
        )
        for name, load in loads.items()
        for threads in THREADS
    ]


def _writers(load: WriterLoad) -> list[Contestant]:
    return [
        Contestant(SPREAD_64, lambda: load.run(64)),
        Contestant(SPREAD_256, lambda: load.run(256)),
        Contestant(HOT, lambda: load.run(256, hot=True)),
        Contestant(BATCHES, lambda: load.run(LARGE_IN_FLIGHT, LARGE_BATCH)),
    ]


def _goals(table: Table) -> list[Goal]:
    goals = []
    for place, name in enumerate(SETTINGS):
        # Whichever number of threads does the baseline better, round by round.
        rows = [table.row(_baseline(name, threads)).values[RATE] for threads in THREADS]
        base = [max(values) for values in zip(*rows, strict=True)]
        for number, who, bound in (
            ("1", SPREAD_256, 30.0),
            ("2", SPREAD_64, 27.0),
            ("2", BATCHES, 50.0),
        ):
            goals.append(
                Goal(
                    number=number + "ab"[place],
                    what=f"{who}, against eventsourcing {name}",
                    kind="at least",
                    bound=bound,
                    unit=TIMES,
                    values=quotients(_rates(table.row(who)), base),
                )
            )
    hot = Goal(
        number="3",
        what="one hot account, against all of them, 256 in flight",
        kind="at least",
        bound=0.7,
        unit=TIMES,
        values=table.ratios(HOT, SPREAD_256),
        decimals=2,
    )
    return [*goals, hot]


def _rates(row: Row) -> list[float]:
    return row.values[RATE]


PART = Asked(
    name="in-process",
    title="The write path in process",
    turns=len(SETTINGS) * len(THREADS) + 4,
    measure=measure,
)
