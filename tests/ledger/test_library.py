"""The `eventsourcing` library finds our recorder through its own mechanism, and works with it."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import IntegrityError, NotSupportedError, StoredEvent
from psycopg.conninfo import conninfo_to_dict

from ledger.recorder import LedgerRecorder
from ledger.store import Store
from scrip.embedded import DatabaseUrls


class Dog(Aggregate):
    @event("Registered")
    def __init__(self, name: str) -> None:
        self.name = name
        self.tricks: list[str] = []

    @event("TrickAdded")
    def add_trick(self, trick: str) -> None:
        self.tricks.append(trick)


class Dogs(Application[UUID]):
    name = "ledger"


def environment(database: DatabaseUrls, **more: str) -> dict[str, str]:
    parts = conninfo_to_dict(database.app_url)
    return {
        "PERSISTENCE_MODULE": "ledger.recorder:Factory",
        "POSTGRES_DBNAME": str(parts["dbname"]),
        "POSTGRES_HOST": str(parts["host"]),
        "POSTGRES_PORT": str(parts["port"]),
        "POSTGRES_USER": str(parts["user"]),
        "POSTGRES_PASSWORD": str(parts["password"]),
        "POSTGRES_SCHEMA": "scrip",
        "CREATE_TABLE": "no",
        **more,
    }


def test_an_application_of_the_library_saves_and_loads_through_our_recorder(
    database: DatabaseUrls,
) -> None:
    app = Dogs(env=environment(database))
    assert isinstance(app.recorder, LedgerRecorder)
    dog = Dog("Fido")
    app.save(dog)
    dog.add_trick("roll over")
    dog.add_trick("fetch")
    app.save(dog)
    loaded: Any = app.repository.get(dog.id)
    assert (loaded.name, loaded.tricks) == ("Fido", ["roll over", "fetch"])
    assert [one.id for one in app.notification_log.select(start=1, limit=10)] == [1, 2, 3]
    app.close()


def test_two_who_change_the_same_aggregate_are_told(database: DatabaseUrls) -> None:
    app = Dogs(env=environment(database))
    dog = Dog("Fido")
    app.save(dog)
    mine: Any = app.repository.get(dog.id)
    theirs: Any = app.repository.get(dog.id)
    mine.add_trick("sit")
    theirs.add_trick("stay")
    app.save(mine)
    with pytest.raises(IntegrityError):
        app.save(theirs)
    app.close()


def test_events_that_would_leave_a_gap_are_refused(store: Store) -> None:
    stream = uuid4()

    def stored(version: int) -> StoredEvent:
        return StoredEvent(stream, version, "t", b"{}")

    with pytest.raises(IntegrityError):
        store.recorder.insert_events([stored(2)])
    with pytest.raises(IntegrityError):
        store.recorder.insert_events([stored(1), stored(3)])
    assert store.recorder.insert_events([]) == []
    assert store.max_position() == 0


def test_the_mode_of_the_library_that_loses_events_is_refused(database: DatabaseUrls) -> None:
    with pytest.raises(NotSupportedError, match="lose events"):
        Dogs(env=environment(database, POSTGRES_ENABLE_DB_FUNCTIONS="yes"))


def test_nobody_may_wait_for_notifications_that_are_never_sent(store: Store) -> None:
    with pytest.raises(NotSupportedError, match="by position"):
        store.recorder.subscribe()
