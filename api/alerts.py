"""Alerts: what a person has to put right about payments."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final

from msgspec import Meta, Struct, structs
from psycopg import AsyncConnection
from psycopg.rows import class_row

from api.paging import bad_cursor
from api.problems import AlertNotFound
from api.routes import ADMIN, Call, Change, Read
from api.versions import EntriesPage
from projections.cursors import InvalidCursor, decode_cursor, page

LIST: Final = "alerts"

SELECT_PAGE = """
SELECT code, subject, price, fact, raised_at, resolved_at FROM scrip.payment_alerts
WHERE tenant = %(tenant)s
  AND (%(open)s::boolean IS NULL OR (resolved_at IS NULL) = %(open)s)
  AND (%(before)s::timestamptz IS NULL OR raised_at < %(before)s
       OR (raised_at = %(before)s
           AND (code, subject, price) > (%(code)s, %(subject)s, %(price)s)))
ORDER BY raised_at DESC, code, subject, price LIMIT %(rows)s
"""
RESOLVE = """
UPDATE scrip.payment_alerts SET resolved_at = coalesce(resolved_at, now())
WHERE tenant = %(tenant)s AND code = %(code)s AND subject = %(subject)s AND price = %(price)s
RETURNING code, subject, price, fact, raised_at, resolved_at
"""
Price = Annotated[
    str,
    Meta(max_length=255, description="The provider's price that it is about; empty if it is none."),
]


class AlertOut(Struct, frozen=True, kw_only=True):
    """Something that a person has to put right."""

    code: str
    subject: Annotated[str, Meta(description="The payment or the subscription it is about.")]
    price: Price
    fact: Annotated[str, Meta(description="The fact that it followed from.")]
    raised_at: datetime
    resolved_at: datetime | None


class AlertList(Struct, frozen=True, kw_only=True):
    """Alerts, the latest first."""

    data: list[AlertOut]
    next_cursor: str | None


class AlertsQuery(EntriesPage, frozen=True, kw_only=True):
    """Which alerts to list."""

    open: Annotated[
        bool | None, Meta(description="`true`: those not resolved; `false`: those resolved.")
    ] = None


class ResolveIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which of several alerts of one code and subject is meant."""

    price: Price = ""


async def _list(call: Call, query: AlertsQuery) -> AlertList:
    before, last = None, ("", "", "")
    if query.cursor is not None:
        try:
            before, *key = decode_cursor(LIST, tuple[datetime, str, str, str], query.cursor)
        except InvalidCursor as error:
            raise bad_cursor(error) from None
        last = (key[0], key[1], key[2])
    parameters = {
        "tenant": call.tenant,
        "open": query.open,
        "before": before,
        **dict(zip(("code", "subject", "price"), last, strict=True)),
        "rows": query.limit + 1,
    }
    async with (
        call.room.deps.pool.connection() as connection,
        connection.cursor(row_factory=class_row(AlertOut)) as cursor,
    ):
        # Never prepared: the plan for those that are open is not the plan for all.
        rows = await (await cursor.execute(SELECT_PAGE, parameters, prepare=False)).fetchall()
    found = page(
        LIST, rows, query.limit, lambda row: (row.raised_at, row.code, row.subject, row.price)
    )
    return AlertList(data=[_utc(row) for row in found.data], next_cursor=found.next_cursor)


async def _resolve(call: Call, connection: AsyncConnection[Any], asked: ResolveIn) -> AlertOut:
    named = {"code": call.path["code"], "subject": call.path["subject"], "price": asked.price}
    async with connection.cursor(row_factory=class_row(AlertOut)) as cursor:
        row = await (await cursor.execute(RESOLVE, {"tenant": call.tenant, **named})).fetchone()
    if row is None:
        raise AlertNotFound(**named)
    return _utc(row)


def _utc(alert: AlertOut) -> AlertOut:
    return structs.replace(
        alert,
        raised_at=alert.raised_at.astimezone(UTC),
        resolved_at=alert.resolved_at and alert.resolved_at.astimezone(UTC),
    )


LIST_ALERTS = Read(
    method="GET",
    path="/v1/alerts",
    name="list_alerts",
    tag="payments",
    summary="List what a person has to put right about payments, the latest first",
    roles=ADMIN,
    query=AlertsQuery,
    handle=_list,
    answer=AlertList,
)
RESOLVE_ALERT = Change(
    method="POST",
    path="/v1/alerts/{code}/{subject}/resolve",
    name="resolve_alert",
    tag="payments",
    summary="Note that an alert has been seen to",
    details="It changes nothing but the list. One that is resolved stays so.",
    roles=ADMIN,
    refusals=(AlertNotFound,),
    body=ResolveIn,
    handle=_resolve,
    answer=AlertOut,
)
