"""What was spent, on what, by whom and when: rows, and sums that add up to the range's total."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from ledger.domain.entities import Price
from projections.cursors import Page, decode_cursor, page

GroupBy = Literal["hour", "day", "feature", "model", "actor"]
GROUPS_MAX = 10_000
"""Groups that one answer may have: all hours of a year, and more."""
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
END = datetime(9999, 12, 31, 23, tzinfo=UTC)
POSITION_MAX = 2**63 - 1
HOUR = timedelta(hours=1)

SELECT_PAGE = """
SELECT tenant, account, deduction, reservation, amount, debt, refunded, feature, model, quantity,
    input_tokens, output_tokens, cached_input_tokens, price_version, price, provider_cost, actor,
    job, metadata, occurred_at, recorded_at, position
FROM projections.usage_v1
WHERE tenant = %(tenant)s AND account = %(account)s
    AND recorded_at >= %(start)s AND recorded_at < %(end)s
    AND (recorded_at, position) < (%(before_at)s, %(before)s)
    AND (%(feature)s::text IS NULL OR feature = %(feature)s)
    AND (%(model)s::text IS NULL OR model = %(model)s)
    AND (%(actor)s::text IS NULL OR actor = %(actor)s)
    AND (%(job)s::text IS NULL OR job = %(job)s)
ORDER BY recorded_at DESC, position DESC LIMIT %(rows)s
"""
# Whole hours come from the roll-up; the range's ragged ends come from the rows, and so do hours
# that the zone's days (or hours, where its offset is not whole) cut in two. Every query names the
# tables in the order in which a rebuild locks them.
SELECT_BY_TIME = """
WITH rows AS NOT MATERIALIZED (
    SELECT recorded_at, amount, refunded, quantity, input_tokens, output_tokens, cached_input_tokens
    FROM projections.usage_v1
    WHERE tenant = %(tenant)s AND account = %(account)s
        AND (%(feature)s::text IS NULL OR feature = %(feature)s)
        AND (%(model)s::text IS NULL OR model = %(model)s)
        AND (%(actor)s::text IS NULL OR actor = %(actor)s)
        AND (%(job)s::text IS NULL OR job = %(job)s)
), hours AS (
    SELECT h.*, date_trunc(%(by)s, h.hour, %(zone)s) AS start, date_trunc(
        %(by)s, h.hour + interval '1 hour' - interval '1 microsecond', %(zone)s) AS last_start
    FROM projections.usage_hours_v1 AS h
    WHERE tenant = %(tenant)s AND account = %(account)s
        AND hour >= %(first_hour)s AND hour < %(last_hour)s
        AND (%(feature)s::text IS NULL OR feature = %(feature)s)
        AND (%(model)s::text IS NULL OR model = %(model)s)
        AND (%(actor)s::text IS NULL OR actor = %(actor)s)
), parts AS (
    SELECT date_trunc(%(by)s, recorded_at, %(zone)s) AS start, amount, refunded, quantity,
        input_tokens, output_tokens, cached_input_tokens, 1 AS count
    FROM rows
    WHERE (recorded_at >= %(start)s AND recorded_at < %(first_hour)s)
        OR (recorded_at >= %(last_hour)s AND recorded_at < %(end)s)
    UNION ALL
    SELECT date_trunc(%(by)s, r.recorded_at, %(zone)s), r.amount, r.refunded, r.quantity,
        r.input_tokens, r.output_tokens, r.cached_input_tokens, 1
    FROM (SELECT DISTINCT hour FROM hours WHERE start <> last_start) AS cut
    JOIN rows AS r ON r.recorded_at >= cut.hour AND r.recorded_at < cut.hour + interval '1 hour'
    UNION ALL
    SELECT start, amount, refunded, quantity, input_tokens, output_tokens, cached_input_tokens,
        count
    FROM hours WHERE start = last_start
)
SELECT start, NULL AS name, sum(amount) AS amount, sum(refunded) AS refunded,
    coalesce(sum(quantity), 0) AS quantity, coalesce(sum(input_tokens), 0) AS input_tokens,
    coalesce(sum(output_tokens), 0) AS output_tokens,
    coalesce(sum(cached_input_tokens), 0) AS cached_input_tokens, sum(count) AS count
FROM parts GROUP BY start ORDER BY start LIMIT %(rows)s
"""
SELECT_BY_NAME = """
WITH parts AS (
    SELECT feature, model, actor, amount, refunded, quantity, input_tokens, output_tokens,
        cached_input_tokens, 1 AS count
    FROM projections.usage_v1
    WHERE tenant = %(tenant)s AND account = %(account)s
        AND ((recorded_at >= %(start)s AND recorded_at < %(first_hour)s)
            OR (recorded_at >= %(last_hour)s AND recorded_at < %(end)s))
        AND (%(job)s::text IS NULL OR job = %(job)s)
    UNION ALL
    SELECT feature, model, actor, amount, refunded, quantity, input_tokens, output_tokens,
        cached_input_tokens, count
    FROM projections.usage_hours_v1
    WHERE tenant = %(tenant)s AND account = %(account)s
        AND hour >= %(first_hour)s AND hour < %(last_hour)s
)
SELECT NULL::timestamptz AS start,
    CASE %(by)s::text WHEN 'feature' THEN feature WHEN 'model' THEN model WHEN 'actor' THEN actor
    END AS name, coalesce(sum(amount), 0) AS amount, coalesce(sum(refunded), 0) AS refunded,
    coalesce(sum(quantity), 0) AS quantity, coalesce(sum(input_tokens), 0) AS input_tokens,
    coalesce(sum(output_tokens), 0) AS output_tokens,
    coalesce(sum(cached_input_tokens), 0) AS cached_input_tokens, sum(count) AS count
FROM parts
WHERE (%(feature)s::text IS NULL OR feature = %(feature)s)
    AND (%(model)s::text IS NULL OR model = %(model)s)
    AND (%(actor)s::text IS NULL OR actor = %(actor)s)
GROUP BY name ORDER BY name LIMIT %(rows)s
"""


class TooManyGroups(ValueError):
    """The range holds more groups than one answer may have: ask for a shorter one."""


class UsageRow(Struct, frozen=True, kw_only=True):
    """One deduction. Amounts in micro-credits, `quantity` in millionths.

    The counts are what this deduction added; `price` is how its amount came about.
    """

    tenant: str
    account: str
    deduction: str
    reservation: str | None
    amount: int
    debt: int
    refunded: int
    feature: str | None
    model: str | None
    quantity: int | None
    input_tokens: int | None
    output_tokens: int | None
    cached_input_tokens: int | None
    price_version: int | None
    price: Price | None
    provider_cost: int | None
    actor: str | None
    job: str | None
    metadata: dict[str, str]
    occurred_at: datetime | None
    recorded_at: datetime
    position: int


class UsageFilter(Struct, frozen=True, kw_only=True):
    """Which deductions are meant: recorded from `start` until before `end`, and of these names."""

    start: datetime = BEGINNING
    end: datetime = END
    feature: str | None = None
    model: str | None = None
    actor: str | None = None
    job: str | None = None


class UsageGroup(Struct, frozen=True, kw_only=True):
    """The sums of one group: of the hour or day that begins at `start`, or of one name."""

    start: datetime | None = None
    name: str | None = None
    amount: int = 0
    refunded: int = 0
    quantity: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    count: int = 0


async def list_usage(
    conn: AsyncConnection[Any],
    tenant: str,
    account: str,
    where: UsageFilter,
    *,
    cursor: str | None = None,
    limit: int = 100,
) -> Page[UsageRow]:
    """Return an account's deductions, newest first. Raises InvalidCursor."""
    at, before = where.end, POSITION_MAX
    if cursor:
        at, before = decode_cursor("usage", tuple[datetime, int], cursor)
    parameters = {
        **msgspec.structs.asdict(where),
        "tenant": tenant,
        "account": account,
        "before_at": at,
        "before": before,
        "rows": limit + 1,
    }
    async with conn.cursor(row_factory=dict_row) as rows:
        found = await (await rows.execute(SELECT_PAGE, parameters, prepare=False)).fetchall()
    return page(
        "usage",
        msgspec.convert(found, list[UsageRow]),
        limit,
        lambda row: (row.recorded_at, row.position),
    )


async def group_usage(
    conn: AsyncConnection[Any],
    tenant: str,
    account: str,
    where: UsageFilter,
    *,
    by: GroupBy,
    zone: ZoneInfo | None = None,
) -> list[UsageGroup]:
    """Return the sums by hour or day of a zone (default UTC), or by name; without empty ones.

    The groups add up to `total_usage` of the same filter, in any zone. Raises TooManyGroups.
    """
    query = SELECT_BY_TIME if by in {"hour", "day"} else SELECT_BY_NAME
    parameters = {
        **_parameters(tenant, account, where),
        "by": by,
        "zone": zone.key if zone else "UTC",
        "rows": GROUPS_MAX + 1,
    }
    async with conn.cursor(row_factory=dict_row) as cursor:
        found = await (await cursor.execute(query, parameters, prepare=False)).fetchall()
    if len(found) > GROUPS_MAX:
        raise TooManyGroups(f"there are more than {GROUPS_MAX} groups; ask for a shorter range")
    return _groups(found)


async def total_usage(
    conn: AsyncConnection[Any], tenant: str, account: str, where: UsageFilter
) -> UsageGroup:
    """Return the sums over all deductions that are meant; zeros if there are none."""
    parameters = {**_parameters(tenant, account, where), "by": "total", "rows": 1}
    async with conn.cursor(row_factory=dict_row) as cursor:
        found = await (await cursor.execute(SELECT_BY_NAME, parameters, prepare=False)).fetchall()
    return next(iter(_groups(found)), UsageGroup())


def _parameters(tenant: str, account: str, where: UsageFilter) -> dict[str, Any]:
    """Return a query's parameters, with the whole hours that lie inside the range.

    There are none if a job is asked for, which the roll-up does not tell apart: rows are read then.
    """
    first_hour = _whole_hour(where.start)
    if first_hour < where.start:
        first_hour += HOUR
    last_hour = _whole_hour(where.end)
    if first_hour >= last_hour or where.job is not None:
        first_hour = last_hour = where.end
    return {
        **msgspec.structs.asdict(where),
        "tenant": tenant,
        "account": account,
        "first_hour": first_hour,
        "last_hour": last_hour,
    }


def _whole_hour(when: datetime) -> datetime:
    return when.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _groups(found: Sequence[dict[str, Any]]) -> list[UsageGroup]:
    # Sums are exact numerics, and whole.
    return [
        UsageGroup(
            start=row["start"],
            name=row["name"],
            **{name: int(row[name]) for name in UsageGroup.__struct_fields__[2:]},
        )
        for row in found
    ]
