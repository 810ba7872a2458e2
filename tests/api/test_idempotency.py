"""A key is used once: the same again answers the same again, with one effect."""

from __future__ import annotations

import pytest

from api.app import ROUTES
from api.routes import Write
from tests.api.room import Tenant, fresh
from tests.api.writes import USES

WRITES = {route.name: route for route in ROUTES if isinstance(route, Write)}
OWN_HEADERS = {"x-request-id", "idempotent-replayed", "date"}


def test_no_route_that_changes_something_is_forgotten() -> None:
    assert set(USES) == set(WRITES)


@pytest.mark.parametrize("name", USES)
def test_the_same_request_again_gets_the_same_answer_and_has_one_effect(
    tenant: Tenant, name: str
) -> None:
    use, method = USES[name], WRITES[name].method
    account = tenant.account("10")
    use.prepare(tenant, account)
    key = fresh("k")
    first = tenant.admin.send(method, use.at(account), use.body, key=key)
    assert first.status in WRITES[name].statuses, first.body
    assert "idempotent-replayed" not in first.headers
    again = tenant.admin.send(method, use.at(account), use.body, key=key)
    assert (again.status, again.raw) == (first.status, first.raw)
    assert again.headers["idempotent-replayed"] == "true"
    kept = [
        {n: v for n, v in answer.headers.items() if n not in OWN_HEADERS}
        for answer in (first, again)
    ]
    assert kept[0] == kept[1]
    events = tenant.admin.get("/v1/events", key=key, position=first.body["position"]).body["data"]
    assert len(events) == 1


@pytest.mark.parametrize("name", USES)
def test_the_same_key_with_another_body_is_refused(tenant: Tenant, name: str) -> None:
    use, method = USES[name], WRITES[name].method
    account = tenant.account("10")
    use.prepare(tenant, account)
    first = tenant.admin.send(method, use.at(account), use.body, key="k")
    assert first.status < 300, first.body
    other = tenant.admin.send(method, use.at(account), use.other, key="k")
    assert (other.status, other.code) == (422, "idempotency_mismatch")


@pytest.mark.parametrize("name", USES)
@pytest.mark.parametrize("key", [None, "", "a b", "ä", "x" * 256])
def test_without_a_fit_key_nothing_is_done(tenant: Tenant, name: str, key: str | None) -> None:
    use, method = USES[name], WRITES[name].method
    headers = [] if key is None else [("Idempotency-Key", key.encode())]
    answer = tenant.admin.http.request(
        method, use.at("/v1/accounts/a"), json=use.body, headers=headers
    )
    assert answer.status_code == 400
    assert answer.json()["code"] == "idempotency_key_required"


def test_two_keys_in_one_request_are_refused(tenant: Tenant) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    answer = tenant.admin.http.put("/v1/accounts/a", json={}, headers=headers)
    assert answer.json()["code"] == "idempotency_key_required"


def test_a_refusal_uses_no_key_up(tenant: Tenant) -> None:
    account = tenant.account("1")
    body = {"amount": "5"}
    assert tenant.service.post(f"{account}/deductions", body, key="k").status == 402
    tenant.service.post(f"{account}/grants", {"amount": "9", "kind": "paid"})
    done = tenant.service.post(f"{account}/deductions", body, key="k")
    assert done.status == 201
    assert "idempotent-replayed" not in done.headers


def test_keys_of_two_accounts_and_of_two_tenants_are_different_keys(
    tenant: Tenant,
) -> None:
    first, second = tenant.account("1"), tenant.account("1")
    for account in (first, second):
        done = tenant.service.post(f"{account}/deductions", {"amount": "1"}, key="k")
        assert "idempotent-replayed" not in done.headers
