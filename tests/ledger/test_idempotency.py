"""A key is answered once and for ever: the event is the receipt."""

from __future__ import annotations

import pytest

from ledger.domain.commands import (
    Adjust,
    Capture,
    CaptureUpTo,
    Command,
    Deduct,
    Extend,
    GrantCredits,
    PutAccount,
    RaiseAlert,
    Refund,
    Release,
    Reserve,
    RevokeGrant,
    SetFeature,
    SetRefundPolicy,
)
from ledger.domain.entities import Charge
from ledger.domain.errors import IdempotencyMismatch, InsufficientCredits
from ledger.domain.events import CreditsDeducted, ReservationCaptured
from ledger.domain.values import MICRO
from ledger.records import Order, Outcome, stream_id
from ledger.store import Store
from ledger.writer import Writer
from tests.ledger.conftest import NewWriter
from tests.ledger.room import TENANT, Clock, accepted, ask, deduct, opened, order, put, reserve

TEN = Charge(amount=10)
STORY: list[tuple[Command, str | None]] = [
    (SetFeature(feature="image", name="Image", unit_price=3), None),
    (SetRefundPolicy(regrant_days=30), None),
    (RaiseAlert(code="unknown_price", subject="stripe:session:cs_1", price="price_9"), None),
    (PutAccount(label="Ada", metadata={"plan": "pro"}), "a"),
    (GrantCredits(id="g", amount=10_000, kind="paid", scope=("image",)), "a"),
    (GrantCredits(amount=10_000, kind="promotional", metadata={"why": "welcome"}), "a"),
    (Reserve(id="r", charge=Charge(feature="image", quantity=2_000_000), job="j"), "a"),
    (Extend(reservation="r", amount=5, ttl_seconds=900), "a"),
    (Capture(reservation="r", charge=Charge(quantity=1_000_000), final=False), "a"),
    (Capture(reservation="r", charge=Charge(amount=2)), "a"),
    (Reserve(charge=TEN, actor="u"), "a"),
    (Reserve(id="s", charge=TEN), "a"),
    (Release(reservation="s"), "a"),
    (CaptureUpTo(operation="t", charge=TEN, final=True), "a"),
    (Deduct(id="d", charge=TEN), "a"),
    (Refund(deduction="d", amount=4), "a"),
    (Adjust(amount=-7), "a"),
    (Adjust(amount=7, metadata={"by": "hand"}), "a"),
    (RevokeGrant(grant="g"), "a"),
]


def story() -> list[Order]:
    return [order(command, f"k{i}", account) for i, (command, account) in enumerate(STORY)]


def test_every_command_repeated_is_answered_with_its_first_answer(writer: Writer) -> None:
    first = [put(writer, one) for one in story()]
    again = [writer.submit(one).result(10) for one in story()]
    assert again == [Outcome(recorded, replayed=True) for recorded in first]


def test_a_repetition_is_told_by_a_writer_that_has_just_started(
    writer: Writer, new_writer: NewWriter
) -> None:
    first = [put(writer, one) for one in story()]
    assert ask(new_writer(), story()) == [Outcome(one, replayed=True) for one in first]


def test_a_repetition_is_told_by_another_writer_that_holds_the_account_as_it_was(
    writer: Writer, new_writer: NewWriter
) -> None:
    other = new_writer()
    ask(writer, opened())
    other.view(TENANT, "a").result(10)
    first = put(writer, deduct(1, "d"))
    assert other.submit(deduct(1, "d")).result(10) == Outcome(first, replayed=True)
    assert other.view(TENANT, "a").result(10).balance.consumed == 1


def test_a_key_asked_for_twice_in_one_batch_has_one_effect(writer: Writer, store: Store) -> None:
    answers = ask(writer, [*opened(), deduct(1, "d"), deduct(1, "d"), deduct(2, "d")])
    assert [isinstance(answer, Outcome) and answer.replayed for answer in answers[2:4]] == [0, 1]
    assert isinstance(answers[4], IdempotencyMismatch)
    assert len(store.events_of(stream_id(TENANT, "a"))) == 3


def test_the_same_key_with_other_content_is_refused(writer: Writer) -> None:
    ask(writer, [*opened(), deduct(1, "d")])
    with pytest.raises(IdempotencyMismatch):
        writer.submit(deduct(2, "d")).result(10)
    with pytest.raises(IdempotencyMismatch):
        writer.submit(order(Adjust(amount=1), "grant")).result(10)


def test_a_price_that_was_not_put_again_prices_nothing(writer: Writer) -> None:
    """Asked for with a used key, it priced what came behind it in the batch."""
    ask(writer, [*opened(), order(SetFeature(feature="f", name="F", unit_price=1), "p", None)])
    charge = Charge(feature="f", quantity=MICRO)
    dearer = order(SetFeature(feature="f", name="F", unit_price=7), "p", None)
    refused, spent = ask(writer, [dearer, order(Deduct(charge=charge), "d")])
    assert isinstance(refused, IdempotencyMismatch)
    (recorded,) = accepted([spent])
    assert isinstance(recorded.event, CreditsDeducted)
    assert (recorded.event.amount, recorded.event.price.version) == (1, 1)  # type: ignore[union-attr]


def test_the_same_key_on_another_account_or_tenant_is_another_key(writer: Writer) -> None:
    elsewhere = [order(PutAccount(), "open", "a", tenant="other"), *opened("b")]
    answers = ask(writer, [*opened(), *elsewhere])
    assert all(isinstance(one, Outcome) and not one.replayed for one in answers)


def test_a_refusal_stores_nothing_and_its_key_may_succeed_later(
    writer: Writer, store: Store
) -> None:
    ask(writer, opened(credits_given=10))
    before = store.max_position()
    with pytest.raises(InsufficientCredits):
        writer.submit(deduct(11, "d")).result(10)
    assert store.max_position() == before
    put(writer, order(GrantCredits(amount=1, kind="paid"), "more"))
    assert not writer.submit(deduct(11, "d")).result(10).replayed


def test_a_capture_is_told_again_long_after_its_reservation_is_over(
    writer: Writer, new_writer: NewWriter, clock: Clock
) -> None:
    ask(writer, opened())
    name = "r"
    reservation = order(Reserve(id=name, charge=TEN, ttl_seconds=60), "r")
    capture = order(Capture(reservation=name, charge=Charge(amount=4), final=False), "c")
    put(writer, reservation)
    first = put(writer, capture)
    clock.wait(365 * 24 * 3600)
    for one in (writer, new_writer()):
        assert one.submit(capture).result(10) == Outcome(first, replayed=True)
    assert isinstance(first.event, ReservationCaptured)


def test_a_total_that_was_reported_before_is_found_by_its_key(
    writer: Writer, new_writer: NewWriter
) -> None:
    """A command that has nothing to do may be a repetition: an answer of None was wrong."""
    ask(writer, opened())
    report = order(CaptureUpTo(operation="job", charge=Charge(amount=4)), "m1")
    first = put(writer, report)
    for one in (writer, new_writer()):
        assert one.submit(report).result(10) == Outcome(first, replayed=True)
        other = order(CaptureUpTo(operation="job", charge=Charge(amount=3)), "m1")
        with pytest.raises(IdempotencyMismatch):
            one.submit(other).result(10)


def test_what_is_merely_due_does_not_take_the_key_of_a_command_with_nothing_to_do(
    writer: Writer, clock: Clock, store: Store
) -> None:
    ask(writer, [*opened(), reserve(1, "r", ttl_seconds=60)])
    put(writer, order(CaptureUpTo(operation="job", charge=Charge(amount=4)), "m1"))
    clock.wait(100)
    nothing = order(CaptureUpTo(operation="job", charge=Charge(amount=3)), "m2")
    assert writer.submit(nothing).result(10) == Outcome(None)
    last = store.events_of(stream_id(TENANT, "a"))[-1]
    assert (last.name, last.key) == ("reservation.expired.v1", None)


def test_retries_do_not_keep_new_commands_from_being_written(
    writer: Writer, new_writer: NewWriter
) -> None:
    """A used key once held back every command of its account, batch after batch."""
    ask(writer, [*opened(credits_given=10_000), *(deduct(1, f"d{i}") for i in range(40))])
    other = new_writer(batch_max=8)
    mixed = [deduct(1, f"d{i // 2}" if i % 2 else f"n{i}") for i in range(80)]
    answers = ask(other, mixed)
    assert all(isinstance(answer, Outcome) for answer in answers), answers
    assert other.view(TENANT, "a").result(10).balance.consumed == 80
