"""What one command, one stream or one caller spoils is theirs alone."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

import psycopg
import pytest

from ledger.append import Append, Rows
from ledger.codec import encode
from ledger.domain.commands import (
    Deduct,
    PutAccount,
    Release,
    SetFeature,
)
from ledger.domain.entities import Charge
from ledger.domain.errors import (
    InternalError,
    InvalidCommand,
    LedgerError,
    NewerEvents,
    Overloaded,
    StoreUnavailable,
)
from ledger.domain.events import AccountUpdated
from ledger.records import Outcome, stream_id
from ledger.store import Store
from ledger.writer import Writer
from scrip.embedded import DatabaseUrls
from tests.ledger.conftest import NewWriter
from tests.ledger.room import TENANT, Clock, ask, deduct, opened, order, put, reserve, until

LAST = """
SELECT hash FROM scrip.ledger_events
WHERE originator_id = %(s)s AND originator_version = %(v)s
"""


def append_raw(
    database: DatabaseUrls, clock: Clock, *, name: str, state: bytes, key: str, version: int = 3
) -> None:
    """Append a row to account a, as a process of another version of Scrip would."""
    stream = stream_id(TENANT, "a")
    with psycopg.connect(database.app_url, autocommit=True) as connection:
        last = connection.execute(LAST, {"s": stream, "v": version - 1}).fetchone()
        assert last is not None
        rows = Rows(expected={stream: version})
        rows.add(
            last[0],
            stream,
            version,
            name=name,
            state=state,
            recorded_at=clock(),
            tenant=TENANT,
            account="a",
            subject="job",
            key=key,
            content=order(PutAccount(), key).content(),
        )
        assert Append(connection, rows).land().positions


NEWER = ("credits.lent.v1", encode(AccountUpdated(), by="key:newer"))
NEWER_VERSION = ("credits.granted.v2", encode(AccountUpdated(), by="key:newer"))


@pytest.mark.parametrize(("name", "state"), [NEWER, NEWER_VERSION])
def test_an_account_with_newer_events_is_refused_and_no_other(
    name: str, state: bytes, writer: Writer, database: DatabaseUrls, clock: Clock
) -> None:
    ask(writer, [*opened("a"), *opened("b")])
    append_raw(database, clock, name=name, state=state, key="newer")
    asked = [
        deduct(1, "d"),
        deduct(1, "d", "b"),
        order(PutAccount(), "newer"),  # The key of the newer event itself.
        order(Release(reservation="job"), "r"),  # Its subject.
    ]
    for _ in range(2):
        answers = ask(writer, asked)
        assert [isinstance(one, NewerEvents) for one in answers] == [True, False, True, True]
    with pytest.raises(NewerEvents):
        writer.view(TENANT, "a").result(10)
    assert writer.view(TENANT, "b").result(10).balance.consumed == 1


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("account.updated.v1", b"not json"),
        ("account.updated.v1", b'{"by":"x","data":{"colour":"red"}}'),
        ("grant.expired.v1", b'{"by":"x","data":{"grant":"none","amount":1}}'),
        ("catalog.feature_set.v1", b'{"by":"x","data":{"feature":"f","version":1,"name":"F"}}'),
    ],
)
def test_an_account_with_a_broken_event_is_refused_and_no_other(
    name: str, state: bytes, writer: Writer, database: DatabaseUrls, clock: Clock
) -> None:
    """It ended the writer, for everybody, and again after every restart."""
    ask(writer, [*opened("a"), *opened("b")])
    append_raw(database, clock, name=name, state=state, key="broken")
    for _ in range(2):
        answers = ask(writer, [deduct(1, "d"), deduct(1, "d", "b"), order(PutAccount(), "broken")])
        assert isinstance(answers[0], InternalError)
        assert isinstance(answers[1], Outcome)
        assert not isinstance(answers[2], StoreUnavailable)
    assert writer.alive


def test_an_account_with_a_missing_row_is_refused_and_no_other(
    writer: Writer, new_writer: NewWriter, owner: psycopg.Connection[Any]
) -> None:
    ask(writer, [*opened("a"), *opened("b"), deduct(1, "d")])
    owner.execute(
        "DELETE FROM scrip.ledger_events WHERE originator_id = %(s)s AND originator_version = 2",
        {"s": stream_id(TENANT, "a")},
    )
    answers = ask(new_writer(), [deduct(1, "e"), deduct(1, "e", "b")])
    assert isinstance(answers[0], InternalError)
    assert isinstance(answers[1], Outcome)


@pytest.mark.parametrize(
    "bad",
    [
        deduct(1, "nul\0"),
        deduct(1, "x" * 3_000),
        deduct(1, ""),
        deduct(1, "\ud800"),
        deduct(1, "k", "nul\0"),
        order(Deduct(id="nul\0", charge=Charge(amount=1)), "k"),
        order(Release(reservation="\ud800"), "k"),
        order(SetFeature(feature="f", name="F"), "nul\0", None),
    ],
)
def test_what_the_database_could_not_store_is_refused_and_the_rest_of_its_batch_is_not(
    bad: Any, writer: Writer
) -> None:
    answers = ask(writer, [*opened(), bad, deduct(1, "d")])
    assert isinstance(answers[2], InvalidCommand)
    assert isinstance(answers[3], Outcome)
    assert writer.stats.failures == 0


def test_a_bug_that_strikes_while_events_are_folded_ends_its_own_command(writer: Writer) -> None:
    ask(writer, opened())
    answers = ask(
        writer,
        [
            deduct(1, "d1"),
            order(PutAccount(metadata={"name": "\ud800"}), "bad"),
            deduct(1, "d2"),
        ],
    )
    assert isinstance(answers[1], InternalError)
    assert isinstance(answers[0], Outcome)
    assert isinstance(answers[2], Outcome)
    assert writer.view(TENANT, "a").result(10).balance.consumed == 2


def test_a_caller_who_cancels_or_fails_does_not_keep_others_from_their_answers(
    writer: Writer,
) -> None:
    ask(writer, opened(credits_given=1_000))

    def fails(_: list[Any]) -> None:
        raise RuntimeError("the loop is closed")

    futures: list[Future[Outcome]] = []
    for i in range(300):
        future = writer.submit(deduct(1, f"c{i}"))
        threading.Thread(target=future.cancel).start()
        futures.append(future)
    writer.submit_many([deduct(1, "fails")], fails)
    last = put(writer, deduct(1, "last"))
    assert last.balance is not None
    assert last.balance.consumed == 302
    assert all(future.done() for future in futures)


def test_a_full_queue_refuses_at_once_and_takes_no_half_of_an_order(
    owner: psycopg.Connection[Any], new_writer: NewWriter
) -> None:
    writer = new_writer(queue_max=10, batch_max=2)
    ask(writer, opened(credits_given=100))
    with owner.transaction():
        owner.execute("SELECT pg_advisory_xact_lock(7305804385211)")
        # One is on its way, and two are decided on top of it: those wait in no queue.
        taken = [writer.submit(deduct(1, "first"))]
        until(lambda: writer.queue_length == 0)
        taken += [writer.submit(deduct(1, f"e{i}")) for i in range(7)]
        until(lambda: writer.queue_length == 5)
        with pytest.raises(Overloaded) as refused:
            writer.submit_many([deduct(1, f"many{i}") for i in range(6)], lambda _: None)
        assert refused.value.facts == {"waiting": 5}
        taken += [writer.submit(deduct(1, f"f{i}")) for i in range(5)]
        with pytest.raises(Overloaded):
            writer.submit(deduct(1, "one more"))
    assert all(future.result(20).recorded for future in taken)
    assert writer.view(TENANT, "a").result(10).balance.consumed == 13


def test_no_orders_are_answered_with_no_answers(writer: Writer) -> None:
    assert ask(writer, []) == []


def test_closing_answers_everything_that_waits(new_writer: NewWriter) -> None:
    writer = new_writer()
    ask(writer, opened(credits_given=10_000))
    futures = [writer.submit(deduct(1, f"d{i}")) for i in range(2_000)]
    writer.close()
    assert all(future.result(0).recorded for future in futures)
    with pytest.raises(Overloaded):
        writer.submit(deduct(1, "late"))


def test_a_writer_that_never_started_answers_when_it_is_closed(store: Store) -> None:
    writer = Writer(store)
    future = writer.submit(deduct(1, "d"))
    writer.close()
    assert isinstance(future.exception(0), StoreUnavailable)


def test_a_catalog_that_was_asked_for_does_not_change_afterwards(writer: Writer) -> None:
    put(writer, order(SetFeature(feature="f", name="F", unit_price=1), "f1", None))
    catalog = writer.catalog(TENANT).result(10)
    put(writer, order(SetFeature(feature="f", name="F", unit_price=2), "f2", None))
    put(writer, order(SetFeature(feature="g", name="G", unit_price=2), "g1", None))
    assert (catalog.version, len(catalog.features["f"]), list(catalog.features)) == (1, 1, ["f"])


# -- clocks ----------------------------------------------------------------------------------------


def test_time_never_runs_backwards_within_a_stream(
    new_writer: NewWriter, clock: Clock, store: Store
) -> None:
    fast = Clock()
    fast.wait(3_600)
    writers = (new_writer(), new_writer(clock=fast))
    for i in range(6):
        ask(writers[i % 2], [order(one.command, f"{one.key}{i}") for one in opened()])
        clock.wait(1)
    times = [event.recorded_at for event in store.events_of(stream_id(TENANT, "a"))]
    assert times == sorted(times)
    assert times[-1] == fast.now


def test_a_fast_clock_reaches_only_the_accounts_it_has_written(
    new_writer: NewWriter, writer: Writer, store: Store
) -> None:
    """The latest time of any account in a batch was the time of all of it."""
    fast = Clock()
    fast.wait(3_600)
    ask(writer, [*opened("b"), reserve(10, "r", "b", ttl_seconds=60)])
    ask(new_writer(clock=fast), opened("a"))
    answers = ask(writer, [deduct(1, "d", "a"), deduct(1, "d", "b")])
    assert isinstance(answers[0], Outcome)
    assert isinstance(answers[1], LedgerError), "what is reserved was free an hour too early"
    assert {event.name for event in store.events_of(stream_id(TENANT, "b"))} == {
        "account.opened.v1",
        "credits.granted.v1",
        "credits.reserved.v1",
    }
