"""Who may do what: every role on every route, and no tenant sees another."""

from __future__ import annotations

import pytest

from api.app import ROUTES
from api.routes import Read, Route, Write
from tests.api.room import Role, Service, Tenant
from tests.api.writes import USES

OPEN = {"live", "ready", "metrics"}
PROVEN = {"take_webhook"}
"""Whoever sends proves it by a signature, and has no key."""
READS = {
    "list_accounts",
    "read_account",
    "read_balance",
    "list_grants",
    "read_grant",
    "list_reservations",
    "read_reservation",
    "read_usage",
    "list_account_events",
    "list_features",
    "read_feature",
    "list_feature_versions",
    "list_rate_cards",
    "read_rate_card",
    "list_rate_card_versions",
    "read_refund_policy",
    "diff_feature",
    "diff_rate_card",
    "list_plans",
    "read_plan",
    "list_plan_versions",
    "diff_plan",
    "list_packs",
    "read_pack",
    "list_pack_versions",
    "diff_pack",
    "read_referral_reward",
    "read_link",
    "list_links",
    "read_referrer",
}
SPENDING = {
    "put_account",
    "create_grant",
    "create_reservation",
    "capture_reservation",
    "release_reservation",
    "extend_reservation",
    "create_deduction",
    "create_refund",
    "batch",
    "quote",
    "put_link",
    "delete_link",
    "create_account_key",
    "revoke_account_key",
    "put_referrer",
    "create_checkout",
}
ADMIN_ONLY = {
    "revoke_grant",
    "create_adjustment",
    "list_events",
    "put_feature",
    "put_rate_card",
    "put_refund_policy",
    "put_plan",
    "put_pack",
    "put_referral_reward",
    "create_webhook_endpoint",
    "list_webhook_endpoints",
    "read_webhook_endpoint",
    "change_webhook_endpoint",
    "delete_webhook_endpoint",
    "add_webhook_secret",
    "remove_webhook_secret",
    "list_webhook_deliveries",
    "read_webhook_delivery",
    "list_users",
    "list_payments",
    "read_payment",
    "list_alerts",
    "resolve_alert",
    "put_provider",
    "read_provider",
    "delete_provider",
}
END_USERS = {"read_my_credits"}
MAY: dict[Role, set[str]] = {
    "reader": READS,
    "service": READS | SPENDING,
    "admin": READS | SPENDING | ADMIN_ONLY,
}
BODIES: dict[str, object] = {
    "batch": {"commands": []},
    "quote": {"amount": "1"},
    "create_webhook_endpoint": {"provider": "users"},
    "change_webhook_endpoint": {"state": "disabled"},
    "add_webhook_secret": {},
    "put_link": {"account": "a"},
    "create_account_key": {},
    "resolve_alert": {},
    "put_referrer": {"referrer": "r"},
    "create_checkout": {"account": "a", "pack": "p", "success_url": "https://example.com"},
    "put_provider": {"api_key": "sk_test_of_the_table_of_roles"},
}
PROTECTED = [route for route in ROUTES if route.name not in OPEN | PROVEN]
IDS = {
    "account": "a",
    "grant": "g",
    "reservation": "r",
    "deduction": "d",
    "feature": "f",
    "endpoint": "whe_none",
    "secret": "whs_none",
    "delivery": "dlv_none",
    "plan": "p",
    "pack": "p",
    "owner": "stripe:customer:cus_1",
    "payment": "p",
    "key": "akey_none",
    "code": "unknown_price",
    "subject": "p",
    "payment_provider": "stripe",
}


def test_every_route_stands_in_the_table_once() -> None:
    tables = [OPEN, PROVEN, READS, SPENDING, ADMIN_ONLY, END_USERS]
    assert sum(map(len, tables)) == len(ROUTES)
    assert set().union(*tables) == {route.name for route in ROUTES}


def _path(route: Route) -> str:
    return route.path.format(**IDS)


def _body(route: Route) -> object:
    if isinstance(route, Read):
        return None
    return USES[route.name].body if isinstance(route, Write) else BODIES.get(route.name)


@pytest.mark.parametrize("route", PROTECTED, ids=lambda route: route.name)
@pytest.mark.parametrize("role", ["service", "admin", "reader"])
def test_a_role_may_do_what_the_table_says_and_nothing_else(
    tenant: Tenant, route: Route, role: Role
) -> None:
    answer = tenant.as_role(role).send(route.method, _path(route), _body(route), key="k")
    if route.name in MAY[role]:
        assert answer.status not in {401, 403}
    else:
        assert (answer.status, answer.code) == (403, "forbidden")
        assert answer.body["role"] == role


@pytest.mark.parametrize("route", PROTECTED, ids=lambda route: route.name)
def test_without_a_key_nothing_is_answered(tenant: Tenant, route: Route) -> None:
    answer = tenant.admin.send(
        route.method, _path(route), _body(route), headers={"Authorization": ""}
    )
    assert (answer.status, answer.code) == (401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("name", sorted(OPEN))
def test_health_needs_no_key(tenant: Tenant, name: str) -> None:
    (route,) = (route for route in ROUTES if route.name == name)
    assert tenant.admin.send("GET", route.path, headers={"Authorization": ""}).status == 200


def test_a_tenant_finds_nothing_of_another(service: Service, tenant: Tenant) -> None:
    account = tenant.account("10", name="shared")
    tenant.service.post(f"{account}/grants", {"id": "g", "amount": "1", "kind": "paid"})
    tenant.service.post(f"{account}/reservations", {"id": "r", "amount": "1"})
    tenant.admin.put("/v1/catalog/features/f", {"name": "F", "unit_price": "1"})
    done = tenant.service.post(f"{account}/deductions", {"id": "d", "amount": "1"})
    tenant.reader.get(f"{account}/balance", position=done.body["position"])
    stranger = service.tenant()
    for route in PROTECTED:
        path = route.path.format(**IDS | {"account": "shared"})
        if route.name in {"batch", "quote", "put_account"} or "catalog" in path:
            continue
        if route.name in END_USERS:
            continue  # test_me
        if route.tag == "webhooks":
            continue  # test_webhook_endpoints
        if route.path.endswith(("/{owner}", "/{payment}", "/resolve")):
            continue  # test_links, test_payments
        if route.tag in {"webhooks", "providers"}:
            continue  # test_webhook_endpoints, test_provider_keys
        theirs = stranger.admin.send(route.method, path, _body(route), key="k")
        if "{account}" in route.path:
            nothing = stranger.admin.send(
                route.method, path.replace("shared", "none"), _body(route), key="k"
            )
            assert theirs.status == 404
            told, untold = (_told(answer.body) for answer in (theirs, nothing))
            assert told == untold
        else:
            assert theirs.body["data"] == []
    assert stranger.admin.get("/v1/catalog/features/f").status == 404
    assert stranger.admin.get("/v1/catalog/features").body["data"] == []
    same = stranger.admin.post(f"{account}/deductions", {"amount": "1"}, key="k")
    assert same.code == "account_not_found"
    item = {"op": "deduct", "account": "shared", "key": "k", "amount": "1"}
    (result,) = stranger.admin.post("/v1/batch", {"commands": [item]}).body["results"]
    assert result["status"] == 404
    stranger.close()


def _told(problem: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in problem.items() if name != "request_id"}


def test_a_cursor_of_another_tenant_shows_only_ones_own(service: Service, tenant: Tenant) -> None:
    for name in ("a", "b", "c"):
        tenant.account("1", name=name)
    position = tenant.service.put("/v1/accounts/d").body["position"]
    cursor = tenant.reader.get("/v1/accounts", limit=1, position=position).body["next_cursor"]
    stranger = service.tenant()
    stranger.account(name="z")
    at = stranger.service.put("/v1/accounts/y").body["position"]
    found = stranger.reader.get("/v1/accounts", cursor=cursor, position=at).body["data"]
    assert [row["id"] for row in found] == ["y", "z"]
    stranger.close()
