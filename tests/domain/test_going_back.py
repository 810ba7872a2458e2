"""Forks share nothing that changes, and what is rolled back was never so: with any commands."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.domain import commands as c
from ledger.domain.account import Account
from ledger.domain.decide import decide
from ledger.domain.errors import LedgerError
from ledger.domain.events import AccountEvent
from ledger.domain.evolve import evolve
from tests.domain.strategies import (
    BY_AMOUNT,
    KIND,
    OR_DEFAULT,
    OVERAGE,
    SCOPE,
    SECONDS,
    SMALL,
    START,
    YES,
)
from tests.domain.targets import check_books, fingerprint

NAME = st.sampled_from(("a", "b", "c", "d"))
DEDUCTION = NAME | NAME.map("{}~1".format)
SOON = st.sampled_from((None, 1, 3, 9)).map(
    lambda seconds: None if seconds is None else START + timedelta(seconds=seconds)
)
COMMAND = st.one_of(
    st.builds(
        c.GrantCredits,
        id=NAME,
        amount=st.integers(1, 30),
        kind=KIND,
        scope=SCOPE,
        effective_at=SOON,
        expires_at=SOON,
    ),
    st.builds(c.GrantCredits, amount=st.integers(1, 30), kind=KIND, scope=SCOPE, expires_at=SOON),
    st.builds(c.RevokeGrant, grant=NAME, clawback=YES),
    st.builds(c.Reserve, id=NAME, charge=BY_AMOUNT, ttl_seconds=SECONDS),
    st.builds(c.Capture, reservation=NAME, charge=BY_AMOUNT, final=YES, overage=OR_DEFAULT),
    st.builds(c.CaptureUpTo, operation=NAME, charge=BY_AMOUNT, final=YES, ttl_seconds=SECONDS),
    st.builds(c.Release, reservation=NAME),
    st.builds(c.Extend, reservation=NAME, amount=SMALL, ttl_seconds=st.none() | SECONDS),
    st.builds(c.Deduct, id=NAME, charge=BY_AMOUNT, overage=OR_DEFAULT),
    st.builds(c.Refund, deduction=DEDUCTION, amount=st.none() | SMALL),
    st.builds(c.Adjust, amount=st.integers(-9, 9), overage=OVERAGE, expires_at=SOON),
    st.builds(c.PutAccount, overdraft_limit=SMALL, label=st.none() | st.just("label")),
    st.builds(c.Settle),
)
STEPS = st.lists(st.tuples(COMMAND, st.sampled_from((0, 0, 0, 1, 4))), max_size=12)
Steps = list[tuple[c.AccountCommand, int]]


class Life:
    """An account, its clock, and all events that it has seen."""

    def __init__(self, account: Account, events: Iterable[AccountEvent], seconds: int) -> None:
        self.account, self.events, self.seconds = account, list(events), seconds

    def live(self, steps: Steps) -> None:
        """Take some steps; what is refused is refused."""
        for command, wait in steps:
            self.seconds += wait
            now = START + timedelta(seconds=self.seconds)
            before = fingerprint(self.account)
            try:
                events = decide(self.account, command, now, key=f"key-{len(self.events)}")
            except LedgerError:
                events = ()
            assert fingerprint(self.account) == before, "deciding changed the account"
            for event in events:
                evolve(self.account, event)
                check_books(self.account)
            self.events += events

    def forked(self) -> Life:
        """Return another life that begins as this one is now."""
        return Life(self.account.fork(), self.events, self.seconds)

    def assert_is_what_its_events_make(self) -> None:
        """Compare the account with one that has seen these events and nothing else."""
        assert fingerprint(self.account) == fingerprint(folded(self.events))


def folded(events: Iterable[AccountEvent]) -> Account:
    account = Account()
    for event in events:
        evolve(account, event)
    return account


def begun(steps: Steps) -> Life:
    life = Life(Account(), (), 0)
    life.live([(c.PutAccount(), 0), (c.GrantCredits(amount=20, kind="paid"), 0), *steps])
    return life


@settings(max_examples=500)
@given(before=STEPS, here=STEPS, there=STEPS)
def test_whatever_happens_to_a_fork_or_to_its_original_does_not_happen_to_the_other(
    before: Steps, here: Steps, there: Steps
) -> None:
    original = begun(before)
    fork = original.forked()
    for step in range(max(len(here), len(there))):
        original.live(here[step : step + 1])
        fork.live(there[step : step + 1])
    original.assert_is_what_its_events_make()
    fork.assert_is_what_its_events_make()


@settings(max_examples=500)
@given(before=STEPS, taken_back=STEPS, after=STEPS)
def test_what_is_rolled_back_was_never_so(before: Steps, taken_back: Steps, after: Steps) -> None:
    life = begun(before)
    never = life.forked()
    life.account.begin()
    Life(life.account, life.events, life.seconds).live(taken_back)
    life.account.roll_back()
    life.assert_is_what_its_events_make()
    life.live(after)
    never.live(after)
    assert life.events == never.events
    assert fingerprint(life.account) == fingerprint(never.account)


@settings(max_examples=200)
@given(before=STEPS, accepted=STEPS, taken_back=STEPS)
def test_what_is_accepted_stays_so(before: Steps, accepted: Steps, taken_back: Steps) -> None:
    life = begun(before)
    life.account.begin()
    life.live(accepted)
    life.account.begin()
    Life(life.account, life.events, life.seconds).live(taken_back)
    life.account.roll_back()
    life.account.accept()
    life.assert_is_what_its_events_make()
    life.account.trim()
    assert life.account.snapshot() == folded(life.events).snapshot()
