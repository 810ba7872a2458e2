"""What is decided while the batch before it commits stands only if that one is written so."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, LiteralString, Self

import psycopg
import pytest

from ledger.append import LOCK
from ledger.committer import CROWD
from ledger.domain import evolve
from ledger.domain.errors import InsufficientCredits, InternalError
from ledger.domain.events import CreditsDeducted
from ledger.records import Order, Outcome, stream_id
from ledger.store import Store
from ledger.verify import verify
from ledger.writer import Writer
from scrip.embedded import DatabaseUrls, EmbeddedPostgres
from tests.ledger.conftest import NewWriter
from tests.ledger.room import (
    ANSWER_SECONDS,
    TENANT,
    ask,
    deduct,
    opened,
    put,
    reserve,
    until,
)

WAITING = "SELECT pid FROM pg_stat_activity WHERE datname = %(name)s AND wait_event = 'advisory'"
SERVICES = "SELECT pid FROM pg_stat_activity WHERE datname = %(name)s AND usename = 'scrip_app'"


class Server:
    """What only a superuser sees and does."""

    def __init__(self, connection: psycopg.Connection[Any], name: str) -> None:
        self._connection = connection
        self._name = name

    def pids(self, query: LiteralString) -> list[int]:
        """Return the backends that a query names."""
        return [pid for (pid,) in self._connection.execute(query, {"name": self._name})]

    def terminate(self, query: LiteralString) -> None:
        """End the backends that a query names."""
        for pid in self.pids(query):
            self._connection.execute("SELECT pg_terminate_backend(%(pid)s)", {"pid": pid})


@pytest.fixture
def server(postgres_server: EmbeddedPostgres, database: DatabaseUrls) -> Iterator[Server]:
    with psycopg.connect(postgres_server.superuser_url, autocommit=True) as connection:
        yield Server(connection, database.name)


class Overlap:
    """A writer whose next batch is held on its way until the end of the `with` block."""

    def __init__(self, writer: Writer, owner: psycopg.Connection[Any], server: Server) -> None:
        self.writer = writer
        self.server = server
        self.futures: list[Future[Outcome]] = []
        self._owner = owner
        self._transaction: Any = None

    def __enter__(self) -> Self:
        self._transaction = self._owner.transaction()
        self._transaction.__enter__()
        self._owner.execute(LOCK)
        return self

    def __exit__(self, *error: object) -> None:
        self._transaction.__exit__(*error)

    def send(self, *orders: Order) -> None:
        """Queue these at once, and wait until the first is on its way and another was decided."""
        before = self.writer.stats.overlapped
        self.hand_over(*orders)
        until(lambda: self.writer.stats.overlapped > before)

    def hand_over(self, *orders: Order) -> None:
        """Queue these at once."""
        pendings = []
        for one in orders:
            future: Future[Any] = Future()
            self.futures.append(future)
            pendings.append(self.writer.pending(one, future.set_result))
        self.writer.hand_over(pendings)

    def answers(self) -> list[Any]:
        """Return an outcome or a refusal for each order."""
        return [future.result(ANSWER_SECONDS) for future in self.futures]


def versions(store: Store, account: str) -> list[int]:
    return [event.version for event in store.events_of(stream_id(TENANT, account))]


@pytest.fixture
def warm(new_writer: NewWriter) -> Writer:
    """A writer of one command a batch, with the accounts a and b in memory, 100 credits each."""
    writer = new_writer(batch_max=1)
    ask(writer, [*opened("a", 100), *opened("b", 100)])
    return writer


def test_a_batch_is_decided_on_top_of_one_that_has_not_come_back(
    warm: Writer, owner: psycopg.Connection[Any], server: Server, store: Store
) -> None:
    with Overlap(warm, owner, server) as overlap:
        overlap.send(
            deduct(60, "first"), deduct(40, "second"), deduct(1, "third"), deduct(5, "other", "b")
        )
        assert not any(future.done() for future in overlap.futures), "nothing is committed yet"
    first, second, third, other = overlap.answers()
    assert isinstance(third, InsufficientCredits)
    assert first.recorded.position < second.recorded.position < other.recorded.position
    assert versions(store, "a") == [1, 2, 3, 4]
    assert warm.stats.conflicts == 0


def test_a_crowd_is_shared_between_the_batch_on_its_way_and_the_next(
    new_writer: NewWriter, owner: psycopg.Connection[Any], server: Server
) -> None:
    """Or one would be decided while a single command commits, and nothing while it commits."""
    writer = new_writer()
    ask(writer, opened("a", 100))
    with Overlap(writer, owner, server) as overlap:
        overlap.hand_over(deduct(1, "alone"))
        until(lambda: server.pids(WAITING))
        overlap.send(*[deduct(1, f"d{i}") for i in range(63)])
        assert writer.queue_length == 63 - CROWD
    assert all(isinstance(answer, Outcome) for answer in overlap.answers())


def test_what_was_decided_on_a_stale_account_is_void_and_decided_again(
    warm: Writer,
    new_writer: NewWriter,
    owner: psycopg.Connection[Any],
    server: Server,
    store: Store,
) -> None:
    put(new_writer(), deduct(70, "elsewhere"))  # `warm` does not know.
    with Overlap(warm, owner, server) as overlap:
        overlap.send(deduct(20, "first"), deduct(20, "second"), deduct(5, "other", "b"))
    first, second, other = overlap.answers()
    assert isinstance(second, InsufficientCredits), "30 were left, of which 20 went first"
    assert first.recorded.balance.available == 10
    assert other.recorded.balance.available == 95
    assert versions(store, "a") == [1, 2, 3, 4]
    assert warm.stats.conflicts == 1


def test_a_key_that_was_used_elsewhere_makes_what_follows_void(
    warm: Writer, new_writer: NewWriter, owner: psycopg.Connection[Any], server: Server
) -> None:
    first = put(new_writer(), deduct(70, "one"))
    with Overlap(warm, owner, server) as overlap:
        overlap.send(deduct(70, "one"), deduct(30, "two"))
    again, second = overlap.answers()
    assert again == Outcome(first, replayed=True)
    assert second.recorded.balance.available == 0


def test_the_same_key_on_its_way_and_behind_it_is_one_command(
    warm: Writer, owner: psycopg.Connection[Any], server: Server, store: Store
) -> None:
    with Overlap(warm, owner, server) as overlap:
        overlap.send(deduct(60, "one"), deduct(60, "one"), deduct(40, "two"))
    first, again, second = overlap.answers()
    assert again == Outcome(first.recorded, replayed=True)
    assert second.recorded.balance.available == 0
    assert versions(store, "a") == [1, 2, 3, 4]


def test_when_the_connection_dies_both_are_done_once(
    warm: Writer, owner: psycopg.Connection[Any], server: Server, store: Store
) -> None:
    with Overlap(warm, owner, server) as overlap:
        overlap.send(deduct(60, "first"), deduct(40, "second"), deduct(5, "other", "b"))
        server.terminate(WAITING)
    assert all(isinstance(answer, Outcome) for answer in overlap.answers())
    assert versions(store, "a") == [1, 2, 3, 4]
    assert warm.stats.failures == 1


def test_a_bug_in_what_follows_spoils_its_own_command_only(
    warm: Writer,
    owner: psycopg.Connection[Any],
    server: Server,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Overlap(warm, owner, server) as overlap:
        _break_deductions_of(13, monkeypatch)
        overlap.hand_over(deduct(60, "first"), deduct(13, "bug"), deduct(40, "second"))
        until(lambda: warm.queue_length == 1 and server.pids(WAITING))
    first, bug, second = overlap.answers()
    assert isinstance(first, Outcome)
    assert isinstance(bug, InternalError)
    assert isinstance(second, Outcome)
    assert versions(store, "a") == [1, 2, 3, 4]


def _break_deductions_of(amount: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = evolve._deducted

    def broken(account: Any, event: CreditsDeducted) -> None:
        real(account, event)
        if event.amount == amount:
            raise ZeroDivisionError

    monkeypatch.setattr(evolve, "_deducted", broken)


def test_a_reading_waits_for_what_is_on_its_way(
    warm: Writer, owner: psycopg.Connection[Any], server: Server
) -> None:
    with Overlap(warm, owner, server) as overlap:
        overlap.hand_over(deduct(60, "first"))
        view = warm.view(TENANT, "a")
        until(lambda: server.pids(WAITING))
        assert not view.done(), "it would tell what is not committed"
    (first,) = overlap.answers()
    seen = view.result(ANSWER_SECONDS)
    assert (seen.balance.available, seen.position) == (40, first.recorded.position)


def test_snapshots_are_of_what_was_committed(
    new_writer: NewWriter, owner: psycopg.Connection[Any], server: Server
) -> None:
    writer = new_writer(snapshot_every=3, batch_max=1)
    ask(writer, opened("a", 100))
    with Overlap(writer, owner, server) as overlap:
        overlap.send(deduct(60, "first"), deduct(40, "second"))
    assert all(isinstance(answer, Outcome) for answer in overlap.answers())
    until(lambda: writer.stats.snapshots == 1)
    row = owner.execute("SELECT version, position FROM scrip.snapshots").fetchone()
    assert row == (3, overlap.answers()[0].recorded.position)
    view = new_writer().view(TENANT, "a").result(ANSWER_SECONDS)
    assert (view.version, view.balance.available) == (4, 0)


def test_many_callers_on_few_accounts_with_two_writers_and_failures(
    new_writer: NewWriter,
    server: Server,
    database: DatabaseUrls,
    store: Store,
) -> None:
    """Whatever overlaps with whatever: no gap, nothing twice, nothing overspent."""
    writers = [new_writer(), new_writer()]
    names = [f"a{i}" for i in range(8)]
    ask(writers[0], [one for name in names for one in opened(name, 300)])
    dice = random.Random(7)  # noqa: S311 - chance, not secrecy
    futures = []
    for i in range(4_000):
        one = dice.choice([reserve, deduct])(1, f"k{dice.randrange(3_000)}", dice.choice(names))
        futures.append(dice.choice(writers).submit(one))
        if i % 1_000 == 500:
            server.terminate(SERVICES)
    for future in futures:
        future.exception(ANSWER_SECONDS)
    assert sum(writer.stats.overlapped for writer in writers) > 0
    store.drop_broken_connections()
    for name in names:
        events = store.events_of(stream_id(TENANT, name), limit=100_000)
        assert [event.version for event in events] == list(range(1, len(events) + 1))
        keys = [event.key for event in events]
        assert len(set(keys)) == len(keys)
        balance = events[-1].balance
        assert balance is not None
        assert balance.holds()
    assert list(verify(database.app_url)) == []
