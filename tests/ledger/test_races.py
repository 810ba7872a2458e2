"""Several writers, in several processes, on the same accounts: correct, and no one is held up."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import psycopg

from ledger.domain.commands import (
    Capture,
    CaptureUpTo,
    Deduct,
    PutAccount,
    Reserve,
    SetFeature,
)
from ledger.domain.entities import Charge
from ledger.domain.errors import InsufficientCredits
from ledger.records import Order, Outcome, Recorded, stream_id
from ledger.store import Store
from ledger.writer import Writer
from scrip.embedded import DatabaseUrls
from tests.ledger import processes
from tests.ledger.conftest import NewWriter
from tests.ledger.room import (
    TENANT,
    accepted,
    ask,
    deduct,
    opened,
    order,
    put,
    reserve,
)

GAPS = """
SELECT originator_id FROM scrip.ledger_events
GROUP BY originator_id
HAVING count(*) <> max(originator_version) OR min(originator_version) <> 1
"""


def test_200_reservations_of_1_against_10_over_two_processes_are_accepted_10_times(
    writer: Writer, database: DatabaseUrls
) -> None:
    ask(writer, opened(credits_given=10))
    start_at = time.time() + 1.5
    said = processes.run(
        processes.reserve_one_by_one,
        [(database.app_url, process, 100, start_at) for process in range(2)],
    )
    total = Counter[str]()
    for one in said:
        total.update(one)
    assert total == {"accepted": 10, "insufficient_credits": 190, "failures": 0}
    balance = writer.view(TENANT, "a").result(10).balance
    assert (balance.available, balance.reserved) == (0, 10)


def test_two_processes_on_one_hot_account_lose_nothing_and_refuse_nothing(
    writer: Writer, database: DatabaseUrls, owner: psycopg.Connection[Any]
) -> None:
    ask(writer, opened("a0", 100_000))
    said = processes.run(
        processes.deduct_at_random, [(database.app_url, process, 1, 1_500, 50) for process in "ab"]
    )
    assert said == [{"accepted": 1_500, "failures": 0}] * 2
    assert writer.view(TENANT, "a0").result(10).balance.consumed == 3_000
    assert owner.execute(GAPS).fetchall() == []


def test_two_processes_on_a_hundred_shared_accounts_lose_nothing_and_refuse_nothing(
    writer: Writer, database: DatabaseUrls, owner: psycopg.Connection[Any]
) -> None:
    ask(writer, [one for i in range(100) for one in opened(f"a{i}", 100_000)])
    said = processes.run(
        processes.deduct_at_random,
        [(database.app_url, process, 100, 2_000, 200) for process in "ab"],
    )
    assert said == [{"accepted": 2_000, "failures": 0}] * 2
    consumed = [writer.view(TENANT, f"a{i}").result(10).balance.consumed for i in range(100)]
    assert sum(consumed) == 4_000
    assert owner.execute(GAPS).fetchall() == []


def test_who_follows_the_positions_misses_no_event_of_slow_writers(
    database: DatabaseUrls, writer: Writer, store: Store
) -> None:
    """Positions become visible in their order, whatever commits when, whatever is rolled back."""
    ask(writer, opened("a0", 1_000_000))
    seen: list[Recorded] = store.events_after(0, 100)
    done = threading.Event()

    def follow() -> None:
        while True:
            last_round = done.is_set()
            found = store.events_after(seen[-1].position, 100)
            seen.extend(found)
            if last_round and not found:
                return
            time.sleep(0.001)

    follower = threading.Thread(target=follow)
    follower.start()
    stop = threading.Event()
    quick: list[Recorded] = []

    def write_quickly() -> None:
        number = 0
        while not stop.is_set():
            orders = [deduct(1, f"{number}-{i}", "a0") for i in range(20)]
            quick.extend(accepted(ask(writer, orders)))
            number += 1

    beside = threading.Thread(target=write_quickly)
    beside.start()
    slow = processes.run(processes.append_slowly, [(database.app_url, 60, n) for n in (1, 5, 20)])
    stop.set()
    beside.join()
    done.set()
    follower.join()
    positions = [recorded.position for recorded in seen]
    assert positions == sorted(set(positions))
    written = {position for one in slow for position in one}
    assert written | {recorded.position for recorded in quick} | {1, 2} == set(positions)
    assert len(written) == 48 * 26
    assert len(quick) > 100


def test_a_batch_of_a_stale_writer_is_decided_again_only_where_it_was_stale(
    writer: Writer, new_writer: NewWriter
) -> None:
    ask(writer, [*opened("a"), *opened("b")])
    other = new_writer()
    ask(other, [reserve(1, "x", "a"), reserve(1, "x", "b")])
    put(writer, reserve(8, "y", "a"))
    answers = ask(other, [reserve(2, "z", "a"), reserve(2, "z", "b"), reserve(7, "w", "b")])
    assert isinstance(answers[0], InsufficientCredits)
    assert answers[0].facts["available"] == 1
    assert all(isinstance(answer, Outcome) for answer in answers[1:])
    assert other.stats.conflicts == 1


def test_a_refusal_is_never_said_from_a_stale_balance(
    writer: Writer, new_writer: NewWriter
) -> None:
    other = new_writer()
    ask(other, opened(credits_given=1))
    ask(writer, [order(one.command, f"more-{one.key}") for one in opened(credits_given=100)])
    assert isinstance(ask(other, [reserve(50, "r")])[0], Outcome)


def test_a_refusal_is_never_said_from_a_stale_catalog(
    writer: Writer, new_writer: NewWriter
) -> None:
    """Events decided on stale prices were decided again, but refusals were not."""
    other = new_writer()
    priced = Charge(feature="image", quantity=1_000_000)
    dear = order(SetFeature(feature="image", name="Image", unit_price=1_000), "f1", None)
    ask(other, [*opened(credits_given=10), dear])
    assert isinstance(ask(other, [order(Deduct(charge=priced), "d")])[0], InsufficientCredits)
    put(writer, order(SetFeature(feature="image", name="Image", unit_price=2), "f2", None))
    outcome = other.submit(order(Deduct(charge=priced), "d")).result(10)
    assert outcome.recorded is not None
    assert outcome.recorded.balance is not None
    assert outcome.recorded.balance.consumed == 2


def test_fifty_first_calls_for_a_new_account_over_two_writers_open_it_once(
    writer: Writer, new_writer: NewWriter, store: Store
) -> None:
    writers = (writer, new_writer())
    futures = [
        writers[i % 2].submit(order(PutAccount(label=str(i)), f"k{i}", "new")) for i in range(50)
    ]
    assert all(future.result(20).recorded for future in futures)
    events = store.events_of(stream_id(TENANT, "new"))
    assert [event.name for event in events].count("account.opened.v1") == 1
    assert [event.version for event in events] == list(range(1, 51))


def test_fifty_captures_of_one_reservation_over_two_writers_have_one_effect(
    writer: Writer, new_writer: NewWriter
) -> None:
    writers = (writer, new_writer())
    ask(writer, [*opened(), order(Reserve(id="r", charge=Charge(amount=10)), "r")])
    capture = Capture(reservation="r", charge=Charge(amount=10))
    futures = [writers[i % 2].submit(order(capture, f"c{i}")) for i in range(50)]
    errors = [future.exception(20) for future in futures]
    assert errors.count(None) == 1
    assert {getattr(error, "code", None) for error in errors} == {None, "reservation_closed"}
    assert writer.view(TENANT, "a").result(10).balance.consumed == 10


def test_two_writers_that_add_to_one_closed_operation_number_its_deductions_without_gaps(
    writer: Writer, new_writer: NewWriter
) -> None:
    """A recalled operation could hold what catching up then told once more."""
    writers = (writer, new_writer())
    ask(writer, opened(credits_given=100_000))

    def report(i: int) -> Order:
        command = CaptureUpTo(operation="job", charge=Charge(amount=i), final=True)
        return order(command, f"m{i}")

    put(writer, report(1))
    for i in range(2, 60, 2):
        # Enough others between, so that the operation has to be recalled each time.
        for one in writers:
            ask(one, [deduct(1, f"{i}-{j}-{id(one)}") for j in range(34)])
        futures = [writers[j % 2].submit(report(i + j)) for j in range(2)]
        recorded = [future.result(20).recorded for future in futures]
        assert recorded[1] is not None
    last = writers[0].submit(report(100)).result(10).recorded
    assert last is not None
    names = [
        event.event.deduction
        for event in _all_events(writer.store)
        if event.name == "reservation.captured.v1"
    ]
    assert names == [f"job~{n}" for n in range(1, len(names) + 1)]


def _all_events(store: Store) -> list[Any]:
    return store.events_of(stream_id(TENANT, "a"), limit=100_000)
