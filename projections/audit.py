"""Audit: an index of all events, by who, what, when and for whom. The events stay in the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, LiteralString

import msgspec
from msgspec import Struct
from psycopg import AsyncConnection
from psycopg.rows import tuple_row

from ledger.domain.events import subject_of
from ledger.reading import COLUMNS, recorded_from_row
from ledger.records import Recorded, stream_id
from projections.cursors import Page, decode_cursor, page
from projections.projection import Projection, Table, Target

CREATE = """
CREATE TABLE {audit_v2} (
    tenant text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    name text COLLATE "C" NOT NULL,
    by text COLLATE "C" NOT NULL,
    key text COLLATE "C",
    subject text COLLATE "C",
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, position)
)
"""
# The events of an account, and its keys and subjects, are found by the ledger's own indexes. These
# tell in which blocks of the table to look: they cost next to nothing to keep up, at any size.
INDEX_KINDS = """
CREATE INDEX ON {audit_v2} USING brin (name text_bloom_ops (n_distinct_per_range = 64),
    by text_bloom_ops (n_distinct_per_range = 256), recorded_at)
WITH (pages_per_range = 128, autosummarize = on)
"""
INDEX_IDS = """
CREATE INDEX ON {audit_v2} USING brin (key text_bloom_ops (n_distinct_per_range = 1000),
    subject text_bloom_ops (n_distinct_per_range = 1000))
WITH (pages_per_range = 16, autosummarize = on)
"""
FROM: LiteralString = """
FROM projections.audit_v2 AS a JOIN scrip.ledger_events AS e ON e.notification_id = a.position
WHERE a.tenant = %(tenant)s AND a.position > %(after)s AND a.position < %(before)s
    AND (%(name)s::text IS NULL OR a.name = %(name)s)
    AND (%(by)s::text IS NULL OR a.by = %(by)s)
    AND (%(key)s::text IS NULL OR a.key = %(key)s)
    AND (%(subject)s::text IS NULL OR a.subject = %(subject)s)
    AND (%(start)s::timestamptz IS NULL OR a.recorded_at >= %(start)s)
    AND (%(end)s::timestamptz IS NULL OR a.recorded_at < %(end)s)
"""
# In a stream, versions rise with positions: its own index has the order, and the cursor's place.
OF_ACCOUNT: LiteralString = """
    AND e.originator_id = %(stream)s
    AND (%(key)s::text IS NULL OR e.key = %(key)s)
    AND (%(subject)s::text IS NULL OR e.subject = %(subject)s)
"""
SEEN: LiteralString = """
    SELECT s.originator_version FROM scrip.ledger_events AS s
    WHERE s.notification_id = %(seen)s AND s.originator_id = %(stream)s
"""
OLDER: LiteralString = " AND e.originator_version < COALESCE((" + SEEN + "), 9223372036854775807)"
NEWER: LiteralString = " AND e.originator_version > COALESCE((" + SEEN + "), 0)"
POSITION_MAX = 2**63 - 1


class AuditRow(Struct, frozen=True, kw_only=True, gc=False):
    """What the index knows of an event."""

    tenant: str
    position: int
    name: str
    by: str
    key: str | None
    subject: str | None
    recorded_at: datetime


class AuditFilter(Struct, frozen=True, kw_only=True):
    """Which events are meant: recorded from `start` until before `end`, and with these properties.

    `name` is the event's permanent name, `by` who asked, `subject` the reservation or deduction.
    """

    account: str | None = None
    name: str | None = None
    by: str | None = None
    key: str | None = None
    subject: str | None = None
    start: datetime | None = None
    end: datetime | None = None


def fold(batch: Sequence[Recorded]) -> list[AuditRow]:
    """Return a row for each event, by position."""
    return [
        AuditRow(
            tenant=recorded.tenant,
            position=recorded.position,
            name=recorded.name,
            by=recorded.by,
            key=recorded.key,
            subject=subject_of(recorded.event),
            recorded_at=recorded.recorded_at,
        )
        for recorded in batch
    ]


def apply(target: Target, batch: Sequence[Recorded]) -> None:
    """Write what a batch of events changes."""
    target.insert("audit_v2", fold(batch))


AUDIT = Projection(
    name="audit",
    tables=(
        Table(
            name="audit_v2",
            key=("tenant", "position"),
            create=CREATE,
            indexes=(INDEX_KINDS, INDEX_IDS),
        ),
    ),
    apply=apply,
)


async def list_events(
    conn: AsyncConnection[Any],
    tenant: str,
    where: AuditFilter,
    *,
    newest_first: bool = True,
    cursor: str | None = None,
    limit: int = 100,
) -> Page[Recorded]:
    """Return a tenant's events in the order of their positions. Raises InvalidCursor."""
    list_name = "events-newest" if newest_first else "events-oldest"
    seen = decode_cursor(list_name, int, cursor) if cursor else None
    parameters = {
        **msgspec.structs.asdict(where),
        "tenant": tenant,
        "stream": stream_id(tenant, where.account) if where.account is not None else None,
        "seen": seen,
        "after": seen if seen is not None and not newest_first else 0,
        "before": seen if seen is not None and newest_first else POSITION_MAX,
        "rows": limit + 1,
    }
    query = _query(of_account=where.account is not None, newest_first=newest_first)
    async with conn.cursor(row_factory=tuple_row, binary=True) as rows:
        found = await (await rows.execute(query, parameters, prepare=False)).fetchall()
    return page(
        list_name, [recorded_from_row(row) for row in found], limit, lambda row: row.position
    )


def _query(*, of_account: bool, newest_first: bool) -> LiteralString:
    query: LiteralString = "SELECT " + COLUMNS + FROM
    order: LiteralString = "a.position"
    if of_account:
        query += OF_ACCOUNT + (OLDER if newest_first else NEWER)
        order = "e.originator_version"
    return query + " ORDER BY " + order + (" DESC" if newest_first else "") + " LIMIT %(rows)s"
