"""A command on an account with very many open reservations and live grants, against ten of each."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from benchmarks.bench import Asked, Bench
from benchmarks.invariants import check_ledger
from benchmarks.ledger_load import (
    AT_ONCE,
    CAPTURED,
    GRANTED,
    LONG_SECONDS,
    RESERVED,
    ask,
    batched,
    order,
    reserve_on,
    writing,
)
from benchmarks.long_account import pair
from benchmarks.measure import TIMES, Column, Contestant, Goal, Measured, Table, percentile
from ledger.domain.account import Account
from ledger.domain.commands import AccountCommand, Capture, GrantCredits, PutAccount, Reserve
from ledger.domain.decide import decide
from ledger.domain.entities import Charge
from ledger.domain.evolve import evolve
from ledger.writer import Writer

P50, P99, PAIR = "p50 ms", "p99 ms", "µs reserve + capture"
NARROW = 10
SAMPLES, DOMAIN_SAMPLES = 300, 2_000
MILLISECONDS, MICROSECONDS = 1_000.0, 1e6
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def grant(number: int, now: datetime) -> GrantCredits:
    """Return a grant that is live for long, with an expiry of its own."""
    expires_at = now + timedelta(days=400, seconds=number)
    return GrantCredits(amount=GRANTED // 1_000, kind="paid", expires_at=expires_at)


def widen(writer: Writer, name: str, count: int) -> int:
    """Give an account many grants and open reservations. Returns how many events that is."""
    now = datetime.now(UTC)
    for some in batched(range(count), AT_ONCE):
        ask(writer, [order(name, grant(number, now)) for number in some])
        ask(writer, [reserve_on(name) for _ in some])
    return 2 * count


class Alone:
    """An account in memory: the domain's own work, without a store."""

    def __init__(self, count: int) -> None:
        """Make it wide."""
        self.account = Account()
        self.numbers = 0
        self.do(PutAccount())
        for number in range(count):
            self.do(grant(number, NOW))
            self.do(Reserve(charge=Charge(amount=RESERVED), ttl_seconds=LONG_SECONDS))
        self.account.trim()

    def do(self, command: AccountCommand) -> None:
        """Decide and evolve."""
        self.numbers += 1
        for event in decide(self.account, command, NOW, key=f"key-{self.numbers}"):
            evolve(self.account, event)

    def measure(self) -> Mapping[str, float]:
        """Return what a reservation and its capture take together, trimming included."""
        began = time.perf_counter()
        for number in range(DOMAIN_SAMPLES):
            name = f"job-{self.numbers}-{number}"
            charge = Charge(amount=RESERVED)
            self.do(Reserve(id=name, charge=charge, ttl_seconds=LONG_SECONDS))
            self.do(Capture(reservation=name, charge=Charge(amount=CAPTURED)))
            self.account.trim()
        return {PAIR: (time.perf_counter() - began) / DOMAIN_SAMPLES * MICROSECONDS}


def measure(bench: Bench) -> Measured:
    """Measure target 8."""
    wide = bench.sizes.wide
    few, many = (f"{count} reservations and {count} grants" for count in (NARROW, wide))
    with bench.database() as urls:
        with writing(urls.app_url) as writer:
            bench.tell("opening reservations")
            events = len(ask(writer, [order(name, PutAccount()) for name in ("few", "many")]))
            events += widen(writer, "few", NARROW) + widen(writer, "many", wide)

            def warm(name: str) -> Mapping[str, float]:
                nonlocal events
                taken: list[float] = []
                for _ in range(SAMPLES):
                    seconds, commands = pair(writer, name)
                    taken += seconds
                    events += commands
                taken.sort()
                return {
                    P50: percentile(taken, 0.5) * MILLISECONDS,
                    P99: percentile(taken, 0.99) * MILLISECONDS,
                }

            written = bench.in_turn(
                [Contestant(few, lambda: warm("few")), Contestant(many, lambda: warm("many"))]
            )
        bench.tell("checking")
        checks = check_ledger(urls.app_url, events=events, reserved=(NARROW + wide) * RESERVED)
    accounts = {few: Alone(NARROW), many: Alone(wide)}
    alone = bench.in_turn([Contestant(name, account.measure) for name, account in accounts.items()])
    first = Table(
        title="Through the writer, one command after another",
        columns=[Column(name=P50, decimals=3, spread=True), Column(name=P99, decimals=3)],
        rows=written,
        ratio=P50,
        bases=[few],
    )
    second = Table(
        title="Decided and folded in memory",
        columns=[Column(name=PAIR, decimals=1, spread=True)],
        rows=alone,
        ratio=PAIR,
        bases=[few],
    )
    goals = [
        Goal(
            number=number,
            what=f"a command with {wide} open reservations and live grants against {NARROW}, {how}",
            kind="at most",
            bound=1.5,
            unit=TIMES,
            values=table.ratios(many, few),
            decimals=2,
        )
        for number, how, table in (
            ("8a", "through the writer, p50", first),
            ("8b", "in the domain alone", second),
        )
    ]
    return Measured(how=HOW, tables=[first, second], goals=goals, checks=checks)


HOW = "All grants are live and can pay, each with an expiry of its own; nothing is due meanwhile."
PART = Asked(name="wide-account", title="Many reservations and grants", turns=4, measure=measure)
