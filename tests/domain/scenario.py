"""given(…).when(…).then(…): one account, its prices and a clock, in words.

Amounts are micro-credits. A step is a command, or a number of seconds to wait.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Self

from ledger.domain.account import Account
from ledger.domain.catalog import Catalog
from ledger.domain.commands import (
    Capture,
    Command,
    Deduct,
    Extend,
    GrantCredits,
    PutAccount,
    Refund,
    Release,
    Reserve,
    TenantCommand,
)
from ledger.domain.decide import decide, settle
from ledger.domain.entities import Balance, Charge, Draw, Grant, Return
from ledger.domain.errors import LedgerError
from ledger.domain.events import Event
from ledger.domain.evolve import evolve
from ledger.domain.tenant import decide_tenant, evolve_tenant
from tests.domain.targets import check_books

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
Step = Command | int


def at(seconds: int) -> datetime:
    """Return the time so many seconds after the scenario began."""
    return NOON + timedelta(seconds=seconds)


class Scenario:
    """What is so, after some steps."""

    def __init__(self) -> None:
        """Start with nothing, at noon."""
        self.account, self.catalog, self.now, self.keys = Account(), Catalog(), NOON, 0

    def do(self, step: Step) -> Event | None:
        """Take a step; return the event of its command, if it made one."""
        if isinstance(step, int):
            self.now += timedelta(seconds=step)
            return None
        self.keys += 1
        if isinstance(step, TenantCommand):
            said = decide_tenant(self.catalog, step, self.now)
            evolve_tenant(self.catalog, said)
            return said
        events = decide(self.account, step, self.now, key=f"key-{self.keys}", prices=self.catalog)
        due = len(settle(self.account, self.now)[0])
        for one in events:
            evolve(self.account, one)
            check_books(self.account)
        return events[-1] if len(events) > due else None

    def when(self, step: Step) -> Result:
        """Take the step that the test is about."""
        try:
            return Result(self, self.do(step))
        except LedgerError as refusal:
            return Result(self, None, refusal)


class Result:
    """What came of a step."""

    def __init__(
        self, scenario: Scenario, event: Event | None, refusal: LedgerError | None = None
    ) -> None:
        """Keep what happened."""
        self.scenario, self.event, self.refusal = scenario, event, refusal

    def then(self, kind: type[Event], **fields: Any) -> Self:
        """Assert that the step made an event that says so; slices are given as pairs."""
        assert self.refusal is None, self.refusal
        assert isinstance(self.event, kind), self.event
        for field, value in fields.items():
            assert plain(getattr(self.event, field)) == value, (field, self.event)
        return self

    def nothing(self) -> Self:
        """Assert that there was nothing to do."""
        assert (self.event, self.refusal) == (None, None)
        return self

    def refused(self, kind: type[LedgerError], **facts: Any) -> Self:
        """Assert that the step was refused, with these facts."""
        assert type(self.refusal) is kind, (self.refusal, self.event)
        assert {name: self.refusal.facts[name] for name in facts} == facts
        return self

    def leaves(self, **buckets: int) -> Self:
        """Assert where credits are then, once all that is due has happened."""
        balance = self.settled().balance
        assert {name: getattr(balance, name) for name in buckets} == buckets
        return self

    def grant(self, name: str, **buckets: Any) -> Self:
        """Assert what has become of a grant then."""
        grant: Grant = self.settled().grants[name]
        assert {bucket: getattr(grant, bucket) for bucket in buckets} == buckets
        return self

    def when(self, step: Step) -> Result:
        """Go on with another step."""
        return self.scenario.when(step)

    def settled(self) -> Account:
        """Return the account with all that is due."""
        return settle(self.scenario.account, self.scenario.now)[1]

    @property
    def balance(self) -> Balance:
        """Where the credits are."""
        return self.settled().balance


def plain(value: Any) -> Any:
    """Return slices as pairs; anything else as it is."""
    if isinstance(value, tuple):
        return [plain(one) for one in value]
    if isinstance(value, Draw):
        return value.grant, value.amount
    if isinstance(value, Return):
        return value.grant, value.amount, value.to
    return value


def given(*steps: Step) -> Scenario:
    """Return an open account after these steps."""
    scenario = Scenario()
    scenario.do(PutAccount())
    for step in steps:
        scenario.do(step)
    return scenario


def grant(amount: int, name: str = "g", **terms: Any) -> GrantCredits:
    """Give credits: paid, unless it is said otherwise."""
    return GrantCredits(id=name, amount=amount, **{"kind": "paid", **terms})


def reserve(amount: int, name: str = "r", feature: str | None = None, **terms: Any) -> Reserve:
    """Set an amount aside."""
    return Reserve(id=name, charge=Charge(amount=amount, feature=feature), **terms)


def capture(amount: int, name: str = "r", **terms: Any) -> Capture:
    """Spend of a reservation."""
    return Capture(reservation=name, charge=Charge(amount=amount), **terms)


def deduct(amount: int, name: str = "d", feature: str | None = None, **terms: Any) -> Deduct:
    """Spend at once."""
    return Deduct(id=name, charge=Charge(amount=amount, feature=feature), **terms)


def extend(name: str = "r", **terms: Any) -> Extend:
    """Set more aside, or for longer."""
    return Extend(reservation=name, **terms)


def release(name: str = "r") -> Release:
    """Give back what is set aside."""
    return Release(reservation=name)


def refund(name: str = "d", amount: int | None = None) -> Refund:
    """Give spent credits back."""
    return Refund(deduction=name, amount=amount)


def overdraft(limit: int) -> PutAccount:
    """Allow an overdraft."""
    return PutAccount(overdraft_limit=limit)
