"""Any history of commands, played against a target and the model at once.

`AnyHistory` names no target: a test says which by overriding `new_target`. Subclass it to play the
same histories against the rules in memory, or against a real store and writer.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ledger.domain import commands as c
from ledger.domain.entities import Charge, Draw, Grant, Rates, Usage
from ledger.domain.errors import IdempotencyMismatch, LedgerError
from ledger.domain.events import (
    BalanceAdjusted,
    CreditsDeducted,
    CreditsReserved,
    Event,
    ReservationCaptured,
    ReservationExtended,
)
from tests.domain.model import Answer, Model
from tests.domain.model_books import merged
from tests.domain.model_prices import Refused
from tests.domain.targets import State, Target

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
PICK = st.integers(0, 7)
AMOUNT = st.integers(0, 40)
SECONDS = st.sampled_from((1, 5, 20))
FEATURE = st.sampled_from((None, "image", "text"))
SCOPE = st.sampled_from(((), (), ("image",), ("text",), ("image", "text")))
OVERAGE = st.sampled_from(("reject", "draw", "debt"))
NAMED = st.booleans()
QUANTITY = st.integers(0, 9_000_000)
TOKENS = st.integers(0, 3_000_000)
MODEL = st.sampled_from((None, "small", "small", "large"))
PRICE = st.sampled_from((0, 1, 2, 3, 7, None))
OFFSET = st.sampled_from((None, None, -5, 0, 1, 10))
LIFE = st.sampled_from((None, None, 1, 5, 11, 60))
BY_AMOUNT = st.builds(Charge, amount=AMOUNT, feature=FEATURE)
BY_QUANTITY = st.builds(Charge, quantity=QUANTITY, feature=FEATURE)
USAGE = st.builds(Usage, TOKENS, TOKENS, TOKENS)
BY_USAGE = st.builds(Charge, usage=USAGE, feature=FEATURE, model=MODEL)
CHARGE = st.one_of(BY_AMOUNT, BY_AMOUNT, BY_QUANTITY, BY_USAGE)
RATES = st.builds(Rates, AMOUNT, AMOUNT, AMOUNT, st.sampled_from((0, 0, 5)))
MISSING = "missing"
GRANT_FIELDS = ("available", "reserved", "consumed", "expired", "revoked")


class AnyHistory(RuleBasedStateMachine):
    """Whatever is asked, in whatever order, no credit is made or lost."""

    def __init__(self) -> None:
        """Start with nothing but a clock."""
        super().__init__()
        self.target = self.new_target()
        self.model = Model()
        self.now = START
        self.seen: State | None = None
        self.keys = 0
        self.grants: list[str] = []
        self.operations: list[str] = []
        self.deductions: list[str] = []
        self.accepted: list[tuple[c.Command, str, Event]] = []
        self.refused: list[tuple[c.Command, str]] = []

    def new_target(self) -> Target:
        """Return a fresh account and catalog to play against."""
        raise NotImplementedError

    def teardown(self) -> None:
        """Let the target check the whole history once more."""
        self.target.close()

    # -- asking both ---------------------------------------------------------------------------------

    def ask(self, command: c.Command, key: str | None = None) -> None:
        """Have the target and the model execute a command, and compare what they say."""
        if key is None:
            self.keys += 1
            key = f"key-{self.keys}"
        expected: Answer | Refused
        try:
            expected = self.model.execute(command, key, self.now)
        except Refused as refusal:
            expected = refusal
        answer = self.target.execute(command, key, self.now)
        if isinstance(expected, Refused):
            assert isinstance(answer, LedgerError), (command, expected, answer)
            assert answer.code == expected.code, (command, expected, answer)
            for fact, value in expected.facts.items():
                assert answer.facts[fact] == value, (command, fact, expected, answer)
            self.refused.append((command, key))
            return
        assert not isinstance(answer, LedgerError), (command, expected, answer)
        if isinstance(command, c.Settle):
            return
        assert (answer is None) == (not expected), (command, expected, answer)
        if answer is not None:
            assert_says(answer, expected)
            self.assert_drawn_in_order(answer)
            self.remember(answer)
            self.accepted.append((command, key, answer))

    def remember(self, event: Event) -> None:
        """Keep the names of what came to be, so that later commands can be about it."""
        for names, field in (
            (self.grants, "grant"),
            (self.operations, "reservation"),
            (self.operations, "deduction"),
            (self.deductions, "deduction"),
        ):
            name = getattr(event, field, None)
            if isinstance(name, str) and name not in names:
                names.append(name)
        for regrant in getattr(event, "regrants", ()):
            self.grants.append(regrant.grant)

    def some(self, names: Sequence[str], pick: int) -> str:
        """Return one of the latest names."""
        return names[-1 - pick % len(names)] if names else MISSING

    def at(self, seconds: int | None) -> datetime | None:
        """Return the time so many seconds from now."""
        return None if seconds is None else self.now + timedelta(seconds=seconds)

    def name(self, kind: str, *, named: bool) -> str | None:
        """Return a new name, or none."""
        return f"{kind}-{self.keys}" if named else None

    # -- commands ------------------------------------------------------------------------------------

    @initialize(overdraft=st.sampled_from((0, 0, 0, 15, None)))
    def account(self, overdraft: int | None) -> None:
        """Begin, as a rule, with an account."""
        if overdraft is not None:
            self.ask(c.PutAccount(overdraft_limit=overdraft))

    @rule(overdraft=st.sampled_from((0, 5, 30)))
    def put_account(self, overdraft: int) -> None:
        """Open the account, or change its overdraft."""
        self.ask(c.PutAccount(overdraft_limit=overdraft, metadata={"plan": "free"}))

    @rule(
        amount=st.integers(0, 60),
        paid=st.booleans(),
        priority=st.sampled_from((100, 100, 50)),
        scope=SCOPE,
        offset=OFFSET,
        life=LIFE,
        cost=st.sampled_from((None, 1, 2)),
        named=NAMED,
    )
    def grant(  # noqa: PLR0913 - one for each property that the order knows
        self,
        amount: int,
        paid: bool,  # noqa: FBT001 - drawn by hypothesis
        priority: int,
        scope: tuple[str, ...],
        offset: int | None,
        life: int | None,
        cost: int | None,
        named: bool,  # noqa: FBT001 - drawn by hypothesis
    ) -> None:
        """Give credits."""
        self.ask(
            c.GrantCredits(
                id=self.name("grant", named=named),
                amount=amount,
                kind="paid" if paid else "promotional",
                priority=priority,
                scope=scope,
                effective_at=self.at(offset),
                expires_at=self.at(life),
                cost_basis=cost,
            )
        )

    @rule(amount=st.integers(1, 60), life=LIFE)
    def plain_grant(self, amount: int, life: int | None) -> None:
        """Give credits without any ado, so that there is something to spend."""
        self.ask(c.GrantCredits(amount=amount, kind="paid", expires_at=self.at(life)))

    @rule(pick=PICK, clawback=st.booleans())
    def revoke(self, pick: int, clawback: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
        """Take a grant back."""
        self.ask(c.RevokeGrant(grant=self.some(self.grants, pick), clawback=clawback))

    @rule(charge=CHARGE, at_least=st.sampled_from((None, None, 0, 5)), ttl=SECONDS, named=NAMED)
    def reserve(self, charge: Charge, at_least: int | None, ttl: int, named: bool) -> None:  # noqa: FBT001 - drawn
        """Set credits aside."""
        name = self.name("job", named=named)
        self.ask(c.Reserve(id=name, charge=charge, at_least=at_least, ttl_seconds=ttl, job="j"))

    @rule(pick=PICK, charge=CHARGE, final=st.booleans(), overage=OVERAGE)
    def capture(self, pick: int, charge: Charge, final: bool, overage: Any) -> None:  # noqa: ANN401, FBT001 - drawn
        """Spend of a reservation, in time or late."""
        name = self.some(self.operations, pick)
        self.ask(c.Capture(reservation=name, charge=charge, final=final, overage=overage))

    @rule(pick=PICK, new=NAMED, charge=st.one_of(st.none(), CHARGE), final=NAMED, ttl=SECONDS)
    def capture_up_to(
        self,
        pick: int,
        new: bool,  # noqa: FBT001 - drawn by hypothesis
        charge: Charge | None,
        final: bool,  # noqa: FBT001 - drawn by hypothesis
        ttl: int,
    ) -> None:
        """Report a total, as messages do."""
        name = f"run-{self.keys}" if new else self.some(self.operations, pick)
        self.ask(c.CaptureUpTo(operation=name, charge=charge, final=final, ttl_seconds=ttl))

    @rule(pick=PICK)
    def release(self, pick: int) -> None:
        """Give back what is set aside."""
        self.ask(c.Release(reservation=self.some(self.operations, pick)))

    @rule(
        pick=PICK,
        amount=st.one_of(st.none(), AMOUNT),
        ttl=st.one_of(st.none(), SECONDS),
    )
    def extend(self, pick: int, amount: int | None, ttl: int | None) -> None:
        """Set more aside, or for longer."""
        name = self.some(self.operations, pick)
        self.ask(c.Extend(reservation=name, amount=amount, ttl_seconds=ttl))

    @rule(charge=CHARGE, at_least=st.sampled_from((None, None, 0, 5)), overage=OVERAGE, named=NAMED)
    def deduct(self, charge: Charge, at_least: int | None, overage: Any, named: bool) -> None:  # noqa: ANN401, FBT001 - drawn
        """Spend at once."""
        name = self.name("job", named=named)
        self.ask(c.Deduct(id=name, charge=charge, at_least=at_least, overage=overage))

    @rule(pick=PICK, amount=st.one_of(st.none(), AMOUNT))
    def refund(self, pick: int, amount: int | None) -> None:
        """Give spent credits back."""
        self.ask(c.Refund(deduction=self.some(self.deductions, pick), amount=amount))

    @rule(amount=st.integers(-30, 30), life=LIFE, overage=OVERAGE)
    def adjust(self, amount: int, life: int | None, overage: Any) -> None:  # noqa: ANN401 - drawn
        """Correct the balance."""
        self.ask(c.Adjust(amount=amount, expires_at=self.at(life), overage=overage))

    @rule()
    def settle(self) -> None:
        """Record what time has done."""
        self.ask(c.Settle())

    @rule(seconds=st.sampled_from((1, 1, 4, 5, 10, 86_400)))
    def wait(self, seconds: int) -> None:
        """Let time pass, whether or not anything is due."""
        self.now += timedelta(seconds=seconds)

    @rule(feature=st.sampled_from(("image", "text")), price=PRICE)
    def set_feature(self, feature: str, price: int | None) -> None:
        """Put a price for one unit."""
        self.ask(c.SetFeature(feature=feature, name=feature, unit_price=price))

    @rule(feature=st.sampled_from(("image", "text")), small=RATES, large=st.none() | RATES)
    def set_rate_card(self, feature: str, small: Rates, large: Rates | None) -> None:
        """Put token rates."""
        models = {"small": small} if large is None else {"small": small, "large": large}
        self.ask(c.SetRateCard(feature=feature, models=models))

    @rule(days=st.sampled_from((None, 1, 30)))
    def set_refund_policy(self, days: int | None) -> None:
        """Say what becomes of refunds to expired grants."""
        self.ask(c.SetRefundPolicy(regrant_days=days))

    # -- retries -------------------------------------------------------------------------------------

    @rule(pick=PICK)
    def retry(self, pick: int) -> None:
        """Ask again what has been done: the first answer comes back, and nothing happens."""
        if self.accepted:
            command, key, event = self.accepted[-1 - pick % len(self.accepted)]
            assert self.target.execute(command, key, self.now) == event

    @rule(pick=PICK)
    def reuse_a_key(self, pick: int) -> None:
        """Ask something else under a key that has been used."""
        if self.accepted:
            command, key, _ = self.accepted[-1 - pick % len(self.accepted)]
            other: c.Command = c.Adjust(amount=999, metadata={"other": "content"})
            if isinstance(command, c.CatalogCommand):
                other = c.SetFeature(feature="image", name="other content")
            assert isinstance(self.target.execute(other, key, self.now), IdempotencyMismatch)

    @rule(pick=PICK)
    def retry_a_refusal(self, pick: int) -> None:
        """Ask again what was refused, under the same key: it may succeed by now."""
        if self.refused:
            self.ask(*self.refused[-1 - pick % len(self.refused)])

    # -- what must hold ------------------------------------------------------------------------------

    @invariant()
    def the_target_agrees_with_the_model(self) -> None:
        """Compare everything that the target shows, once all that is due has been done."""
        state = self.seen = self.target.state(self.now)
        self.model.pass_to(self.now)
        assert state.opened == self.model.opened
        assert state.balance.holds()
        balance = self.model.balance()
        shown = {name: getattr(state.balance, name) for name in balance}
        assert shown == balance
        assert {grant.id: shape(grant) for grant in state.grants} == {
            lot.id: (
                lot.amount,
                lot.status,
                *(self.model.place(name, lot.id) for name in GRANT_FIELDS),
            )
            for lot in self.model.lots.values()
        }
        assert {
            one.id: (one.amount, one.captured, one.overdraft, one.expires_at, pairs(one.pinned))
            for one in state.operations
        } == self.model.open_jobs()

    def assert_drawn_in_order(self, event: Event) -> None:
        """Assert that what was drawn is a prefix of those who could pay, each drained but the last."""
        draws: tuple[Draw, ...] = ()
        feature: str | None = None
        match event:
            case CreditsReserved() | CreditsDeducted():
                draws, feature = event.draws, event.feature
            case BalanceAdjusted():
                draws = event.draws
            case ReservationExtended():
                draws, feature = event.draws, self.model.jobs[event.reservation].feature
            case ReservationCaptured():
                draws, feature = event.extra, self.model.jobs[event.reservation].feature
        assert self.seen is not None or not draws
        payers = [grant for grant in self.seen.grants if grant.available] if self.seen else []
        if not isinstance(event, BalanceAdjusted):
            payers = [grant for grant in payers if not grant.scope or feature in grant.scope]
        payers.sort(key=documented_order)
        assert [draw.grant for draw in draws] == [grant.id for grant in payers[: len(draws)]]
        for draw, grant in zip(draws[:-1], payers, strict=False):
            assert draw.amount == grant.available


def documented_order(grant: Grant) -> tuple[object, ...]:
    """Place a grant as docs/decisions/0004-burn-down-order.md says."""
    return (
        grant.priority,
        not grant.scope,
        len(grant.scope),
        grant.expires_at is None,
        grant.expires_at or START,
        grant.kind != "promotional",
        grant.cost_basis or 0,
        grant.effective_at,
        grant.sequence,
    )


def shape(grant: Grant) -> tuple[object, ...]:
    """Return where a grant's credits are."""
    return (grant.amount, grant.status, *(getattr(grant, name) for name in GRANT_FIELDS))


def pairs(slices: Sequence[Any]) -> list[tuple[str, int]]:
    """Return draws or returns as pairs, neighbours of the same grant as one."""
    return merged([(one.grant, one.amount) for one in slices])


def assert_says(event: Event, expected: Answer) -> None:
    """Assert that an event says what the model expects of it."""
    for field, value in expected.items():
        assert said(event, field) == value, (field, value, event)


def said(event: Any, field: str) -> object:  # noqa: ANN401 - any event, by the name of a field
    """Return what an event says, in the model's shape."""
    if field == "returned":
        return sum(one.amount for one in event.returns) + event.overdraft_returned
    if field == "regranted":
        return [(regrant.instead_of, regrant.amount) for regrant in event.regrants]
    value = getattr(event, field)
    if field in {"draws", "extra", "returns", "pinned"}:
        return pairs(value)
    if field == "price" and value is not None:
        return value.feature, value.version, value.model, value.amount
    return value
