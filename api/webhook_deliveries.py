"""What has come to a webhook endpoint, for admins to look into for as long as it is kept."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

from msgspec import Meta, Raw, Struct
from psycopg.rows import class_row, dict_row

from api.paging import bad_cursor
from api.problems import WebhookDeliveryNotFound, WebhookEndpointNotFound
from api.routes import ADMIN, Call, Read
from api.versions import EntriesPage
from api.webhook_endpoints import read_endpoint
from ledger.domain.facts import Provider
from projections.cursors import InvalidCursor, decode_cursor, page

LIST: Final = "webhook-deliveries"
SELECT_DELIVERIES = """
SELECT id, endpoint, provider, delivery, type, occurred_at, received_at, facts,
       to_fetch AS fetch, unreadable
FROM scrip.webhook_deliveries
WHERE tenant = %(tenant)s AND endpoint = %(endpoint)s
  AND (%(before)s::timestamptz IS NULL OR (received_at, id) < (%(before)s, %(before_id)s))
ORDER BY received_at DESC, id DESC LIMIT %(limit)s
"""
SELECT_DELIVERY = """
SELECT id, endpoint, provider, delivery, type, occurred_at, received_at, facts,
       to_fetch AS fetch, unreadable, payload
FROM scrip.webhook_deliveries
WHERE tenant = %(tenant)s AND endpoint = %(endpoint)s AND id = %(id)s
"""


class WebhookDelivery(Struct, frozen=True, kw_only=True):
    """One delivery whose sender was proven. The same body delivered again is the same one.

    `delivery` is the sender's id. `facts` is how many facts it told by itself; `fetch` names a
    payment that is asked for at its provider instead. `unreadable` says why nothing follows.
    """

    id: str
    endpoint: str
    provider: Provider
    delivery: str
    type: str
    occurred_at: datetime | None
    received_at: datetime
    facts: int
    fetch: str | None
    unreadable: str | None


class WebhookDeliveryRead(WebhookDelivery, frozen=True, kw_only=True):
    """One delivery, and what is kept of what was sent: no personal data."""

    payload: Annotated[dict[str, Any], Meta(description="Fields that may be personal are gone.")]


class WebhookDeliveryList(Struct, frozen=True, kw_only=True):
    """Deliveries, the latest first."""

    data: list[WebhookDelivery]
    next_cursor: str | None


async def _list(call: Call, query: EntriesPage) -> WebhookDeliveryList:
    before = None
    if query.cursor is not None:
        try:
            before = decode_cursor(LIST, tuple[datetime, str], query.cursor)
        except InvalidCursor as error:
            raise bad_cursor(error) from None
    moment, name = before or (None, None)
    asked = {
        "tenant": call.tenant,
        "endpoint": call.path["endpoint"],
        "before": moment,
        "before_id": name,
        "limit": query.limit + 1,
    }
    async with call.room.deps.pool.connection() as connection:
        await read_endpoint(connection, call.tenant, call.path["endpoint"])
        async with connection.cursor(row_factory=class_row(WebhookDelivery)) as cursor:
            rows = await (await cursor.execute(SELECT_DELIVERIES, asked)).fetchall()
    found = page(LIST, rows, query.limit, lambda row: (row.received_at, row.id))
    return WebhookDeliveryList(data=list(found.data), next_cursor=found.next_cursor)


async def _read(call: Call, _: object) -> dict[str, Any]:
    names = {"endpoint": call.path["endpoint"], "id": call.path["delivery"]}
    async with (
        call.room.deps.pool.connection() as connection,
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        await read_endpoint(connection, call.tenant, names["endpoint"])
        found = await cursor.execute(SELECT_DELIVERY, names | {"tenant": call.tenant})
        row = await found.fetchone()
    if row is None:
        raise WebhookDeliveryNotFound(endpoint=names["endpoint"], delivery=names["id"])
    shown: dict[str, Any] = row | {"payload": Raw(row["payload"])}
    return shown


LIST_DELIVERIES = Read(
    method="GET",
    path="/v1/webhook-endpoints/{endpoint}/deliveries",
    name="list_webhook_deliveries",
    tag="webhooks",
    summary="List what has come to a webhook endpoint, the latest first",
    details="As far as workers have seen it, and not longer than it is kept.",
    roles=ADMIN,
    refusals=(WebhookEndpointNotFound,),
    query=EntriesPage,
    handle=_list,
    answer=WebhookDeliveryList,
)
READ_DELIVERY = Read(
    method="GET",
    path="/v1/webhook-endpoints/{endpoint}/deliveries/{delivery}",
    name="read_webhook_delivery",
    tag="webhooks",
    summary="Read a delivery, and what was sent without personal data",
    roles=ADMIN,
    refusals=(WebhookEndpointNotFound, WebhookDeliveryNotFound),
    handle=_read,
    answer=WebhookDeliveryRead,
)
