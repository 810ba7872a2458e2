"""The thread that follows: one process at a time, one failure alone, each event exactly once."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import LiteralString

import msgspec
import psycopg
import pytest
from eventsourcing.persistence import IntegrityError

from ledger.records import Recorded
from ledger.store import Store
from projections import accounts, balances, grants
from projections.projection import Projection, Table, Target
from projections.rebuild import differences, rebuild
from projections.registry import PROJECTIONS
from projections.runner import Runner
from projections.status import read_status
from projections.tables import connect, prepare, write_batch
from projections.tracking import TrackingRecorder, position_of, reached
from scrip.embedded import DatabaseUrls
from tests.projections.conftest import ask
from tests.projections.histories import History, eventually

KILL = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = 'scrip projections' AND datname = current_database()
"""


@contextmanager
def running(store: Store, **settings: object) -> Iterator[Runner]:
    runner = Runner(store, **settings)  # type: ignore[arg-type]
    runner.start()
    try:
        yield runner
    finally:
        runner.close()


def wrong(store: Store) -> list[str]:
    return [str(one) for each in PROJECTIONS for one in differences(store, each.name)]


def states(runner: Runner) -> dict[str, str]:
    return {one.name: one.state for one in runner.status()}


def test_rows_are_right_whatever_the_size_of_the_batches(history: History, store: Store) -> None:
    with running(store, batch_max=7):
        history.play(150)
        history.catch_up()
    assert wrong(store) == []


def test_a_runner_that_has_caught_up_is_not_behind(history: History, store: Store) -> None:
    with running(store) as runner:
        head = history.catch_up()
        eventually(lambda: all(one.position == head for one in runner.status()))
        assert [one.name for one in runner.status()] == [one.name for one in PROJECTIONS]
        assert {(one.lag_events, one.lag_seconds, one.error) for one in runner.status()} == {
            (0, 0.0, None)
        }


def test_without_a_runner_the_lag_grows_and_everybody_can_see_it(
    history: History, store: Store
) -> None:
    with connect(store) as connection:
        assert {one.state for one in read_status(connection)} == {"standby"}
        prepare(connection)
        found = read_status(connection)
    assert {one.state for one in found} == {"standby"}
    assert {one.lag_events for one in found} == {store.max_position()}
    assert history.count


class Nobody(msgspec.Struct):
    name: str


def poisoned(position: int) -> Projection:
    """Return grants that choke on the event at `position`."""

    def apply(target: Target, batch: list[Recorded]) -> None:
        grants.apply(target, batch)
        if any(recorded.position == position for recorded in batch):
            raise ZeroDivisionError("poison")

    return msgspec.structs.replace(grants.GRANTS, apply=apply)


def test_a_projection_that_fails_stops_alone_at_the_very_event(
    history: History, store: Store
) -> None:
    history.play(60)
    bad = store.events_after(0, 40)[-1]
    others = tuple(each for each in PROJECTIONS if each.name != "grants")
    with running(store, projections=(poisoned(bad.position), *others)) as runner:
        history.play(60)
        history.catch_up(others)
        eventually(lambda: states(runner)["grants"] == "stopped")
        grant_status, *rest = runner.status()
        assert {one.state for one in rest} == {"running"}
        assert grant_status.position == bad.position - 1
        assert grant_status.error is not None
        assert (grant_status.error.position, grant_status.error.event) == (bad.position, bad.name)
        assert "ZeroDivisionError: poison" in grant_status.error.error
        assert grant_status.lag_events > 0
        assert wrong(store) == []


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("UPDATE {grants_v1} SET reserved = -1 WHERE %(name)s IS NOT NULL", "CheckViolation"),
        ("DELETE FROM {grants_v1} WHERE account = ANY(%(name)s)", "Inconsistent"),
    ],
)
def test_what_the_database_refuses_stops_one_projection_though_all_share_a_transaction(
    history: History, store: Store, statement: LiteralString, error: str
) -> None:
    """The statement fails in the pipeline, behind those of the others or before them."""

    def apply(target: Target, batch: list[Recorded]) -> None:
        grants.apply(target, batch)
        if any(recorded.position >= bad.position for recorded in batch):
            target.change(statement, [Nobody(name="nobody")])

    bad = store.events_after(0, 10)[-1]
    failing = msgspec.structs.replace(grants.GRANTS, apply=apply)
    every = tuple(failing if one.name == "grants" else one for one in PROJECTIONS)
    others = tuple(one for one in PROJECTIONS if one.name != "grants")
    with running(store, projections=every) as runner:
        history.play(60)
        history.catch_up(others)
        eventually(lambda: states(runner)["grants"] == "stopped")
        status = next(one for one in runner.status() if one.name == "grants")
        assert status.position == bad.position - 1
        assert error in str(status.error)
        assert {one.state for one in runner.status()} == {"running", "stopped"}
    assert wrong(store) == []


def test_a_stopped_projection_goes_on_when_the_cause_is_gone(
    history: History, store: Store
) -> None:
    with running(store, projections=(poisoned(3),)) as runner:
        eventually(lambda: states(runner) == {"grants": "stopped"})
    with running(store) as runner:
        history.catch_up()
        eventually(lambda: set(states(runner).values()) == {"running"})
    assert wrong(store) == []


def test_a_rebuild_sets_a_stopped_projection_going_again(history: History, store: Store) -> None:
    with running(store, projections=(poisoned(3),)) as runner:
        eventually(lambda: states(runner) == {"grants": "stopped"})
        rebuild(store, "grants")
        eventually(lambda: states(runner) == {"grants": "running"})
        history.play(20)
        history.catch_up((grants.GRANTS,))
    assert list(differences(store, "grants")) == []


def test_an_event_of_a_newer_version_stops_all_visibly(
    history: History, store: Store, database: DatabaseUrls
) -> None:
    history.play(5)
    head = store.max_position()
    with psycopg.connect(database.superuser_url) as owner:
        owner.execute(
            "INSERT INTO scrip.ledger_events (originator_id, originator_version, topic, state,"
            " tenant, recorded_at, hash) VALUES"
            " (gen_random_uuid(), 1, 'credits.lent.v1', %(state)s, 'north', now(), sha256(''))",
            {"state": b'{"by": "key:test", "data": {}}'},
        )
    with running(store) as runner:
        eventually(lambda: set(states(runner).values()) == {"stopped"})
        for one in runner.status():
            assert one.position == head
            assert one.error is not None
            assert (one.error.position, one.error.event) == (
                store.max_position(),
                "credits.lent.v1",
            )
            assert "unknown event credits.lent.v1" in one.error.error


def test_rows_and_position_go_together_when_a_connection_dies_between_them(
    history: History, store: Store
) -> None:
    history.play(40)
    batch = store.events_after(0, 30)
    recorder = TrackingRecorder(store.recorder.datastore)
    with connect(store) as connection:
        prepare(connection)
        connection.execute("BEGIN")
        write_batch(recorder, connection, [balances.BALANCES], batch)
        with connect(store) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
        with pytest.raises(psycopg.OperationalError):
            connection.execute("COMMIT")
    with connect(store) as connection:
        assert position_of(connection, "balances_v2") == 0
        row = connection.execute("SELECT count(*) FROM projections.balances_v2").fetchone()
        assert row == (0,)
    with running(store):
        history.catch_up()
    assert wrong(store) == []


def test_rows_are_exact_however_often_the_connection_is_killed(
    history: History, store: Store, database: DatabaseUrls
) -> None:
    done = threading.Event()
    url = database.superuser_url

    def kill() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not done.wait(0.03):
                connection.execute(KILL)

    history.play(300)
    killer = threading.Thread(target=kill)
    with running(store, batch_max=3) as runner:
        killer.start()
        history.play(100)
        done.set()
        killer.join()
        history.catch_up()
        eventually(lambda: set(states(runner).values()) == {"running"})
    assert wrong(store) == []


def test_the_library_refuses_a_position_that_does_not_advance(
    history: History, store: Store
) -> None:
    batch = store.events_after(0, 5)
    recorder = TrackingRecorder(store.recorder.datastore)
    rowless = msgspec.structs.replace(accounts.ACCOUNTS, apply=lambda _target, _batch: None)
    assert history.count
    with connect(store) as connection:
        prepare(connection)
        write_batch(recorder, connection, [balances.BALANCES], batch)
        write_batch(recorder, connection, [rowless, grants.GRANTS], batch)
        with pytest.raises(IntegrityError), connection.transaction():
            write_batch(recorder, connection, [rowless], batch)


def test_of_two_runners_one_is_active_and_the_other_takes_over(
    history: History, store: Store
) -> None:
    with running(store) as first:
        eventually(lambda: first.active)
        with running(store) as second:
            history.play(20)
            history.catch_up()
            assert (first.active, second.active) == (True, False)
            assert set(states(second).values()) == {"standby"}
            first.close()
            eventually(lambda: second.active)
            history.play(20)
            history.catch_up()
            assert set(states(second).values()) == {"running"}
    assert wrong(store) == []


def test_a_version_of_a_table_that_is_missing_is_made_and_filled(
    history: History, store: Store
) -> None:
    with running(store):
        history.catch_up()

    def put(target: Target, batch: Sequence[Recorded]) -> None:
        new, changed = balances.fold(batch)
        target.insert("balances_v3", new)
        target.change(balances.UPDATE.replace("balances_v2", "balances_v3"), changed)  # type: ignore[arg-type]

    second = msgspec.structs.replace(
        balances.BALANCES,
        tables=(
            Table(
                name="balances_v3",
                key=("tenant", "account"),
                create=balances.CREATE.replace("balances_v2", "balances_v3"),  # type: ignore[arg-type]
            ),
        ),
        apply=put,
    )
    with running(store, projections=(*PROJECTIONS, second)):
        history.play(20)
        history.catch_up((*PROJECTIONS, second))
    with connect(store) as connection:
        left, right = (
            connection.execute(query).fetchall()
            for query in (
                f"SELECT {balances.COLUMNS} FROM projections.balances_v2 ORDER BY 1, 2".encode(),
                f"SELECT {balances.COLUMNS} FROM projections.balances_v3 ORDER BY 1, 2".encode(),
            )
        )
    assert left == right


def test_a_projection_ahead_of_a_restored_ledger_stops_and_says_so(
    history: History, store: Store
) -> None:
    with running(store):
        history.catch_up()
    with connect(store) as connection:
        connection.execute(
            "UPDATE projections.tracking SET notification_id = 9999"
            " WHERE application_name = 'usage_v1'"
        )
    with running(store) as runner:
        eventually(lambda: states(runner)["usage"] == "stopped")
        error = next(one.error for one in runner.status() if one.name == "usage")
        assert "rebuild it" in str(error)
        rebuild(store, "usage")
        eventually(lambda: states(runner)["usage"] == "running")
    assert wrong(store) == []


def test_a_batch_ends_where_its_bytes_do_but_holds_one_event_at_least(told: Store) -> None:
    every = told.events_after(0, 100)
    assert len(every) == 100
    assert told.events_after(0, 100, bytes_max=1) == every[:1]
    some = told.events_after(0, 100, bytes_max=5_000)
    assert 1 < len(some) < 50
    assert some == every[: len(some)]
    seen: list[Recorded] = []
    while len(seen) < 100:
        seen += told.events_after(seen[-1].position if seen else 0, 100 - len(seen), 5_000)
    assert seen == every


def test_what_a_projection_has_reached_can_be_asked_by_name(told: Store) -> None:
    head = told.max_position()
    assert [
        ask(told, lambda conn, each=each: reached(conn, each.name)) for each in PROJECTIONS
    ] == [head] * len(PROJECTIONS)
