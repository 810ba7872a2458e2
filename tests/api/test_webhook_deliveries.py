"""Admins look into what came: pages of deliveries, and each with its payload."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from msgspec import Raw
from psycopg import AsyncConnection

from consumers.deliveries import keep
from ledger.payment_messages import PaymentMessage
from tests.api.room import Service, Tenant

ENDPOINTS = "/v1/webhook-endpoints"
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def _kept(service: Service, tenant: Tenant, endpoint: str, count: int) -> None:
    async def run() -> None:
        url = service.urls.app_url
        async with await AsyncConnection.connect(url, autocommit=True) as connection:
            await keep(connection, [(tenant.name, _message(endpoint, n)) for n in range(count)])

    asyncio.run(run())


def _message(endpoint: str, number: int) -> PaymentMessage:
    return PaymentMessage(
        id=f"dlv_{number}",
        endpoint=endpoint,
        provider="asaas",
        delivery=f"evt_1&{number}",
        type="PAYMENT_RECEIVED",
        # Two of each moment: the id tells them apart.
        received_at=NOON + timedelta(seconds=number // 2),
        payload=Raw(b'{"id":"evt_1","payment":{"value":94.50}}'),
        fetch="pay_1",
        unreadable="why" if number else None,
    )


def _endpoint(tenant: Tenant) -> str:
    made = tenant.admin.post(ENDPOINTS, {"provider": "stripe"})
    return str(made.body["id"])


def test_deliveries_are_listed_the_latest_first(service: Service, tenant: Tenant) -> None:
    endpoint, empty = _endpoint(tenant), _endpoint(tenant)
    _kept(service, tenant, endpoint, 5)
    path = f"{ENDPOINTS}/{endpoint}/deliveries"
    found, cursor = [], None
    for _ in range(3):
        page = tenant.admin.get(path, limit=2, **({"cursor": cursor} if cursor else {})).body
        found += page["data"]
        cursor = page["next_cursor"]
    assert cursor is None
    assert [row["id"] for row in found] == ["dlv_4", "dlv_3", "dlv_2", "dlv_1", "dlv_0"]
    assert found[-1] == {
        "id": "dlv_0",
        "endpoint": endpoint,
        "provider": "asaas",
        "delivery": "evt_1&0",
        "type": "PAYMENT_RECEIVED",
        "occurred_at": None,
        "received_at": "2026-11-21T12:00:00Z",
        "facts": 0,
        "fetch": "pay_1",
        "unreadable": None,
    }
    assert tenant.admin.get(f"{ENDPOINTS}/{empty}/deliveries").body["data"] == []


def test_a_delivery_is_shown_with_what_was_sent(service: Service, tenant: Tenant) -> None:
    endpoint = _endpoint(tenant)
    _kept(service, tenant, endpoint, 2)
    answer = tenant.admin.get(f"{ENDPOINTS}/{endpoint}/deliveries/dlv_1")
    assert answer.status == 200
    assert b'"payload":{"id":"evt_1","payment":{"value":94.50}}' in answer.raw
    assert answer.body["unreadable"] == "why"
    other = tenant.admin.get(f"{ENDPOINTS}/{_endpoint(tenant)}/deliveries/dlv_1")
    assert (other.status, other.code) == (404, "webhook_delivery_not_found")


def test_nobody_sees_the_deliveries_of_another_tenant(service: Service, tenant: Tenant) -> None:
    endpoint, stranger = _endpoint(tenant), service.tenant()
    _kept(service, tenant, endpoint, 1)
    for path in ("", "/dlv_0"):
        answer = stranger.admin.get(f"{ENDPOINTS}/{endpoint}/deliveries{path}")
        assert (answer.status, answer.code) == (404, "webhook_endpoint_not_found")
    stranger.close()


def test_a_cursor_of_another_list_is_refused(tenant: Tenant) -> None:
    for _ in range(2):
        endpoint = _endpoint(tenant)
    cursor = tenant.admin.get(ENDPOINTS, limit=1).body["next_cursor"]
    answer = tenant.admin.get(f"{ENDPOINTS}/{endpoint}/deliveries", cursor=cursor)
    assert (answer.status, answer.body["errors"][0]["field"]) == (422, "cursor")
