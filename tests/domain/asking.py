"""Asking a target and the model the same, and picking what to ask about."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from hypothesis.stateful import RuleBasedStateMachine, invariant

from ledger.domain import commands as c
from ledger.domain.errors import LedgerError
from ledger.domain.events import Event
from tests.domain.agreement import assert_drawn_in_order, assert_same, assert_says
from tests.domain.model import Answer, Model
from tests.domain.model_books import Job
from tests.domain.model_prices import Refused
from tests.domain.strategies import START
from tests.domain.targets import State, Target

ALIVE = {"open", "expired", "pending", "active", "frozen"}


class Asking(RuleBasedStateMachine):
    """A history in the making: a target, the model, and a clock that both are told."""

    def __init__(self) -> None:
        """Start with nothing but a clock."""
        super().__init__()
        self.target = self.new_target()
        self.model = Model()
        self.now = START
        self.seen: State | None = None
        self.keys = 0
        self.accepted: list[tuple[c.Command, str, Event]] = []
        self.refused: list[tuple[c.Command, str]] = []

    def new_target(self) -> Target:
        """Return a fresh account and catalog to play against."""
        raise NotImplementedError  # Abstract: each room plays against its own target.

    def teardown(self) -> None:
        """Let the target check the whole history once more."""
        self.target.close()

    @invariant()
    def the_target_agrees_with_the_model(self) -> None:
        """Compare everything that the target shows, once all that is due has been done."""
        self.seen = self.target.state(self.now)
        self.model.pass_to(self.now)
        assert_same(self.seen, self.model)

    def ask(self, command: c.Command, key: str | None = None) -> None:
        """Have the target and the model execute a command, and compare what they say."""
        if key is None:
            self.keys += 1
            key = f"key-{self.keys}"
        before = self.seen or self.target.state(self.now)
        expected: Answer | Refused
        try:
            expected = self.model.execute(command, key, self.now)
        except Refused as refusal:
            expected = refusal
        answer = self.target.execute(command, key, self.now)
        asked = (command, expected, answer)
        if isinstance(expected, Refused):
            assert isinstance(answer, LedgerError), asked
            assert answer.code == expected.code, asked
            for fact, value in expected.facts.items():
                assert answer.facts[fact] == value, asked
            self.refused.append((command, key))
            return
        assert not isinstance(answer, LedgerError), asked
        if isinstance(command, c.Settle):
            return  # What it records is what was due; it has no event of its own.
        assert (answer is None) == (not expected), asked
        if answer is not None:
            assert_says(answer, expected)
            assert_drawn_in_order(answer, before, self.model)
            self.accepted.append((command, key, answer))

    # -- what to ask about -------------------------------------------------------------------------

    def some(self, names: Iterable[str], pick: int, *, alive: Iterable[str] = ()) -> str:
        """Return a name, for 0 the latest that is alive, and later those that are not."""
        living = list(alive)
        others = [name for name in names if name not in living]
        candidates = [*reversed(living), *others[-2:], "missing"]
        return candidates[pick % len(candidates)]

    def some_operation(self, pick: int) -> str:
        """Return the name of an operation, most likely of one that is not closed."""
        jobs = self.model.jobs.values()
        alive = [job.id for job in jobs if job.status in ALIVE]
        return self.some(self.model.jobs, pick, alive=alive)

    def some_open(self, pick: int) -> Job | None:
        """Return a reservation that is open, if there is one."""
        jobs = [job for job in self.model.jobs.values() if job.status == "open"]
        return jobs[-1 - pick % len(jobs)] if jobs else None

    def some_grant(self, pick: int) -> str:
        """Return the name of a grant, most likely of one that has not ended."""
        lots = self.model.lots.values()
        alive = [lot.id for lot in lots if lot.status in ALIVE]
        return self.some(self.model.lots, pick, alive=alive)

    def some_deduction(self, pick: int) -> str:
        """Return the name of a deduction, most likely of one that is not refunded."""
        spent = [one for job in self.model.jobs.values() for one in job.spent]
        left = [one.id for one in spent if one.refunded < one.amount]
        return self.some((one.id for one in spent), pick, alive=left)

    def at(self, seconds: int | None) -> datetime | None:
        """Return the time so many seconds from now."""
        return None if seconds is None else self.now + timedelta(seconds=seconds)

    def name(self, kind: str, *, named: bool) -> str | None:
        """Return a new name, or none."""
        return f"{kind}-{self.keys}" if named else None
