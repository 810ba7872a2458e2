"""Events: the audit trail. Who did what, when, why, and to which account."""

from __future__ import annotations

from datetime import UTC
from typing import Annotated, Literal

from msgspec import Meta

from api.fields import Moment, Name, Text, moment
from api.looking import is_due, looking
from api.paging import Listed, PageQuery, bad_cursor, list_of, listed
from api.problems import ProjectionBehind
from api.read_answers import EventOut
from api.routes import ADMIN, READERS, Call, Read
from ledger.codec import UnknownEvent
from ledger.domain.errors import AccountNotFound, NewerEvents, Overloaded, StoreUnavailable
from ledger.records import Recorded
from ledger.rendering import render
from projections.audit import AUDIT, AuditFilter, list_events
from projections.balances import BALANCES
from projections.cursors import InvalidCursor

TABLES = (AUDIT, BALANCES)


class EventsQuery(PageQuery, frozen=True, kw_only=True):
    """Which events to list."""

    name: Annotated[Text | None, Meta(description="The event's name, in full.")] = None
    actor: Annotated[Text | None, Meta(description="On whose authority.")] = None
    key: Annotated[Text | None, Meta(description="The Idempotency-Key of the command.")] = None
    subject: Annotated[
        Text | None, Meta(description="The reservation or direct deduction it is about.")
    ] = None
    start: Annotated[Moment | None, Meta(description="Recorded at or after this time.")] = None
    end: Annotated[Moment | None, Meta(description="Recorded before this time.")] = None
    order: Literal["newest", "oldest"] = "newest"


class AllEventsQuery(EventsQuery, frozen=True, kw_only=True):
    """Which events of all accounts to list."""

    account: Name | None = None


def _event(recorded: Recorded) -> EventOut:
    occurred_at = recorded.occurred_at
    return EventOut(
        position=str(recorded.position),
        account=recorded.account,
        version=recorded.version,
        name=recorded.name,
        recorded_at=recorded.recorded_at.astimezone(UTC),
        occurred_at=occurred_at and occurred_at.astimezone(UTC),
        actor=recorded.by,
        reason=recorded.reason,
        key=recorded.key,
        data=render(recorded.event),
    )


async def _of_account(call: Call, query: EventsQuery) -> Listed:
    return await _list(call, query, call.path["account"])


async def _of_all(call: Call, query: AllEventsQuery) -> Listed:
    return await _list(call, query, query.account)


async def _list(call: Call, query: EventsQuery, account: str | None) -> Listed:
    where = AuditFilter(
        account=account,
        name=query.name,
        by=query.actor,
        key=query.key,
        subject=query.subject,
        start=moment(query.start),
        end=moment(query.end),
    )
    async with looking(call, TABLES, query.position) as look:
        if "account" in call.path:
            await is_due(call, look)  # Whether the account exists; time makes no events.
        try:
            found = await list_events(
                look.connection,
                call.tenant,
                where,
                newest_first=query.order == "newest",
                cursor=query.cursor,
                limit=query.limit,
            )
        except InvalidCursor as error:
            raise bad_cursor(error) from None
        except UnknownEvent as error:
            raise NewerEvents from error
    events = [_event(recorded) for recorded in found.data]
    return listed(events, found.next_cursor, look.position, look.as_of)


REFUSALS = (ProjectionBehind, NewerEvents, Overloaded, StoreUnavailable)
EventList = list_of(EventOut)
LIST_ACCOUNT_EVENTS = Read(
    method="GET",
    path="/v1/accounts/{account}/events",
    name="list_account_events",
    tag="events",
    summary="List the events of an account: how its balance came about",
    roles=READERS,
    refusals=(AccountNotFound, *REFUSALS),
    query=EventsQuery,
    handle=_of_account,
    answer=EventList,
)
LIST_EVENTS = Read(
    method="GET",
    path="/v1/events",
    name="list_events",
    tag="events",
    summary="List the events of all accounts and of the tenant itself: the audit trail",
    roles=ADMIN,
    refusals=REFUSALS,
    query=AllEventsQuery,
    handle=_of_all,
    answer=EventList,
)
