"""The whole ledger as it is stored, row by row, as fast as can be: for whoever checks it.

Rows come by COPY in PostgreSQL's binary format, whose bytes are those that the hash chain covers:
nothing is taken apart and put together again on the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from struct import Struct
from typing import Any, Final, LiteralString, NamedTuple

import psycopg
from psycopg import Connection
from psycopg.rows import tuple_row

from ledger.records import stream_id
from ledger.store import StoredSnapshot

SETTINGS = (
    "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET timezone = 'UTC'"
)
EXPORT = "SELECT pg_export_snapshot()"
IMPORT = "SET TRANSACTION SNAPSHOT {}"
COUNT: LiteralString = "SELECT count(*) FROM scrip.ledger_events WHERE "
COPY_ROWS: LiteralString = (
    "COPY (SELECT originator_id, originator_version, coalesce(notification_id, 0),"
    " coalesce(recorded_at, 'epoch'), hash, tenant, account, topic, subject, key, content, state"
    " FROM scrip.ledger_events WHERE {} ORDER BY originator_id, originator_version)"
    " TO STDOUT (FORMAT binary)"
)
SELECT_SNAPSHOTS: LiteralString = (
    "SELECT originator_id, version, format, state, position, recorded_at, hash"
    " FROM scrip.snapshots WHERE {} ORDER BY originator_id"
)
EVERYTHING: LiteralString = "true"
ONE_STREAM: LiteralString = "originator_id = %(stream)s"
# By stream, so that a row whose tenant was changed is read with its stream.
SOME_STREAMS: LiteralString = (
    "originator_id IN (SELECT originator_id FROM scrip.ledger_events"
    " WHERE (%(tenant)s::text IS NULL OR tenant = %(tenant)s)"
    " AND (%(account)s::text IS NULL OR account = %(account)s))"
)

SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0"
HEADER_LENGTH: Final = len(SIGNATURE) + 8
COLUMNS: Final = 12
YEAR_2000: Final = 946_684_800_000_000
"""From where PostgreSQL counts microseconds, in microseconds since 1970."""

_head = Struct(">hi16siqiqiqi32s")
_length = Struct(">i").unpack_from
HEAD_LENGTHS: Final = (COLUMNS, 16, 8, 8, 8)
HASH_LENGTH: Final = 32


class StoredRow(NamedTuple):
    """One row of the ledger as it is stored."""

    stream: bytes
    version: int
    position: int
    recorded_at: int
    """In microseconds since 1970."""
    hash: bytes
    fields: bytes
    """All that is left, as `chain.link_stored` takes it. `split` tells it apart."""

    def split(self) -> list[bytes | None]:
        """Return tenant, account, name, subject, key, content and state, None for NULL."""
        values: list[bytes | None] = []
        offset = 0
        while offset < len(self.fields):
            (length,) = _length(self.fields, offset)
            offset += 4
            values.append(None if length < 0 else self.fields[offset : offset + length])
            offset += max(length, 0)
        return values


class Reader:
    """The ledger and its snapshots at one moment, whatever is written meanwhile."""

    def __init__(
        self, rows: Connection[Any], snapshots: Connection[Any], where: LiteralString, values: Any
    ) -> None:
        """Read over two connections that see the same."""
        self._rows = rows
        self._snapshots = snapshots
        self._where = where
        self._values = values

    def count(self) -> int:
        """Return how many rows there are to read."""
        row = self._snapshots.execute(COUNT + self._where, self._values).fetchone()
        assert row is not None
        return int(row[0])

    def rows(self) -> Iterator[StoredRow]:
        """Yield all rows by stream and version."""
        query = COPY_ROWS.replace("{}", self._where)
        with self._rows.cursor().copy(query, self._values) as copy:
            skipped = HEADER_LENGTH
            for data in copy:
                row = _row(bytes(data), skipped)
                skipped = 0
                if row is not None:
                    yield row

    def snapshots(self) -> Iterator[StoredSnapshot]:
        """Yield all snapshots by stream."""
        query = SELECT_SNAPSHOTS.replace("{}", self._where)
        with self._snapshots.cursor("snapshots", binary=True) as cursor:
            cursor.itersize = 1_000
            for row in cursor.execute(query, self._values):
                names = StoredSnapshot.__struct_fields__
                yield StoredSnapshot(**dict(zip(names, row, strict=True)))


@contextmanager
def reading(url: str, tenant: str | None, account: str | None) -> Iterator[Reader]:
    """Open a reader of everything, or of what a tenant, an account, or both name."""
    values: dict[str, Any] = {"tenant": tenant, "account": account}
    where = EVERYTHING if tenant is None and account is None else SOME_STREAMS
    if tenant is not None and account is not None:
        where, values = ONE_STREAM, {"stream": stream_id(tenant, account)}
    with _connect(url) as rows, _connect(url) as snapshots:
        exported = rows.execute(EXPORT).fetchone()
        assert exported is not None
        snapshots.execute(psycopg.sql.SQL(IMPORT).format(psycopg.sql.Literal(exported[0])))
        yield Reader(rows, snapshots, where, values)


@contextmanager
def _connect(url: str) -> Iterator[Connection[Any]]:
    with psycopg.connect(url, autocommit=True, row_factory=tuple_row) as connection:
        connection.execute(SETTINGS)
        connection.autocommit = False
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        yield connection
        connection.rollback()


def _row(data: bytes, offset: int) -> StoredRow | None:
    """Return the row in one message of COPY; None for the end of it."""
    if len(data) < offset + _head.size:
        return None
    count, l0, stream, l1, version, l2, position, l3, recorded_at, length, digest = (
        _head.unpack_from(data, offset)
    )
    assert (count, l0, l1, l2, l3) == HEAD_LENGTHS
    end = offset + _head.size
    if length != HASH_LENGTH:  # As it can be in a table whose constraints are gone.
        end += max(length, 0) - HASH_LENGTH
        digest = b""
    return StoredRow(stream, version, position, recorded_at + YEAR_2000, digest, data[end:])
