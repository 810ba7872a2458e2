"""Compare-and-append: one statement writes the events of a whole batch, or says which it may not.

Under one advisory lock a batch, taken before any position is drawn, so that positions are committed
in their own order and a reader that follows them never steps over one. Since the lock is held, what
the statement sees is what there is: a stale stream or a used key is told, never raised.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from eventsourcing.persistence import StoredEvent
from msgspec import Struct, field
from psycopg import Connection
from psycopg.rows import tuple_row

from ledger.chain import GENESIS, link

LOCK = "SELECT pg_advisory_xact_lock(7305804385211)"
"""The lock of whoever appends."""

APPEND = """
WITH batch AS (
    SELECT * FROM unnest(
        %(streams)b::uuid[], %(versions)b::bigint[], %(names)b::text[], %(states)b::bytea[],
        %(tenants)b::text[], %(accounts)b::text[], %(subjects)b::text[], %(keys)b::text[],
        %(contents)b::bytea[], %(times)b::timestamptz[], %(hashes)b::bytea[]
    ) WITH ORDINALITY
    AS t(
        stream, version, name, state, tenant, account, subject, key, content, recorded_at, hash,
        place
    )
), stale AS MATERIALIZED (
    SELECT stream
    FROM unnest(%(expected)b::uuid[], %(nexts)b::bigint[]) AS t(stream, next)
    WHERE t.next - 1 <> coalesce((
        SELECT max(e.originator_version) FROM scrip.ledger_events e
        WHERE e.originator_id = t.stream
    ), 0)
), used AS MATERIALIZED (
    SELECT stream, key, blocks
    FROM (
        SELECT stream, key, true AS blocks FROM batch WHERE key IS NOT NULL
        UNION ALL
        SELECT stream, key, false
        FROM unnest(%(probe_streams)b::uuid[], %(probe_keys)b::text[]) AS t(stream, key)
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
        AND NOT EXISTS (SELECT FROM stale WHERE stream = ANY(%(guards)b::uuid[]))
        AND NOT EXISTS (SELECT FROM used WHERE blocks AND stream = ANY(%(guards)b::uuid[]))
    ORDER BY place
    RETURNING notification_id
)
SELECT
    (SELECT array_agg(notification_id ORDER BY notification_id) FROM written),
    (SELECT array_agg(stream) FROM stale),
    (SELECT array_agg(stream) FROM used),
    (SELECT array_agg(key) FROM used)
"""

SELECT_LAST_HASHES = """
SELECT e.originator_id, e.hash
FROM unnest(%(streams)b::uuid[], %(versions)b::bigint[]) AS t(stream, version)
JOIN scrip.ledger_events e ON e.originator_id = t.stream AND e.originator_version = t.version
"""


class Rows(Struct, kw_only=True):
    """The rows of one batch, column by column, and what must be so for them to be written.

    `expected` maps each stream that was decided on to the version that must be free and follow the
    last one there. Where a stream among the `guards` is stale, or one of its own keys has been
    used, nothing is written at all. `probes` are keys of commands that were refused: only told
    whether they have been used.
    """

    streams: list[UUID] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    states: list[bytes] = field(default_factory=list)
    tenants: list[str] = field(default_factory=list)
    accounts: list[str | None] = field(default_factory=list)
    subjects: list[str | None] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    contents: list[bytes | None] = field(default_factory=list)
    times: list[datetime] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
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
        digest = link(
            previous,
            stream,
            version,
            recorded_at,
            name=name,
            state=state,
            tenant=tenant,
            account=account,
            subject=subject,
            key=key,
            content=content,
        )
        self.streams.append(stream)
        self.versions.append(version)
        self.names.append(name)
        self.states.append(state)
        self.tenants.append(tenant)
        self.accounts.append(account)
        self.subjects.append(subject)
        self.keys.append(key)
        self.contents.append(content)
        self.times.append(recorded_at)
        self.hashes.append(digest)
        return digest

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of APPEND."""
        return {
            "streams": self.streams,
            "versions": self.versions,
            "names": self.names,
            "states": self.states,
            "tenants": self.tenants,
            "accounts": self.accounts,
            "subjects": self.subjects,
            "keys": self.keys,
            "contents": self.contents,
            "times": self.times,
            "hashes": self.hashes,
            "expected": list(self.expected),
            "nexts": list(self.expected.values()),
            "guards": self.guards,
            "probe_streams": [stream for stream, _ in self.probes],
            "probe_keys": [key for _, key in self.probes],
        }


class Appended(Struct, frozen=True):
    """What an append did: the positions of the rows written, in order, and what was in the way."""

    positions: list[int]
    stale: frozenset[UUID]
    used: frozenset[tuple[UUID, str]]


def append(connection: Connection[Any], rows: Rows, *, locked: bool = False) -> Appended:
    """Write a batch in one transaction and one round trip.

    With `locked`, the caller's transaction holds the lock already and commits by itself.
    """
    with connection.cursor(row_factory=tuple_row) as cursor:
        if locked:
            cursor.execute(APPEND, rows.parameters(), prepare=True, binary=True)
        else:
            # The statements between two syncs of a pipeline are one transaction.
            with connection.pipeline():
                connection.execute(LOCK, prepare=True)
                cursor.execute(APPEND, rows.parameters(), prepare=True, binary=True)
        row = cursor.fetchone()
    assert row is not None
    positions, stale, used_streams, used_keys = row
    return Appended(
        positions or [],
        frozenset(stale or ()),
        frozenset(zip(used_streams or (), used_keys or (), strict=True)),
    )


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
