"""Random histories of several accounts, through the real writer, at times of their own."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Self

from ledger.domain import commands as c
from ledger.domain.account import Account
from ledger.domain.entities import Charge, ProviderRates, Rates, Source, Usage
from ledger.domain.errors import LedgerError
from ledger.domain.events import AccountEvent, CreditsDeducted, ReservationCaptured
from ledger.domain.evolve import evolve
from ledger.domain.offers import Pack, Plan
from ledger.records import Order, Recorded
from ledger.store import Store
from ledger.writer import Writer
from projections.projection import Projection
from projections.registry import PROJECTIONS
from projections.tables import connect, prepare
from projections.tracking import position_of

FEW = 800
TENANTS = ("north", "south")
ACCOUNTS = ("ann", "bob", "cy")
FEATURES = ("image", "text", None)
START = datetime(2026, 3, 27, 9, 13, tzinfo=UTC)
PATIENCE_SECONDS = 60

DISPUTED = c.ApplyPayment(grant="disputed", revision=1, amount=50, frozen=True, kind="paid")


class History:
    """Plays random commands. Its clock goes forward by itself, by seconds or by days."""

    def __init__(self, store: Store, seed: int, start: datetime = START) -> None:
        self.store = store
        self.random = random.Random(seed)  # noqa: S311 - a seed makes a failure happen again
        self.now = start
        self.step_seconds_max = 3 * 3600
        self.writer = Writer(store, clock=lambda: self.now, snapshot_every=50)
        self.names: dict[tuple[str, str, str], list[str]] = {}
        self.count = 0

    def __enter__(self) -> Self:
        self.writer.start()
        for tenant in TENANTS:
            self.order(tenant, None, c.SetFeature(feature="image", name="Image", unit_price=3))
            rates = Rates(2, 5, 1, provider=ProviderRates(300_000, 700_000, 100_000))
            self.order(tenant, None, c.SetRateCard(feature="text", models={"small": rates}))
            self.order(tenant, None, c.SetRefundPolicy(regrant_days=2))
            self.order(tenant, None, c.SetPlan(plan="pro", terms=Plan(name="Pro", credits=9)))
            self.order(tenant, None, c.SetPack(pack="ten", terms=Pack(name="Ten", credits=10)))
            self.order(tenant, None, c.SetReferralReward(referrer=5, referred=5))
            self.order(tenant, None, c.RaiseAlert(code="unknown_price", subject="pay-1"))
            for account in ACCOUNTS:
                self.order(tenant, account, c.PutAccount(label=f"{account} of {tenant}"))
                self.order(tenant, account, c.GrantCredits(amount=3_000, kind="paid"))
                self.order(tenant, account, DISPUTED)
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()

    def order(
        self, tenant: str, account: str | None, command: c.Command, by: str = "key:test"
    ) -> Recorded | None:
        """Have one command done; None if it is refused or changes nothing."""
        self.count += 1
        order = Order(
            tenant=tenant,
            account=account,
            command=command,
            key=f"k{self.count}",
            by=by,
            reason=self.random.choice((None, "because")),
        )
        try:
            recorded = self.writer.submit(order).result(PATIENCE_SECONDS).recorded
        except LedgerError:
            return None
        if recorded is not None and account is not None:
            for kind in ("grant", "reservation", "deduction"):
                name = getattr(recorded.event, kind, None)
                if isinstance(name, str):
                    names = self.names.setdefault((tenant, account, kind), ["unknown"])
                    names.append(name)
                    del names[:-6]
        return recorded

    def play(self, commands: int) -> None:
        """Play random commands on all accounts."""
        for _ in range(commands):
            self.now += timedelta(seconds=self.random.randint(0, self.step_seconds_max))
            tenant, account = self.random.choice(TENANTS), self.random.choice(ACCOUNTS)
            by = self.random.choice(("key:one", "key:two"))
            self.order(tenant, account, self._command(tenant, account), by)

    def catch_up(self, projections: tuple[Projection, ...] = PROJECTIONS) -> int:
        """Wait until the projections have all events so far; return the position."""
        head = self.store.max_position()
        with connect(self.store) as connection:
            prepare(connection, projections)
            eventually(
                lambda: all(
                    position_of(connection, projection.tracked_as) >= head
                    for projection in projections
                )
            )
        return head

    def _command(self, tenant: str, account: str) -> c.Command:
        pick, chance = self.random.choice, self.random.random
        grants, reservations, deductions = (
            self.names.get((tenant, account, kind), ["unknown"])
            for kind in ("grant", "reservation", "deduction")
        )
        make = pick(
            (
                self._grant,
                self._grant,
                lambda: c.Reserve(
                    charge=self._charge(),
                    ttl_seconds=pick((7_200, 200_000)),
                    job=pick((None, "job-1", "job-2")),
                    actor=pick((None, "agent", "ann")),
                    metadata=pick(({}, {"run": "7"})),
                ),
                lambda: c.Reserve(charge=Charge(amount=self.random.randint(0, 60))),
                lambda: c.Capture(
                    reservation=pick(reservations),
                    charge=self._charge(),
                    final=chance() < 0.5,
                    overage=pick(("reject", "draw", "debt")),
                ),
                lambda: c.Capture(reservation=pick(reservations), charge=Charge(), overage="debt"),
                lambda: c.CaptureUpTo(
                    operation=pick(
                        (*reservations, deductions[-1].split("~")[0], f"up-{self.count}")
                    ),
                    charge=self._charge(),
                    final=chance() < 0.4,
                    actor=pick((None, "agent")),
                ),
                lambda: c.Release(reservation=pick(reservations)),
                lambda: c.Extend(
                    reservation=pick(reservations),
                    amount=pick((None, 7)),
                    ttl_seconds=pick((None, 300_000)),
                ),
                lambda: c.Deduct(
                    charge=self._charge(),
                    overage=pick(("reject", "draw", "debt")),
                    actor=pick((None, "agent", "ann")),
                    job=pick((None, "job-1")),
                    metadata=pick(({}, {"b": "1", "a": "2"})),
                ),
                lambda: c.Refund(deduction=pick(deductions), amount=pick((None, 1, 5))),
                lambda: c.RevokeGrant(grant=pick(grants), clawback=chance() < 0.5),
                self._payment,
                self._payment,
                lambda: c.Adjust(amount=pick((-9, -40, 5, 30)), overage="debt"),
                lambda: c.PutAccount(overdraft_limit=pick((0, 50)), label=pick((None, "L%_"))),
                c.Settle,
            )
        )
        return make()

    def _payment(self) -> c.ApplyPayment:
        pick = self.random.choice
        days = self.random.randint(1, 9)
        amount = self.random.randint(1, 300)
        return c.ApplyPayment(
            grant=pick(("pay-1", "pay-2", "pay-3")),
            revision=self.random.randint(1, 30),
            amount=amount,
            reversed=pick((0, 0, 0, 1, amount // 2, amount)),
            frozen=pick((False, False, True)),
            kind=pick(("paid", "promotional")),
            priority=pick((10, 100)),
            scope=pick(((), (), ("image",))),
            expires_at=pick((None, self.now + timedelta(days=days))),
            cost_basis=pick((None, 9)),
            source=pick((None, Source("payment", "p1"))),
        )

    def _grant(self) -> c.GrantCredits:
        pick = self.random.choice
        days = self.random.randint(1, 9)
        return c.GrantCredits(
            amount=self.random.randint(1, 300),
            kind=pick(("paid", "promotional")),
            priority=pick((10, 100)),
            scope=pick(((), (), ("image",), ("image", "text"))),
            effective_at=pick((None, None, self.now + timedelta(hours=5))),
            expires_at=pick((None, self.now + timedelta(days=days))),
            cost_basis=pick((None, 9)),
            source=pick((None, Source("payment", "p1"))),
            metadata=pick(({}, {"campaign": "x"})),
        )

    def _charge(self) -> Charge:
        pick, upto = self.random.choice, self.random.randint
        return pick(
            (
                lambda: Charge(amount=upto(0, 60), feature=pick(FEATURES)),
                lambda: Charge(quantity=upto(0, 9) * 1_000_000, feature="image"),
                lambda: Charge(
                    usage=Usage(upto(0, 9_000_000), upto(0, 4_000_000)),
                    feature="text",
                    model="small",
                ),
            )
        )()


def events_of_all(store: Store) -> list[Recorded]:
    """Return the whole ledger."""
    events: list[Recorded] = []
    while more := store.events_after(events[-1].position if events else 0, 10_000):
        events += more
    return events


def folded(events: list[Recorded]) -> dict[tuple[str, str], Account]:
    """Fold every account from its events, by the domain's own rules."""
    accounts: dict[tuple[str, str], Account] = {}
    for recorded in events:
        if recorded.account is not None:
            account = accounts.setdefault((recorded.tenant, recorded.account), Account())
            assert isinstance(recorded.event, AccountEvent)
            evolve(account, recorded.event)
            assert account.version == recorded.version
    return accounts


def spending(events: list[Recorded]) -> list[Recorded]:
    """Return the events that spend."""
    return [one for one in events if isinstance(one.event, CreditsDeducted | ReservationCaptured)]


def eventually(condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until `condition` is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
