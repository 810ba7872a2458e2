"""The event store as a persistence module of the `eventsourcing` library.

`PERSISTENCE_MODULE=ledger.recorder:Factory` gives the library's applications our table, with more
columns than theirs, and our way to append. Stored events, notification ids (our positions),
tracking records and selects are the library's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import unquote

import eventsourcing.postgres as pg
from eventsourcing.persistence import (
    IntegrityError,
    NotSupportedError,
    StoredEvent,
    Subscription,
)
from eventsourcing.utils import Environment, strtobool
from psycopg.conninfo import conninfo_to_dict

from ledger.append import Append, rows_of

SCHEMA = "scrip"
TAKEN = {"dbname", "host", "port", "user", "password"}
LIVELY: Final[dict[str, Any]] = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""A server that went silent is given up after seconds: no client-side timeout would notice it."""

CONNECT_SECONDS = 5
WAIT_SECONDS = 2
"""How long one waits for a connection before asking again, which is what starts a new attempt."""
RECONNECT_SECONDS = 1.0


class LedgerRecorder(pg.PostgresApplicationRecorder):
    """Appends by compare-and-append under an advisory lock; reads as the library does."""

    def create_table(self) -> None:
        """Do nothing: tables come from migrations, under another role than the services'."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **_: Any) -> Sequence[int] | None:
        """Append the library's own stored events and return their positions.

        Without the library's retries, which take our own success for somebody's conflict when a
        connection dies after the commit. Raises IntegrityError if a version is taken.
        """
        if not stored_events:
            return []
        last: dict[Any, int] = {}
        for event in stored_events:
            if last.get(event.originator_id, event.originator_version - 1) + 1 != (
                event.originator_version
            ):
                raise IntegrityError("versions of a stream have no gaps")
            last[event.originator_id] = event.originator_version
        with self.datastore.get_connection() as connection:
            rows = rows_of(connection, stored_events)
            appended = Append(connection, rows).land()
        if appended.stale or appended.used:
            raise IntegrityError("another event has this stream and version")
        return appended.positions

    def subscribe(
        self,
        gt: int | None = None,  # noqa: ARG002 - the library's signature
        topics: Sequence[str] = (),  # noqa: ARG002 - the library's signature
    ) -> Subscription[pg.PostgresApplicationRecorder]:
        """Refuse: nobody notifies, since a NOTIFY in the transaction would serialise all commits.

        Read `select_notifications` by position instead, on a timer.
        """
        raise NotSupportedError("follow the ledger by position; it sends no notifications")


class Factory(pg.PostgresFactory):
    """Makes the library's PostgreSQL infrastructure with our recorder."""

    application_recorder_class = LedgerRecorder

    def __init__(self, env: Environment) -> None:
        """Refuse the settings under which the library loses events."""
        if strtobool(env.get(self.POSTGRES_ENABLE_DB_FUNCTIONS) or "no"):
            raise NotSupportedError(
                "POSTGRES_ENABLE_DB_FUNCTIONS makes tailing readers lose events; leave it off"
            )
        super().__init__(env)


def construct_factory(url: str, *, pool_size: int, options: str) -> Factory:
    """Return the library's factory for a database URL, found through its own mechanism."""
    parts = conninfo_to_dict(url)
    environment = Environment(
        name="ledger",
        env={
            "PERSISTENCE_MODULE": "ledger.recorder:Factory",
            "POSTGRES_DBNAME": str(parts.get("dbname", "")),
            "POSTGRES_HOST": unquote(str(parts.get("host", ""))),
            "POSTGRES_PORT": str(parts.get("port", "5432")),
            "POSTGRES_USER": str(parts.get("user", "")),
            "POSTGRES_PASSWORD": str(parts.get("password", "")),
            "POSTGRES_SCHEMA": SCHEMA,
            "POSTGRES_POOL_SIZE": "1",
            "POSTGRES_MAX_OVERFLOW": str(pool_size - 1),
            "POSTGRES_CONNECT_TIMEOUT": str(WAIT_SECONDS),
            "CREATE_TABLE": "no",
        },
    )
    factory = pg.PostgresFactory.construct(environment)
    assert isinstance(factory, Factory)
    assert isinstance(factory.datastore.pool.kwargs, dict)
    factory.datastore.pool.kwargs.update(
        {name: value for name, value in parts.items() if name not in TAKEN},
        options=f"{parts.get('options') or ''} {options}",
        application_name="scrip",
        client_encoding="utf8",
        connect_timeout=parts.get("connect_timeout", CONNECT_SECONDS),
        **LIVELY,
    )
    # Whoever asks next tries anew. The pool's own attempts come after pauses that double: a
    # database that was away for minutes would be found again minutes after it is back.
    factory.datastore.pool.reconnect_timeout = RECONNECT_SECONDS
    return factory
