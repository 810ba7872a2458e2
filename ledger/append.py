"""Compare-and-append: one statement writes the events of a whole batch, or says which it may not.

Under one advisory lock a batch, taken before any position is drawn, so that positions are committed
in their own order and a reader that follows them never steps over one. Since the lock is held, what
the statement sees is what there is: a stale stream or a used key is told, never raised.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from struct import Struct as Layout
from typing import Any, Final
from uuid import UUID

from eventsourcing.persistence import StoredEvent
from msgspec import Struct, field
from psycopg import Connection
from psycopg.pq.abc import PGresult
from psycopg.rows import tuple_row

from ledger.chain import GENESIS, link, microseconds
from ledger.wire import ABSENT, Flight, Statement, Step, array, cell, elements, prepare, texts

LOCK: Final = "SELECT pg_advisory_xact_lock(7305804385211)"
"""The lock of whoever appends."""

APPEND: Final = """
WITH batch AS (
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) WITH ORDINALITY
    AS t(
        stream, version, tenant, account, name, subject, key, content, state, recorded_at, hash,
        place
    )
), stale AS MATERIALIZED (
    SELECT stream
    FROM unnest($12, $13) AS t(stream, next)
    WHERE t.next - 1 <> coalesce((
        SELECT max(e.originator_version) FROM scrip.ledger_events e
        WHERE e.originator_id = t.stream
    ), 0)
), used AS MATERIALIZED (
    SELECT stream, key, blocks
    FROM (
        SELECT stream, key, true AS blocks FROM batch WHERE key IS NOT NULL
        UNION ALL
        SELECT stream, key, false FROM unnest($15, $16) AS t(stream, key)
    ) AS asked
    WHERE (
        SELECT e.originator_version FROM scrip.ledger_events e
        WHERE e.originator_id = asked.stream AND e.key = asked.key
    ) IS NOT NULL
), written AS (
    INSERT INTO scrip.ledger_events (
        originator_id, originator_version, topic, state, tenant, account, subject, key, content,
        recorded_at, hash
    )
    SELECT stream, version, name, state, tenant, account, subject, key, content, recorded_at, hash
    FROM batch
    WHERE stream NOT IN (SELECT stream FROM stale)
        AND stream NOT IN (SELECT stream FROM used WHERE blocks)
        AND NOT EXISTS (SELECT FROM stale WHERE stream = ANY($14))
        AND NOT EXISTS (SELECT FROM used WHERE blocks AND stream = ANY($14))
    ORDER BY place
    RETURNING notification_id
)
SELECT
    (SELECT array_agg(notification_id ORDER BY notification_id) FROM written),
    (SELECT array_agg(stream) FROM stale),
    (SELECT array_agg(stream) FROM used),
    (SELECT array_agg(key) FROM used)
"""

_LOCK = Statement("scrip_lock", LOCK)
_APPEND = Statement(
    "scrip_append",
    APPEND,
    (
        "uuid[]",
        "bigint[]",
        "text[]",
        "text[]",
        "text[]",
        "text[]",
        "text[]",
        "bytea[]",
        "bytea[]",
        "timestamptz[]",
        "bytea[]",
        "uuid[]",
        "bigint[]",
        "uuid[]",
        "uuid[]",
        "text[]",
    ),
)
UUIDS, BIGINTS, TEXTS, BYTEAS, TIMES = 2950, 20, 25, 17, 1184
"""OIDs of the elements' types: PostgreSQL never changes those of its own."""

COLUMNS = (UUIDS, BIGINTS, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, BYTEAS, BYTEAS, TIMES, BYTEAS)
"""The types of a row's cells, in their order."""

SELECT_LAST_HASHES = """
SELECT e.originator_id, e.hash
FROM unnest(%(streams)b::uuid[], %(versions)b::bigint[]) AS t(stream, version)
JOIN scrip.ledger_events e ON e.originator_id = t.stream AND e.originator_version = t.version
"""

SINCE_2000: Final = microseconds(datetime(2000, 1, 1, tzinfo=UTC))
"""What PostgreSQL counts its times from, in microseconds since 1970."""

_number = Layout(">iq").pack
_BIGINT_BYTES, _UUID_BYTES, _HASH_BYTES = 8, b"\0\0\0\x10", b"\0\0\0\x20"


def _text(value: str | None) -> bytes:
    return ABSENT if value is None else cell(value.encode())


_frequent = lru_cache(maxsize=1_024)(_text)
"""The cells of what there are few of: names of events, tenants."""


@lru_cache(maxsize=16)
def _time(recorded_at: datetime) -> tuple[int, bytes]:
    """Return a time as it is hashed, and as a cell. Most rows of a batch have the same."""
    time = microseconds(recorded_at)
    return time, _number(_BIGINT_BYTES, time - SINCE_2000)


class Rows(Struct, kw_only=True):
    """The rows of one batch, and what must be so for them to be written.

    Rows are cells as PostgreSQL takes them: what is hashed is what is sent. `expected` maps each
    stream that was decided on to the version that must be free and follow the last one there. Where
    a stream among the `guards` is stale, or one of its own keys has been used, nothing is written
    at all. `probes` are keys of commands that were refused: only told whether they have been used.
    """

    cells: list[tuple[bytes, ...]] = field(default_factory=list)
    expected: dict[UUID, int] = field(default_factory=dict)
    guards: list[UUID] = field(default_factory=list)
    probes: list[tuple[UUID, str]] = field(default_factory=list)

    def add(
        self,
        previous: bytes,
        stream: UUID,
        version: int,
        *,
        name: str,
        state: bytes,
        recorded_at: datetime,
        tenant: str = "",
        account: str | None = None,
        subject: str | None = None,
        key: str | None = None,
        content: bytes | None = None,
    ) -> bytes:
        """Add a row after the one whose hash is `previous`, and return its own hash."""
        raw = stream.bytes
        time, time_cell = _time(recorded_at)
        fields = (
            _frequent(tenant),
            _text(account),
            _frequent(name),
            _text(subject),
            _text(key),
            ABSENT if content is None else cell(content),
            cell(state),
        )
        digest = link(previous, raw, version, time, b"".join(fields))
        self.cells.append(
            (
                _UUID_BYTES + raw,
                _number(_BIGINT_BYTES, version),
                *fields,
                time_cell,
                _HASH_BYTES + digest,
            )
        )
        return digest

    def __len__(self) -> int:
        """Return how many rows there are."""
        return len(self.cells)

    def parameters(self) -> list[bytes]:
        """Return the parameters of APPEND."""
        columns = zip(*self.cells, strict=True) if self.cells else [()] * len(COLUMNS)
        return [
            *map(array, COLUMNS, columns),
            array(UUIDS, [_UUID_BYTES + stream.bytes for stream in self.expected]),
            array(BIGINTS, [_number(_BIGINT_BYTES, next_) for next_ in self.expected.values()]),
            array(UUIDS, [_UUID_BYTES + stream.bytes for stream in self.guards]),
            array(UUIDS, [_UUID_BYTES + stream.bytes for stream, _ in self.probes]),
            array(TEXTS, [_text(key) for _, key in self.probes]),
        ]


class Appended(Struct, frozen=True):
    """What an append did: the positions of the rows written, in order, and what was in the way."""

    positions: list[int]
    stale: frozenset[UUID]
    used: frozenset[tuple[UUID, str]]


class Append:
    """A batch on its way into the ledger."""

    def __init__(self, connection: Connection[Any], rows: Rows, *, locked: bool = False) -> None:
        """Send a batch: one transaction, one round trip, not waited for.

        With `locked`, the caller's transaction holds the lock already and commits by itself.
        """
        steps = [Step(_APPEND, rows.parameters())]
        self.flight = Flight(connection, steps if locked else [Step(_LOCK), *steps])

    def land(self) -> Appended:
        """Wait until it is committed, and return what it did."""
        return _appended(self.flight.land())

    def result(self) -> Appended:
        """Return what it did; its flight has come home."""
        return _appended(self.flight.result())


def prepare_append(connection: Connection[Any]) -> None:
    """Have a connection know the statements of an append, so that sending one never waits."""
    for statement in (_LOCK, _APPEND):
        prepare(connection, statement)


def _appended(row: PGresult) -> Appended:
    used = zip(_streams(row.get_value(0, 2)), texts(row.get_value(0, 3)), strict=True)
    return Appended(
        elements(">iq", row.get_value(0, 0)),
        frozenset(_streams(row.get_value(0, 1))),
        frozenset(used),
    )


def _streams(value: bytes | None) -> list[UUID]:
    return [UUID(bytes=raw) for raw in elements(">i16s", value)]


def rows_of(connection: Connection[Any], events: Sequence[StoredEvent]) -> Rows:
    """Return rows for the library's own stored events, which carry no tenant and no key."""
    firsts: dict[UUID, int] = {}
    for event in events:
        assert isinstance(event.originator_id, UUID)
        firsts.setdefault(event.originator_id, event.originator_version)
    parameters = {"streams": list(firsts), "versions": [first - 1 for first in firsts.values()]}
    with connection.cursor(row_factory=tuple_row) as cursor:
        previous: dict[Any, bytes] = dict(cursor.execute(SELECT_LAST_HASHES, parameters).fetchall())
    now = datetime.now(UTC)
    rows = Rows(expected=firsts)
    for event in events:
        stream = event.originator_id
        assert isinstance(stream, UUID)
        previous[stream] = rows.add(
            previous.get(stream, GENESIS),
            stream,
            event.originator_version,
            name=event.topic,
            state=event.state,
            recorded_at=now,
        )
    return rows
