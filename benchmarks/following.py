"""The read side: how fast the projections follow the ledger, and how fast they are built again."""

from __future__ import annotations

import time
from collections.abc import Mapping

import psycopg

from benchmarks.bench import Asked, Bench
from benchmarks.invariants import check_ledger
from benchmarks.ledger_load import account, open_accounts, pairs_in_batches, writing
from benchmarks.measure import Column, Contestant, Goal, Measured, Table
from benchmarks.services import caught_up
from ledger.store import Store
from ledger.writer import Writer
from projections.rebuild import rebuild
from projections.registry import PROJECTIONS
from projections.runner import Runner
from scrip.embedded import DatabaseUrls

RATE, FILLING = "events/s", "events/s, filling alone"
LIVE = "live, all {} projections"
REBUILT = {"balances": 60_000, "usage": 40_000}
POLL_SECONDS = 0.02
STATEMENT_MS_MAX = 600_000


class Ledger:
    """A ledger that grows, and projections that are behind it."""

    def __init__(self, bench: Bench, urls: DatabaseUrls, writer: Writer, store: Store) -> None:
        """Open the accounts."""
        self.bench = bench
        self.urls = urls
        self.writer = writer
        self.store = store
        self.names = [account(number) for number in range(bench.sizes.accounts)]
        self.events = open_accounts(writer, self.names)
        self.followed = 0

    def grow(self) -> None:
        """Write a backlog."""
        self.bench.tell("writing a backlog")
        pairs = self.bench.sizes.backlog // 2
        names = (self.names * (pairs // len(self.names) + 1))[:pairs]
        self.events += pairs_in_batches(self.writer, names)

    def follow(self) -> Mapping[str, float]:
        """Return how fast all projections catch up with a backlog."""
        self.grow()
        behind, self.followed = self.events - self.followed, self.events
        runner = Runner(self.store)
        with psycopg.connect(self.urls.app_url, autocommit=True) as connection:
            self.bench.tell("following")
            began = time.perf_counter()
            runner.start()
            try:
                # The first look finds no tables yet.
                while not caught_up(connection):
                    assert runner.alive
                    time.sleep(POLL_SECONDS)
                seconds = time.perf_counter() - began
            finally:
                runner.close()
        return {RATE: behind / seconds}

    def rebuild(self, name: str) -> Mapping[str, float]:
        """Return how fast a projection is built again; the rows must be the same."""
        began, filled = time.perf_counter(), 0.0

        def progress(position: int, until: int) -> None:
            nonlocal filled
            if position >= until and not filled:
                filled = time.perf_counter() - began

        report = rebuild(self.store, name, progress=progress)
        seconds = time.perf_counter() - began
        assert report.differing == 0, report.differences[:3]
        assert report.compared_at is not None
        return {RATE: self.events / seconds, FILLING: self.events / (filled or seconds)}


def measure(bench: Bench) -> Measured:
    """Measure target 9."""
    live = LIVE.format(len(PROJECTIONS))
    with bench.database() as urls:
        store = Store.open(urls.app_url, statement_timeout_ms=STATEMENT_MS_MAX)
        try:
            with writing(urls.app_url) as writer:
                bench.tell("opening accounts")
                ledger = Ledger(bench, urls, writer, store)
                rows = bench.in_turn(
                    [
                        Contestant(live, ledger.follow),
                        *(
                            Contestant(f"rebuild of {name}", lambda name=name: ledger.rebuild(name))  # type: ignore[misc]
                            for name in REBUILT
                        ),
                    ]
                )
            bench.tell("checking")
            checks = check_ledger(urls.app_url, events=ledger.events)
        finally:
            store.close()
    table = Table(
        title=f"{bench.sizes.backlog} more events a round, {bench.sizes.accounts} accounts",
        columns=[Column(name=RATE, spread=True), Column(name=FILLING)],
        rows=rows,
    )
    bounds = {live: 20_000, **{f"rebuild of {name}": bound for name, bound in REBUILT.items()}}
    goals = [
        Goal(
            number="9" + letter,
            what=f"projections: {name}",
            kind="at least",
            bound=bound,
            unit=" events/s",
            values=table.row(name).values[RATE],
            decimals=0,
        )
        for letter, (name, bound) in zip("abc", bounds.items(), strict=True)
    ]
    checks.append("a rebuilt projection has the very rows of the live one")
    return Measured(how=HOW, tables=[table], goals=goals, checks=checks)


HOW = (
    "Each round the writer makes a backlog of reservations and captures; then the runner of the"
    " projections is started, and timed until the last of them stands at the end of the ledger."
    " A rebuild goes over the whole ledger: it fills new tables, makes their indexes, compares"
    " them with the live ones row by row, and switches."
)
PART = Asked(name="following", title="Projections", turns=1 + len(REBUILT), measure=measure)
