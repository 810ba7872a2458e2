"""The ledger's store on PostgreSQL: sessions of the writer, reading by stream and by position."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from msgspec import MsgspecError, Struct
from psycopg import Connection
from psycopg.rows import tuple_row
from psycopg_pool import PoolClosed

from ledger import guard
from ledger.append import LOCK, Append, Rows, prepare_append
from ledger.codec import UnknownEvent
from ledger.domain.errors import InternalError, LedgerError, NewerEvents
from ledger.reading import COLUMNS, recorded_from_row
from ledger.recorder import LedgerRecorder, construct_factory
from ledger.records import Recorded

log = logging.getLogger(__name__)

TAIL_EVENTS = 50_000
"""Events that are loaded in one go, of all streams together, about."""
TAIL_CHUNK_MIN = 50
BYTES_MAX = 32 * 2**20
"""What events read by position may hold together as they are stored, so that memory is bounded."""

SELECT_TAILS: LiteralString = (
    "SELECT " + COLUMNS + ", e.hash FROM unnest(%(streams)b::uuid[], %(afters)b::bigint[])"
    " AS t(stream, after) CROSS JOIN LATERAL ("
    " SELECT * FROM scrip.ledger_events l"
    " WHERE l.originator_id = t.stream AND l.originator_version > t.after"
    " ORDER BY l.originator_version LIMIT %(chunk)s) e"
    " ORDER BY e.originator_id, e.originator_version"
)
SELECT_SUBJECTS: LiteralString = (
    "SELECT " + COLUMNS + ", e.subject FROM unnest(%(streams)b::uuid[], %(subjects)b::text[])"
    " AS t(stream, subject)"
    " JOIN scrip.ledger_events e ON e.originator_id = t.stream AND e.subject = t.subject"
    " ORDER BY e.originator_id, e.subject, e.originator_version"
)
SELECT_RECEIPTS: LiteralString = (
    "SELECT " + COLUMNS + ", e.content FROM unnest(%(streams)b::uuid[], %(keys)b::text[])"
    " AS t(stream, key)"
    " JOIN scrip.ledger_events e ON e.originator_id = t.stream AND e.key = t.key"
)
SELECT_AFTER: LiteralString = (
    "SELECT " + COLUMNS + " FROM (SELECT l.*, sum(octet_length(l.state)) OVER ("
    " ORDER BY l.notification_id ROWS UNBOUNDED PRECEDING) - octet_length(l.state) AS before"
    " FROM scrip.ledger_events l WHERE l.notification_id > %(position)s"
    " ORDER BY l.notification_id LIMIT %(limit)s) e"
    " WHERE e.before < %(bytes_max)s ORDER BY e.notification_id"
)
SELECT_STREAM: LiteralString = (
    "SELECT " + COLUMNS + " FROM scrip.ledger_events e"
    " WHERE e.originator_id = %(stream)s AND e.originator_version > %(after)s"
    " ORDER BY e.originator_version LIMIT %(limit)s"
)
SELECT_SNAPSHOTS = """
SELECT originator_id, version, state, position, recorded_at, hash
FROM scrip.snapshots WHERE originator_id = ANY(%(streams)b::uuid[]) AND format = %(format)s
"""
UPSERT_SNAPSHOT = """
INSERT INTO scrip.snapshots (originator_id, version, format, state, position, recorded_at, hash)
VALUES (%(stream)s, %(version)s, %(format)s, %(state)s, %(position)s, %(recorded_at)s, %(hash)s)
ON CONFLICT (originator_id) DO UPDATE
SET version = excluded.version, format = excluded.format, state = excluded.state,
    position = excluded.position, recorded_at = excluded.recorded_at, hash = excluded.hash
WHERE scrip.snapshots.version < excluded.version OR scrip.snapshots.format <> excluded.format
"""


class StoredSnapshot(Struct, frozen=True, kw_only=True):
    """A snapshot as it is stored: the state's bytes, and where in its stream they were taken."""

    stream: UUID
    version: int
    format: bytes
    state: bytes
    position: int
    recorded_at: datetime
    hash: bytes


class Receipt(Struct, frozen=True):
    """The event that a command with this key has caused, and the hash of what had been asked.

    Instead of the event, a refusal: if this process cannot read it.
    """

    recorded: Recorded | LedgerError
    content: bytes


class Session:
    """The writer's way to the store: on one connection, with or without the append lock.

    While a batch is on its way (see `append`) nothing else can be asked.
    """

    def __init__(self, connection: Connection[Any]) -> None:
        """Use `connection`, on which nothing is open."""
        self.connection = connection
        self.locked = False
        """Whether this is inside a transaction that holds the lock."""

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Open one transaction under the append lock, in which nobody else can be first."""
        with self.connection.transaction():
            self.connection.execute(LOCK)
            self.locked = True
            try:
                yield
            finally:
                self.locked = False

    def append(self, rows: Rows) -> Append:
        """Send a batch off; see `ledger.append`. Its result comes before anything else here."""
        return Append(self.connection, rows, locked=self.locked)

    def tails(self, afters: dict[UUID, int]) -> Iterator[tuple[UUID, tuple[Any, ...], bytes]]:
        """Yield the rows after the version named for each stream, by version, with their hashes.

        A row is one of COLUMNS, not yet understood.
        """
        while afters:
            seen: dict[UUID, int] = {}
            chunk = max(TAIL_EVENTS // len(afters), TAIL_CHUNK_MIN)
            parameters = {
                "streams": list(afters),
                "afters": list(afters.values()),
                "chunk": chunk,
            }
            last: dict[UUID, int] = {}
            for row in self._rows(SELECT_TAILS, parameters):
                stream, version = row[1], row[2]
                seen[stream] = seen.get(stream, 0) + 1
                last[stream] = version
                yield stream, row[:-1], row[-1]
            afters = {stream: last[stream] for stream, n in seen.items() if n == chunk}

    def snapshots(self, streams: list[UUID], format_: bytes) -> list[StoredSnapshot]:
        """Return what snapshots there are of `streams` in this format."""
        rows = self._rows(SELECT_SNAPSHOTS, {"streams": streams, "format": format_})
        return [
            StoredSnapshot(
                stream=stream,
                version=version,
                format=format_,
                state=state,
                position=position,
                recorded_at=recorded_at,
                hash=digest,
            )
            for stream, version, state, position, recorded_at, digest in rows
        ]

    def of_subjects(
        self, subjects: Iterable[tuple[UUID, str]]
    ) -> Iterator[tuple[UUID, str, tuple[Any, ...]]]:
        """Yield the rows about each (stream, subject), by version. They are not yet understood."""
        wanted = list(subjects)
        parameters = {
            "streams": [stream for stream, _ in wanted],
            "subjects": [subject for _, subject in wanted],
        }
        for row in self._rows(SELECT_SUBJECTS, parameters):
            yield row[1], row[-1], row[:-1]

    def receipts(self, keys: Iterable[tuple[UUID, str]]) -> dict[tuple[UUID, str], Receipt]:
        """Return what stands in the ledger under each (stream, key), of those there are."""
        wanted = list(keys)
        parameters = {
            "streams": [stream for stream, _ in wanted],
            "keys": [key for _, key in wanted],
        }
        return {
            (row[1], row[7]): Receipt(_recorded_or_refusal(row[:-1]), row[-1])
            for row in self._rows(SELECT_RECEIPTS, parameters)
        }

    def _rows(self, query: LiteralString, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        with self.connection.cursor(row_factory=tuple_row, binary=True) as cursor:
            return cursor.execute(query, parameters, prepare=True).fetchall()


class Store:
    """The ledger's store. Safe to share between threads; holds its own connections."""

    def __init__(self, recorder: LedgerRecorder) -> None:
        """Use the library's recorder, and its connections."""
        self.recorder = recorder

    @classmethod
    def open(
        cls,
        url: str,
        *,
        pool_size: int = 5,
        statement_timeout_ms: int = 5_000,
        lock_timeout_ms: int = 2_000,
    ) -> Store:
        """Connect as the services' role. Raises guard.RefusedToStart where that is not safe."""
        options = (
            f"-c statement_timeout={statement_timeout_ms} -c lock_timeout={lock_timeout_ms}"
            # A plan made while a table was small must not read all of it once it is large;
            # statistics come late to tables that only grow. Every look here is for one row or a
            # few, by an index; one plan is right for all, and is made once.
            " -c timezone=UTC -c enable_seqscan=off -c enable_bitmapscan=off -c jit=off"
            " -c plan_cache_mode=force_generic_plan"
            # Whatever the database's default: an append must see all that was committed before it
            # had the lock, or it would refuse, and answer, from what is no longer so.
            " -c default_transaction_isolation=read\\ committed"
        )
        factory = construct_factory(url, pool_size=pool_size, options=options)
        recorder = factory.application_recorder()
        assert isinstance(recorder, LedgerRecorder)
        try:
            with recorder.datastore.get_connection() as connection:
                guard.check(connection)
        except BaseException:
            factory.close()
            raise
        return cls(recorder)

    def close(self) -> None:
        """Close all connections."""
        self.recorder.datastore.close()

    def drop_broken_connections(self) -> None:
        """Replace the idle connections that a restart of the database has broken."""
        with suppress(PoolClosed):
            self.recorder.datastore.pool.check()

    def connect(self) -> Connection[Any]:
        """Open a connection of one's own, with the settings of all others here."""
        settings = {**self.recorder.datastore.pool.kwargs, "row_factory": tuple_row}  # type: ignore[dict-item]
        return Connection.connect(autocommit=True, **settings)

    def session(self) -> Session:
        """Open a session of the writer, on a connection of its own."""
        connection = self.connect()
        try:
            prepare_append(connection)
        except BaseException:
            connection.close()
            raise
        return Session(connection)

    def events_after(self, position: int, limit: int, bytes_max: int = BYTES_MAX) -> list[Recorded]:
        """Return the next events of the whole ledger, in position order.

        At most `limit`, and fewer once they hold `bytes_max` together: but one at least.
        """
        parameters = {"position": position, "limit": limit, "bytes_max": bytes_max}
        return self._recorded(SELECT_AFTER, parameters)

    def events_of(self, stream: UUID, after_version: int = 0, limit: int = 1_000) -> list[Recorded]:
        """Return the next events of one stream, in version order."""
        parameters = {"stream": stream, "after": after_version, "limit": limit}
        return self._recorded(SELECT_STREAM, parameters)

    def max_position(self) -> int:
        """Return the position of the newest event, 0 if there is none."""
        return self.recorder.max_notification_id() or 0

    def save_snapshot(self, snapshot: StoredSnapshot) -> None:
        """Keep a snapshot, unless a newer one is kept."""
        parameters = {name: getattr(snapshot, name) for name in snapshot.__struct_fields__}
        with self.recorder.datastore.get_connection() as connection:
            connection.execute(UPSERT_SNAPSHOT, parameters)

    def _recorded(self, query: LiteralString, parameters: dict[str, Any]) -> list[Recorded]:
        with (
            self.recorder.datastore.get_connection() as connection,
            connection.cursor(row_factory=tuple_row, binary=True) as cursor,
        ):
            return [
                recorded_from_row(row) for row in cursor.execute(query, parameters, prepare=True)
            ]


def _recorded_or_refusal(row: tuple[Any, ...]) -> Recorded | LedgerError:
    try:
        return recorded_from_row(row)
    except UnknownEvent:
        return NewerEvents()
    except MsgspecError:
        log.exception("store.unreadable_event at position %s", row[0])
        return InternalError()
