"""Alerts over HTTP: in the audit trail, and in the way of no key."""

from __future__ import annotations

import pytest

from ledger.domain.commands import RaiseAlert
from ledger.records import Order, Recorded
from tests.api.room import Service, Tenant

FEATURE = "/v1/catalog/features/image"
KEY = "alert:unknown_price:stripe:session:cs_1:price_9"


@pytest.fixture
def alert(service: Service, tenant: Tenant) -> Recorded:
    """Raise an alert, as the worker does."""
    order = Order(
        tenant=tenant.name,
        account=None,
        command=RaiseAlert(code="unknown_price", subject="stripe:session:cs_1", price="price_9"),
        key=KEY,
        by="service:payments",
    )
    recorded = service.writer.submit(order).result(30).recorded
    assert recorded is not None
    return recorded


def test_an_alert_is_in_the_audit_trail(tenant: Tenant, alert: Recorded) -> None:
    at = alert.position
    found = tenant.admin.get("/v1/events", name="alert.raised.v1", position=at).body["data"]
    assert len(found) == 1
    (event,) = found
    assert event["data"] == {
        "code": "unknown_price",
        "subject": "stripe:session:cs_1",
        "price": "price_9",
    }
    assert (event["position"], event["account"]) == (str(at), None)
    assert (event["actor"], event["key"]) == ("service:payments", KEY)
    assert tenant.reader.get("/v1/events", name="alert.raised.v1").status == 403


def test_an_alert_shows_in_nothing_of_the_catalog(tenant: Tenant, alert: Recorded) -> None:
    assert alert.version == 1
    assert tenant.admin.put(FEATURE, {"name": "Image", "unit_price": "1"}).body["version"] == 1
    versions = tenant.reader.get(f"{FEATURE}/versions").body["data"]
    assert [version["version"] for version in versions] == [1]


@pytest.mark.usefixtures("alert")
def test_a_request_under_the_key_of_an_alert_is_refused_and_no_error(tenant: Tenant) -> None:
    answer = tenant.admin.put(FEATURE, {"name": "Image", "unit_price": "1"}, key=KEY)
    assert (answer.status, answer.code) == (422, "idempotency_mismatch")
    assert tenant.reader.get(FEATURE).code == "catalog_entry_not_found"
