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
from ledger.records import Recorded
from projections.cursors import Page, decode_cursor, page
from projections.projection import Projection, Table, Target

CREATE = """
CREATE TABLE {audit_v1} (
    tenant text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    account text COLLATE "C",
    name text COLLATE "C" NOT NULL,
    by text COLLATE "C" NOT NULL,
    key text COLLATE "C",
    subject text COLLATE "C",
    reason text,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, position)
)
"""
INDEX_ACCOUNT = "CREATE INDEX ON {audit_v1} (tenant, account, position)"
INDEX_NAME = "CREATE INDEX ON {audit_v1} (tenant, name, position)"
INDEX_BY = "CREATE INDEX ON {audit_v1} (tenant, by, position)"
INDEX_KEY = "CREATE INDEX ON {audit_v1} (tenant, key) WHERE key IS NOT NULL"
INDEX_SUBJECT = "CREATE INDEX ON {audit_v1} (tenant, subject) WHERE subject IS NOT NULL"
INDEX_TIME = "CREATE INDEX ON {audit_v1} USING brin (recorded_at) WITH (pages_per_range = 32)"
INSERT = """
INSERT INTO {audit_v1} (tenant, position, account, name, by, key, subject, reason, recorded_at)
SELECT * FROM unnest(
    %(tenant)b::text[], %(position)b::bigint[], %(account)b::text[], %(name)b::text[],
    %(by)b::text[], %(key)b::text[], %(subject)b::text[], %(reason)b::text[],
    %(recorded_at)b::timestamptz[])
"""
WHERE = """
FROM projections.audit_v1 AS a JOIN scrip.ledger_events AS e ON e.notification_id = a.position
WHERE a.tenant = %(tenant)s AND a.position > %(after)s AND a.position < %(before)s
    AND (%(account)s::text IS NULL OR a.account = %(account)s)
    AND (%(name)s::text IS NULL OR a.name = %(name)s)
    AND (%(by)s::text IS NULL OR a.by = %(by)s)
    AND (%(key)s::text IS NULL OR a.key = %(key)s)
    AND (%(subject)s::text IS NULL OR a.subject = %(subject)s)
    AND (%(start)s::timestamptz IS NULL OR a.recorded_at >= %(start)s)
    AND (%(end)s::timestamptz IS NULL OR a.recorded_at < %(end)s)
"""
SELECT_NEWEST: LiteralString = (
    "SELECT " + COLUMNS + WHERE + " ORDER BY a.position DESC LIMIT %(rows)s"
)
SELECT_OLDEST: LiteralString = "SELECT " + COLUMNS + WHERE + " ORDER BY a.position LIMIT %(rows)s"
POSITION_MAX = 2**63 - 1


class AuditRow(Struct, frozen=True, kw_only=True, gc=False):
    """What the index knows of an event."""

    tenant: str
    position: int
    account: str | None
    name: str
    by: str
    key: str | None
    subject: str | None
    reason: str | None
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
            account=recorded.account,
            name=recorded.name,
            by=recorded.by,
            key=recorded.key,
            subject=subject_of(recorded.event),
            reason=recorded.reason,
            recorded_at=recorded.recorded_at,
        )
        for recorded in batch
    ]


def apply(target: Target, batch: Sequence[Recorded]) -> None:
    """Write what a batch of events changes."""
    target.change(INSERT, fold(batch))


AUDIT = Projection(
    name="audit",
    tables=(
        Table(
            name="audit_v1",
            key=("tenant", "position"),
            create=CREATE,
            indexes=(INDEX_ACCOUNT, INDEX_NAME, INDEX_BY, INDEX_KEY, INDEX_SUBJECT, INDEX_TIME),
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
        "after": seen if seen is not None and not newest_first else 0,
        "before": seen if seen is not None and newest_first else POSITION_MAX,
        "rows": limit + 1,
    }
    query = SELECT_NEWEST if newest_first else SELECT_OLDEST
    async with conn.cursor(row_factory=tuple_row, binary=True) as rows:
        found = await (await rows.execute(query, parameters, prepare=False)).fetchall()
    return page(
        list_name, [recorded_from_row(row) for row in found], limit, lambda row: row.position
    )
