"""A command on an account with a very long history, against one on an account with ten events."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice

from benchmarks.bench import Asked, Bench
from benchmarks.invariants import check_ledger
from benchmarks.ledger_load import (
    account,
    ask,
    capture_of,
    open_accounts,
    pairs_in_batches,
    reserve_on,
    writing,
)
from benchmarks.measure import TIMES, Column, Contestant, Goal, Measured, Table, percentile
from ledger.writer import Writer

P50, P99, FIRST = "p50 ms", "p99 ms", "first command ms"
SHORT, SHORTS = 10, 100
SAMPLES = 300
RESTARTS = 5
MILLISECONDS = 1_000.0
TOLD_EVERY = 10_000


class Accounts:
    """One account with a long history, and many with ten events each."""

    def __init__(self, writer: Writer, bench: Bench) -> None:
        """Give them their histories, through the writer."""
        self.long = "long"
        self.shorts = [account(number) for number in range(SHORTS)]
        self.events = open_accounts(writer, [self.long, *self.shorts])
        pairs = (SHORT - 2) // 2
        self.events += pairs_in_batches(writer, self.shorts * pairs)
        wanted = (bench.sizes.long - 2) // 2

        def told(commands: int) -> None:
            if commands % TOLD_EVERY == 0:
                bench.tell(f"a long history: {commands} of {2 * wanted} events")

        self.events += pairs_in_batches(writer, [self.long] * wanted, told=told)

    def warm(self, writer: Writer, names: Sequence[str]) -> Mapping[str, float]:
        """Return how long commands take, one after another, on accounts in memory."""
        for name in names:
            self.events += pair(writer, name)[1]
        taken = []
        for name in islice(cycle(names), SAMPLES):
            seconds, commands = pair(writer, name)
            taken += seconds
            self.events += commands
        taken.sort()
        return {
            P50: percentile(taken, 0.5) * MILLISECONDS,
            P99: percentile(taken, 0.99) * MILLISECONDS,
        }

    def first_touch(self, url: str, names: Iterator[str]) -> Mapping[str, float]:
        """Return how long the first command takes on an account, in a writer that has just begun.

        The median of some restarts; connections are open and an account beside it was used.
        """
        taken = []
        for _ in range(RESTARTS):
            with writing(url) as writer:
                self.events += pair(writer, self.shorts[0])[1]
                seconds, commands = pair(writer, next(names))
                taken.append(seconds[0])
                self.events += commands
        return {FIRST: statistics.median(taken) * MILLISECONDS}


def pair(writer: Writer, name: str) -> tuple[list[float], int]:
    """Reserve and capture; return the seconds of each, and how many commands that was."""
    began = time.perf_counter()
    answers = ask(writer, [reserve_on(name)])
    reserved = time.perf_counter()
    ask(writer, [capture_of(answers[0])])
    return [reserved - began, time.perf_counter() - reserved], 2


def measure(bench: Bench) -> Measured:
    """Measure target 7."""
    long, short = f"{bench.sizes.long} events", f"{SHORT} events"
    with bench.database() as urls:
        with writing(urls.app_url) as writer:
            accounts = Accounts(writer, bench)
            warm = bench.in_turn(
                [
                    Contestant(short, lambda: accounts.warm(writer, accounts.shorts)),
                    Contestant(long, lambda: accounts.warm(writer, [accounts.long])),
                ]
            )
        shorts, longs = cycle(accounts.shorts[1:]), cycle([accounts.long])
        cold = bench.in_turn(
            [
                Contestant(short, lambda: accounts.first_touch(urls.app_url, shorts)),
                Contestant(long, lambda: accounts.first_touch(urls.app_url, longs)),
            ]
        )
        bench.tell("checking")
        checks = check_ledger(urls.app_url, events=accounts.events)
    first = Table(
        title="In memory, one command after another",
        columns=[Column(name=P50, decimals=3, spread=True), Column(name=P99, decimals=3)],
        rows=warm,
        ratio=P50,
        bases=[short],
    )
    second = Table(
        title="The first command on the account after a restart",
        columns=[Column(name=FIRST, decimals=2, spread=True)],
        rows=cold,
    )
    more = [
        long_ms - short_ms
        for long_ms, short_ms in zip(
            second.row(long).values[FIRST], second.row(short).values[FIRST], strict=True
        )
    ]
    goals = [
        Goal(
            number="7a",
            what=f"a command on an account with {long} against {short}, p50, warm",
            kind="at most",
            bound=1.3,
            unit=TIMES,
            values=first.ratios(long, short),
            decimals=2,
        ),
        Goal(
            number="7b",
            what=f"the first command on an account with {long}: more than with {short}",
            kind="at most",
            bound=20,
            unit=" ms",
            values=more,
        ),
    ]
    return Measured(how=HOW, tables=[first, second], goals=goals, checks=checks)


HOW = (
    "The history is made by the writer itself, in batches of reservations and captures; it takes"
    " its snapshots as ever. A restart is a new writer on new connections: it loads the newest"
    " snapshot and the events after it."
)
PART = Asked(name="long-account", title="A long history", turns=4, measure=measure)
