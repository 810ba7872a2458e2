"""Usage: what an account spent, deduction by deduction, or summed up."""

from __future__ import annotations

from datetime import UTC
from functools import cache
from typing import Annotated
from zoneinfo import ZoneInfo, available_timezones

from msgspec import Meta
from psycopg.errors import InvalidParameterValue

from api.answers import UsageOut
from api.fields import Moment, Text, moment
from api.looking import Look, is_due, looking
from api.paging import PAGE_DEFAULT, Listed, PageQuery, bad_cursor, list_of, listed
from api.problems import ProjectionBehind, invalid
from api.read_answers import UsageEntry, UsageGroupOut, UsageReport, UsageSums
from api.receipts import price_out
from api.routes import READERS, Call, Read
from ledger.domain.errors import AccountNotFound, Overloaded, StoreUnavailable
from ledger.domain.values import format_decimal
from projections.balances import BALANCES
from projections.cursors import InvalidCursor
from projections.usage import USAGE
from projections.usage_queries import (
    BEGINNING,
    END,
    GroupBy,
    TooManyGroups,
    UsageFilter,
    UsageGroup,
    UsageRow,
    group_usage,
    list_usage,
    total_usage,
)

TABLES = (USAGE, BALANCES)


class UsageQuery(PageQuery, frozen=True, kw_only=True):
    """Which deductions to list or to sum up."""

    start: Annotated[Moment | None, Meta(description="Recorded at or after this time.")] = None
    end: Annotated[Moment | None, Meta(description="Recorded before this time.")] = None
    feature: Text | None = None
    model: Text | None = None
    actor: Text | None = None
    job: Text | None = None
    group_by: Annotated[GroupBy | None, Meta(description="Sum up. Then there are no pages.")] = None
    time_zone: Annotated[
        Text | None,
        Meta(
            description="IANA name of the zone that hours and days are cut in; UTC if not given.",
            examples=["America/Sao_Paulo"],
        ),
    ] = None


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _zone(query: UsageQuery) -> ZoneInfo | None:
    if query.time_zone is None:
        return None
    if query.group_by not in {"hour", "day"}:
        raise invalid("time_zone", "invalid", "goes with group_by=hour or group_by=day only")
    if query.time_zone not in _zones():
        raise invalid("time_zone", "invalid", "must be an IANA time zone, such as Europe/Lisbon")
    return ZoneInfo(query.time_zone)


def _where(query: UsageQuery) -> UsageFilter:
    start, end = moment(query.start) or BEGINNING, moment(query.end) or END
    if end <= start:
        raise invalid("end", "invalid", "must be after start")
    return UsageFilter(
        start=start,
        end=end,
        feature=query.feature,
        model=query.model,
        actor=query.actor,
        job=query.job,
    )


def _entry(row: UsageRow) -> UsageEntry:
    counts = (row.input_tokens, row.output_tokens, row.cached_input_tokens)
    metered = any(count is not None for count in counts)
    return UsageEntry(
        deduction=row.deduction,
        reservation=row.reservation,
        amount=format_decimal(row.amount),
        debt=format_decimal(row.debt),
        refunded=format_decimal(row.refunded),
        feature=row.feature,
        model=row.model,
        quantity=None if row.quantity is None else format_decimal(row.quantity),
        usage=UsageOut(*(count or 0 for count in counts)) if metered else None,
        price=price_out(row.price),
        provider_cost=None if row.provider_cost is None else format_decimal(row.provider_cost),
        actor=row.actor,
        job=row.job,
        metadata=row.metadata,
        occurred_at=row.occurred_at and row.occurred_at.astimezone(UTC),
        recorded_at=row.recorded_at.astimezone(UTC),
        position=str(row.position),
    )


def _sums(group: UsageGroup) -> dict[str, str | int]:
    amounts = {"amount", "refunded", "quantity"}
    return {
        name: format_decimal(getattr(group, name)) if name in amounts else getattr(group, name)
        for name in UsageSums.__struct_fields__
    }


async def _usage(call: Call, query: UsageQuery) -> Listed | UsageReport:
    where, zone = _where(query), _zone(query)
    if query.group_by is not None and (query.cursor or query.limit != PAGE_DEFAULT):
        name = "cursor" if query.cursor else "limit"
        raise invalid(name, "invalid", "does not go with group_by")
    async with looking(call, TABLES, query.position) as look:
        await is_due(call, look)  # Whether the account exists; time changes nothing in its usage.
        if query.group_by is not None:
            return await _report(call, look, where, query.group_by, zone)
        try:
            found = await list_usage(
                look.connection,
                call.tenant,
                call.path["account"],
                where,
                cursor=query.cursor,
                limit=query.limit,
            )
        except InvalidCursor as error:
            raise bad_cursor(error) from None
    entries = [_entry(row) for row in found.data]
    return listed(entries, found.next_cursor, look.position, look.as_of)


async def _report(
    call: Call, look: Look, where: UsageFilter, by: GroupBy, zone: ZoneInfo | None
) -> UsageReport:
    account = call.path["account"]
    try:
        groups = await group_usage(look.connection, call.tenant, account, where, by=by, zone=zone)
    except TooManyGroups as error:
        raise invalid("start", "invalid", str(error)) from None
    except InvalidParameterValue:
        raise invalid("time_zone", "invalid", "is not known to the database") from None
    total = await total_usage(look.connection, call.tenant, account, where)
    return UsageReport(
        group_by=by,
        time_zone=zone.key if zone else "UTC",
        data=[
            UsageGroupOut(
                start=group.start and group.start.astimezone(UTC),
                name=group.name,
                **_sums(group),  # type: ignore[arg-type]
            )
            for group in groups
        ],
        total=UsageSums(**_sums(total)),  # type: ignore[arg-type]
        position=str(look.position),
        as_of=look.as_of,
    )


READ_USAGE = Read(
    method="GET",
    path="/v1/accounts/{account}/usage",
    name="read_usage",
    tag="usage",
    summary="Read what an account spent: each deduction, newest first, or sums",
    details="With `group_by`, sums by hour or day of a time zone, or by feature, model or actor.",
    roles=READERS,
    refusals=(AccountNotFound, ProjectionBehind, Overloaded, StoreUnavailable),
    query=UsageQuery,
    handle=_usage,
    answer=(list_of(UsageEntry), UsageReport),
)
