"""Webhook endpoints, as an admin makes, changes and removes them; each change once for its key."""

from __future__ import annotations

from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.sealing import SecretKeys, new_key
from api.webhook_endpoints import ENDPOINTS_MAX, SECRETS_MAX
from scrip.embedded import DatabaseUrls
from tests.api.room import Answer, Service, Tenant

ENDPOINTS = "/v1/webhook-endpoints"
STRIPE = "whsec_a1b2c3d4e5f6g7h8i9j0k1l2"
CLERK = "whsec_" + b64encode(bytes(range(32))).decode()


def _make(tenant: Tenant, provider: str = "stripe", **more: Any) -> str:
    made = tenant.admin.post(ENDPOINTS, {"provider": provider, **more})
    assert made.status == 201, made.body
    return made.headers["location"]


def _delete(tenant: Tenant, path: str, key: str = "d") -> Answer:
    return tenant.admin.send("DELETE", path, key=key)


def _patch(tenant: Tenant, path: str, body: dict[str, Any], key: str = "p") -> Answer:
    return tenant.admin.send("PATCH", path, body, key=key)


def test_an_endpoint_is_made_read_changed_listed_and_removed(tenant: Tenant) -> None:
    body = {"provider": "stripe", "label": "shop", "secret": STRIPE}
    made = tenant.admin.post(ENDPOINTS, body).body
    assert made.pop("secret") is None
    path = f"{ENDPOINTS}/{made['id']}"
    assert made["id"].startswith("whe_")
    assert made["path"] == f"/webhooks/stripe/{made['id']}"
    assert (made["state"], made["livemode"]) == ("active", False)
    assert [note["hint"] for note in made["secrets"]] == ["whsec_…k1l2"]
    assert tenant.admin.get(path).body == made
    assert tenant.admin.get(ENDPOINTS).body["data"] == [made]
    off = _patch(tenant, path, {"state": "disabled"}).body
    assert (off["state"], off["label"]) == ("disabled", "shop")
    assert off["updated_at"] > made["updated_at"]
    on = _patch(tenant, path, {"state": "active", "label": None}, key="p2").body
    assert (on["state"], on["label"]) == ("active", None)
    assert _delete(tenant, path).body == {"id": made["id"], "deleted": True}
    assert tenant.admin.get(path).code == "webhook_endpoint_not_found"
    assert tenant.admin.get(ENDPOINTS).body["data"] == []


def test_the_mode_of_an_endpoint_is_that_of_its_tenant(service: Service, tenant: Tenant) -> None:
    path = _make(tenant)
    assert tenant.admin.get(path).body["livemode"] is False
    with service.database() as connection:
        connection.execute(
            "INSERT INTO scrip.tenants (tenant, mode) VALUES (%(name)s, 'live')",
            {"name": f"{tenant.name}_live"},
        )
    admin = service.client(f"{tenant.name}_live", "admin")
    assert admin.post(ENDPOINTS, {"provider": "stripe"}).body["livemode"] is True
    admin.http.close()


def test_several_secrets_are_good_at_once_and_go_one_by_one(tenant: Tenant) -> None:
    path = _make(tenant, "clerk")
    later = (datetime.now(UTC) + timedelta(hours=24)).isoformat()
    first = tenant.admin.post(f"{path}/secrets", {"secret": CLERK, "expires_at": later})
    assert (first.status, first.body["secret"]) == (201, None)
    assert first.body["expires_at"]
    other = "whsec_" + b64encode(bytes(range(1, 33))).decode()
    second = tenant.admin.post(f"{path}/secrets", {"secret": other}).body
    ids = [note["id"] for note in tenant.admin.get(path).body["secrets"]]
    assert ids == [first.body["id"], second["id"]]
    left = _delete(tenant, f"{path}/secrets/{ids[0]}").body["secrets"]
    assert [note["id"] for note in left] == [second["id"]]
    gone = _delete(tenant, f"{path}/secrets/{ids[0]}", key="d2")
    assert (gone.status, gone.code) == (404, "webhook_secret_not_found")


def test_a_generated_secret_is_shown_once(tenant: Tenant) -> None:
    first = tenant.admin.post(ENDPOINTS, {"provider": "users"}, key="k")
    secret = first.body["secret"]
    again = tenant.admin.post(ENDPOINTS, {"provider": "users"}, key="k")
    assert secret.startswith("whsec_")
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert again.body == first.body | {"secret": None}
    added = tenant.admin.post(f"{first.headers['location']}/secrets", key="k2")
    assert added.body["secret"] != secret
    assert tenant.admin.post(f"{first.headers['location']}/secrets", key="k2").body == (
        added.body | {"secret": None}
    )
    assert len(tenant.admin.get(first.headers["location"]).body["secrets"]) == 2


@pytest.mark.parametrize(
    ("method", "path", "body", "other"),
    [
        ("POST", "", {"provider": "stripe", "secret": STRIPE}, {"provider": "clerk"}),
        (
            "POST",
            "",
            {"provider": "stripe", "secret": STRIPE},
            {"provider": "stripe", "secret": STRIPE + "x"},
        ),
        ("PATCH", "/{endpoint}", {"state": "disabled"}, {"state": "active"}),
        ("POST", "/{endpoint}/secrets", {"secret": STRIPE}, {"secret": STRIPE + "x"}),
    ],
)
def test_a_key_stands_for_one_change(
    tenant: Tenant, method: str, path: str, body: dict[str, Any], other: dict[str, Any]
) -> None:
    at = (ENDPOINTS + path).replace(f"{ENDPOINTS}/{{endpoint}}", _make(tenant))
    first = tenant.admin.send(method, at, body, key="k")
    assert first.status in {200, 201}, first.body
    before = tenant.admin.get(ENDPOINTS).raw
    again = tenant.admin.send(method, at, dict(reversed(body.items())), key="k")
    assert (again.status, again.raw) == (first.status, first.raw)
    assert again.headers["idempotent-replayed"] == "true"
    mismatch = tenant.admin.send(method, at, other, key="k")
    assert (mismatch.status, mismatch.code) == (422, "idempotency_mismatch")
    elsewhere = tenant.admin.send("DELETE", _make_path(tenant), key="k")
    assert elsewhere.code == "idempotency_mismatch"
    assert tenant.admin.get(ENDPOINTS).raw == before
    assert tenant.admin.send(method, at, body).code == "idempotency_key_required"


def _make_path(tenant: Tenant) -> str:
    return f"{ENDPOINTS}/{tenant.admin.get(ENDPOINTS).body['data'][0]['id']}"


def test_a_removal_is_replayed_too(tenant: Tenant) -> None:
    path = _make(tenant)
    first, again = (_delete(tenant, path, key="k") for _ in range(2))
    assert (again.status, again.raw) == (200, first.raw)
    assert again.headers["idempotent-replayed"] == "true"


def test_a_refusal_uses_no_key_up(tenant: Tenant) -> None:
    refused = tenant.admin.post(ENDPOINTS, {"provider": "stripe", "secret": "short"}, key="k")
    assert refused.body["errors"][0]["field"] == "secret"
    assert tenant.admin.get(ENDPOINTS).body["data"] == []
    assert tenant.admin.post(ENDPOINTS, {"provider": "stripe"}, key="k").status == 201


def test_of_eight_at_once_with_one_key_one_makes_it(tenant: Tenant) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(
                lambda _: tenant.admin.post(ENDPOINTS, {"provider": "users"}, key="k"), range(8)
            )
        )
    assert {answer.status for answer in answers} == {201}
    assert len({answer.body["id"] for answer in answers}) == 1
    assert sum(answer.body["secret"] is not None for answer in answers) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"provider": "paypal"}, "provider"),
        ({"provider": "stripe", "secret": 7}, "secret"),
        ({"provider": "stripe", "secret": ""}, "secret"),
        ({"provider": "stripe", "secret": "whsec_short"}, "secret"),
        ({"provider": "clerk", "secret": STRIPE}, "secret"),
        ({"provider": "asaas", "secret": "1" * 40}, "secret"),
        ({"provider": "stripe", "label": ""}, "label"),
        ({"provider": "stripe", "livemode": True}, "livemode"),
    ],
)
def test_what_is_wrong_is_named(tenant: Tenant, body: dict[str, Any], field: str) -> None:
    answer = tenant.admin.post(ENDPOINTS, body)
    assert (answer.status, answer.body["errors"][0]["field"]) == (422, field)


def test_a_secret_must_be_given_where_the_provider_makes_it(tenant: Tenant) -> None:
    path = _make(tenant)
    assert tenant.admin.get(path).body["secrets"] == []
    (error,) = tenant.admin.post(f"{path}/secrets").body["errors"]
    assert (error["field"], error["code"]) == ("secret", "required")
    past = {"secret": STRIPE, "expires_at": "2020-01-01T00:00:00Z"}
    (error,) = tenant.admin.post(f"{path}/secrets", past).body["errors"]
    assert error["field"] == "expires_at"


def test_pages_follow_on_one_another(tenant: Tenant) -> None:
    paths = [_make(tenant) for _ in range(5)]
    found, cursor = [], None
    while True:
        asked = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = tenant.admin.get(ENDPOINTS, **asked).body
        found += [f"{ENDPOINTS}/{row['id']}" for row in page["data"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert found == paths
    assert tenant.admin.get(ENDPOINTS, cursor="x").status == 422


def test_nobody_finds_what_is_anothers(service: Service, tenant: Tenant) -> None:
    path = _make(tenant, secret=STRIPE)
    before = tenant.admin.get(path).raw
    note = tenant.admin.get(path).body["secrets"][0]["id"]
    stranger = service.tenant()
    answers = [
        stranger.admin.get(path),
        _patch(stranger, path, {"state": "disabled"}),
        _delete(stranger, path, key="d1"),
        _delete(stranger, f"{path}/secrets/{note}", key="d2"),
        stranger.admin.post(f"{path}/secrets", {"secret": STRIPE}),
    ]
    assert {answer.code for answer in answers} == {"webhook_endpoint_not_found"}
    assert stranger.admin.get(ENDPOINTS).body["data"] == []
    assert tenant.admin.get(path).raw == before
    stranger.close()


def test_there_is_a_bound_on_endpoints_and_on_secrets(tenant: Tenant) -> None:
    path = _make(tenant, secret=STRIPE)
    for number in range(SECRETS_MAX - 1):
        assert tenant.admin.post(f"{path}/secrets", {"secret": f"{STRIPE}{number}"}).status == 201
    refused = tenant.admin.post(f"{path}/secrets", {"secret": STRIPE})
    assert (refused.status, refused.code) == (409, "webhook_limit_reached")
    assert (refused.body["limit"], refused.body["max"]) == ("secrets", SECRETS_MAX)
    for _ in range(ENDPOINTS_MAX - 1):
        _make(tenant)
    refused = tenant.admin.post(ENDPOINTS, {"provider": "stripe"})
    assert (refused.code, refused.body["limit"]) == ("webhook_limit_reached", "endpoints")


def test_an_expired_secret_makes_room(service: Service, tenant: Tenant) -> None:
    path = _make(tenant, secret=STRIPE)
    with service.database() as connection:
        connection.execute(
            "UPDATE scrip.webhook_secrets SET expires_at = now() WHERE endpoint = %(id)s",
            {"id": path.rpartition("/")[2]},
        )
    added = tenant.admin.post(f"{path}/secrets", {"secret": STRIPE}).body
    assert [note["id"] for note in tenant.admin.get(path).body["secrets"]] == [added["id"]]


def test_without_a_key_no_endpoint_is_made_and_those_there_are_can_be_disabled(
    own_database: DatabaseUrls,
) -> None:
    with Service(own_database, secrets_keys=SecretKeys.parse(new_key("k"))) as service:
        tenant = service.tenant("acme")
        path = _make(tenant)
        tenant.close()
    with Service(own_database, secrets_keys=None) as service:
        admin = service.client("acme", "admin")
        for at, body in ((ENDPOINTS, {"provider": "stripe"}), (f"{path}/secrets", {})):
            refused = admin.post(at, body | {"secret": STRIPE})
            assert (refused.status, refused.code) == (422, "secrets_key_missing")
            assert "SCRIP_SECRETS_KEYS" in refused.body["detail"]
        off = admin.send("PATCH", path, {"state": "disabled"}, key="p")
        assert off.body["state"] == "disabled"
        admin.http.close()
