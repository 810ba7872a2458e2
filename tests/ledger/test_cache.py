"""Snapshots and the cache: they change what a command costs, never what it means."""

from __future__ import annotations

import random
from datetime import datetime
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from ledger.cache import SNAPSHOT_FORMAT
from ledger.domain.commands import (
    Command,
    Deduct,
    Extend,
    GrantCredits,
    Refund,
    Release,
    Reserve,
    TenantCommand,
)
from ledger.domain.entities import Charge
from ledger.domain.errors import LedgerError
from ledger.domain.events import CreditsRefunded, Event
from ledger.records import View, stream_id
from ledger.writer import Writer
from tests.domain.machine import AnyHistory
from tests.domain.targets import State, Target
from tests.ledger.conftest import NewWriter
from tests.ledger.room import ANSWER_SECONDS, TENANT, Clock, ask, deduct, opened, order, put, until

SNAPSHOT = "SELECT version FROM scrip.snapshots WHERE originator_id = %(s)s"


def snapshot_version(owner: psycopg.Connection[Any], account: str) -> int:
    row = owner.execute(SNAPSHOT, {"s": stream_id(TENANT, account)}).fetchone()
    return row[0] if row else 0


def at_random(writer: Writer, clock: Clock, seed: int, steps: int) -> None:
    """Do this and that on account a; what is refused is refused."""
    dice = random.Random(seed)  # noqa: S311 - chance, not secrecy
    ask(writer, opened(credits_given=1_000))
    for i in range(steps):
        name = f"r{dice.randrange(steps)}"
        commands: list[Command] = [
            GrantCredits(amount=dice.randrange(1, 50), kind="paid", priority=dice.randrange(9)),
            Reserve(id=name, charge=Charge(amount=dice.randrange(30)), ttl_seconds=30),
            Deduct(id=f"d{i}", charge=Charge(amount=dice.randrange(20))),
            Release(reservation=name),
            Extend(reservation=name, amount=1, ttl_seconds=60),
            Refund(deduction=f"d{dice.randrange(steps)}"),
        ]
        ask(writer, [order(dice.choice(commands), f"k{i}")])
        clock.wait(dice.randrange(3))


@pytest.mark.parametrize("seed", range(4))
def test_a_snapshot_and_its_tail_are_the_same_as_all_events(
    seed: int, new_writer: NewWriter, clock: Clock, owner: psycopg.Connection[Any]
) -> None:
    writer = new_writer(snapshot_every=20)
    at_random(writer, clock, seed, 150)
    until(lambda: snapshot_version(owner, "a") >= 20)
    view = writer.view(TENANT, "a").result(10)
    with_snapshot = new_writer().view(TENANT, "a").result(10)
    owner.execute("DELETE FROM scrip.snapshots")
    without = new_writer().view(TENANT, "a").result(10)
    assert view == with_snapshot == without
    assert view.operations


@pytest.mark.parametrize(
    "spoil",
    [
        "UPDATE scrip.snapshots SET format = sha256('older'), state = '\\x00'",
        "UPDATE scrip.snapshots SET state = '\\xc1c1'",
        "UPDATE scrip.snapshots SET state = ''",
    ],
)
def test_a_snapshot_of_another_format_or_that_cannot_be_read_is_ignored(
    spoil: str, new_writer: NewWriter, owner: psycopg.Connection[Any]
) -> None:
    writer = new_writer(snapshot_every=2)
    ask(writer, [*opened(), deduct(1, "d")])
    until(lambda: snapshot_version(owner, "a"))
    owner.execute(spoil)
    assert new_writer().view(TENANT, "a").result(10) == writer.view(TENANT, "a").result(10)


def test_a_snapshot_of_this_format_takes_the_place_of_an_older_one(
    new_writer: NewWriter, owner: psycopg.Connection[Any]
) -> None:
    writer = new_writer(snapshot_every=2)
    ask(writer, opened())
    until(lambda: snapshot_version(owner, "a") == 2)
    owner.execute("UPDATE scrip.snapshots SET format = sha256('older'), version = 99")
    ask(writer, [deduct(1, "d"), deduct(1, "e")])
    until(lambda: snapshot_version(owner, "a") == 4)
    row = owner.execute("SELECT format FROM scrip.snapshots").fetchone()
    assert row == (SNAPSHOT_FORMAT,)


def test_a_hundred_accounts_are_right_in_a_cache_for_ten(new_writer: NewWriter) -> None:
    writer = new_writer(account_cache_max=10, snapshot_every=5, batch_max=30)
    names = [f"a{i}" for i in range(100)]
    ask(writer, [one for name in names for one in opened(name, 1_000)])
    dice = random.Random(1)  # noqa: S311 - chance, not secrecy
    spent = dict.fromkeys(names, 0)
    for round_ in range(10):
        chosen = [dice.choice(names) for _ in range(100)]
        ask(writer, [deduct(1, f"{round_}-{i}", name) for i, name in enumerate(chosen)])
        for name in chosen:
            spent[name] += 1
    assert writer.stats.cached_streams <= 10
    found = {name: writer.view(TENANT, name).result(10).balance.consumed for name in names}
    assert found == spent


def test_a_closed_operation_that_nobody_remembers_is_recalled(
    writer: Writer, new_writer: NewWriter
) -> None:
    ask(writer, opened(credits_given=1_000))
    ask(writer, [order(Deduct(id="d", charge=Charge(amount=5)), "d")])
    ask(writer, [deduct(1, f"k{i}") for i in range(100)])
    for i, one in enumerate((writer, new_writer())):
        event = put(one, order(Refund(deduction="d", amount=2), f"f{i}")).event
        assert isinstance(event, CreditsRefunded)
        assert event.refunded == 2 * (i + 1)
        again = order(Deduct(id="d", charge=Charge(amount=5)), f"again{i}")
        with pytest.raises(LedgerError, match="operation_exists"):
            one.submit(again).result(10)


# -- any history, over the real store --------------------------------------------------------------


class OverTheStore:
    """A target that asks two writers in turn, with small caches and frequent snapshots."""

    numbers = iter(range(1_000_000))

    def __init__(self, writers: tuple[Writer, ...], clock: Clock) -> None:
        self.writers = writers
        self.clock = clock
        self.tenant = f"tenant-{next(self.numbers)}"
        self.turn = 0

    def execute(self, command: Command, key: str, now: datetime) -> Event | LedgerError | None:
        self.turn += 1
        self.clock.now = now
        account = None if isinstance(command, TenantCommand) else "a"
        one = order(command, key, account, self.tenant)
        try:
            outcome = self._writer.submit(one).result(ANSWER_SECONDS)
        except LedgerError as refusal:
            return refusal
        return outcome.recorded.event if outcome.recorded else None

    def state(self, now: datetime) -> State:
        self.clock.now = now
        return self._view(self._writer)

    def close(self) -> None:
        views = {repr(self._view(writer)) for writer in self.writers}
        assert len(views) == 1, "two writers see two accounts"

    @property
    def _writer(self) -> Writer:
        return self.writers[self.turn % len(self.writers)]

    def _view(self, writer: Writer) -> View:
        return writer.view(self.tenant, "a").result(ANSWER_SECONDS)


@pytest.fixture
def pair(new_writer: NewWriter) -> tuple[Writer, ...]:
    return tuple(new_writer(snapshot_every=3, account_cache_max=2) for _ in range(2))


def test_any_history_over_the_store_is_as_the_model_says(
    pair: tuple[Writer, ...], clock: Clock
) -> None:
    class AnyHistoryOverTheStore(AnyHistory):
        def new_target(self) -> Target:
            return OverTheStore(pair, clock)

    run_state_machine_as_test(
        AnyHistoryOverTheStore,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert sum(writer.stats.conflicts for writer in pair) > 0
    assert sum(writer.stats.failures for writer in pair) == 0
