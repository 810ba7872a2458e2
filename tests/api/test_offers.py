"""Plans, packs and the referral reward over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from api.catalog_examples import BY_TYPE
from tests.api.room import Tenant

PLAN = "/v1/catalog/plans/pro"
PACK = "/v1/catalog/packs/small"
REWARD = "/v1/catalog/referral-reward"
BODIES = {PLAN: BY_TYPE["PlanIn"], PACK: BY_TYPE["PackIn"]}


@pytest.mark.parametrize("path", BODIES)
def test_what_is_put_is_what_is_read_and_stands_in_the_audit_trail(
    tenant: Tenant, path: str
) -> None:
    body = {**BODIES[path], "effective_at": "2027-01-01T00:00:00Z", "reason": "new year"}
    put = tenant.admin.put(path, body)
    assert put.status == 200, put.body
    read = tenant.reader.get(path).body
    assert {**read, "position": put.body["position"]} == put.body
    asked = {name: value for name, value in body.items() if name not in {"reason", "providers"}}
    assert {name: read[name] for name in asked} == asked
    assert read["providers"] == {"stripe": [], "clerk": [], "asaas": [], **body["providers"]}
    (event,) = tenant.admin.get("/v1/events", position=put.body["position"]).body["data"]
    assert event["reason"] == "new year"
    assert event["data"]["terms"]["credits"] == body["credits"]
    assert event["data"]["terms"]["price"] == body["price"]


@pytest.mark.parametrize("path", BODIES)
def test_versions_are_kept_listed_and_compared(tenant: Tenant, path: str) -> None:
    body = BODIES[path]
    tenant.admin.put(path, body)
    tenant.admin.put(path, {**body, "credits": "7", "price": {"amount": 5, "currency": "BRL"}})
    tenant.admin.put(path, {"name": "Renamed", "credits": "7", "retired": True})
    assert tenant.reader.get(path).body["name"] == "Renamed"
    assert tenant.reader.get(path, version=1).body["credits"] == body["credits"]
    assert tenant.reader.get(path, version=4).code == "catalog_entry_not_found"
    first = tenant.reader.get(f"{path}/versions", limit=2).body
    rest = tenant.reader.get(f"{path}/versions", limit=2, cursor=first["next_cursor"]).body
    assert [row["version"] for row in first["data"] + rest["data"]] == [1, 2, 3]
    assert rest["next_cursor"] is None
    found = tenant.reader.get(f"{path}/diff", **{"from": 1, "to": 2}).body
    assert (found["from"], found["to"]) == (1, 2)
    changes = {one.pop("field"): one for one in found["changes"]}
    assert changes.pop("effective_at")
    assert changes == {
        "price.amount": {"from": body["price"]["amount"], "to": 5},
        "price.currency": {"from": "EUR", "to": "BRL"},
        "credits": {"from": body["credits"], "to": "7"},
    }
    newest = tenant.reader.get(f"{path}/diff").body
    assert (newest["from"], newest["to"]) == (2, 3)
    assert {"field": "price", "from": None, "to": None} not in newest["changes"]
    assert {"field": "price.amount", "from": 5, "to": None} in newest["changes"]
    assert {"field": "retired", "from": False, "to": True} in newest["changes"]
    assert tenant.reader.get(f"{path}/diff", to=4).code == "catalog_entry_not_found"
    assert tenant.reader.get(f"{path}/diff", **{"from": 4}).code == "catalog_entry_not_found"
    same = tenant.reader.get(f"{path}/diff", to=1).body
    assert (same["from"], same["to"], same["changes"]) == (1, 1, [])


@pytest.mark.parametrize("kind", ["plans", "packs"])
def test_a_list_has_each_in_its_newest_version_by_key(tenant: Tenant, kind: str) -> None:
    path = f"/v1/catalog/{kind}"
    assert tenant.reader.get(path).body == {"data": [], "next_cursor": None}
    assert tenant.reader.get(f"{path}/none").code == "catalog_entry_not_found"
    assert tenant.reader.get(f"{path}/none/versions").code == "catalog_entry_not_found"
    assert tenant.reader.get(f"{path}/none/diff").code == "catalog_entry_not_found"
    for key in ("b", "a", "c", "a"):
        tenant.admin.put(f"{path}/{key}", {"name": key, "credits": "1"})
    first = tenant.reader.get(path, limit=2).body
    rest = tenant.reader.get(path, limit=2, cursor=first["next_cursor"]).body
    assert [(row["name"], row["version"]) for row in first["data"] + rest["data"]] == [
        ("a", 2),
        ("b", 1),
        ("c", 1),
    ]
    assert rest["next_cursor"] is None


def test_features_and_rate_cards_are_compared_as_well(tenant: Tenant) -> None:
    path = "/v1/catalog/features/image"
    tenant.admin.put(path, {"name": "Image", "unit_price": "1"})
    tenant.admin.put(path, {"name": "Image", "unit_price": "2"})
    changed = [{"field": "unit_price", "from": "1", "to": "2"}]
    assert tenant.reader.get(f"{path}/diff").body == {"from": 1, "to": 2, "changes": changed}
    path = "/v1/catalog/rate-cards/chat"
    rates = {"input_per_million": "3", "output_per_million": "15", "cached_input_per_million": "1"}
    tenant.admin.put(path, {"models": {"m": rates}})
    tenant.admin.put(path, {"models": {"m": {**rates, "minimum": "0.5"}}})
    changed = [{"field": "models.m.minimum", "from": "0", "to": "0.5"}]
    assert tenant.reader.get(f"{path}/diff").body["changes"] == changed


def test_the_referral_reward_is_nothing_until_it_is_put(tenant: Tenant) -> None:
    nothing = {
        "version": 0,
        "effective_at": None,
        "referrer": "0",
        "referred": "0",
        "expires_days": None,
    }
    assert tenant.reader.get(REWARD).body == nothing
    put = tenant.admin.put(REWARD, {"referrer": "20", "referred": "10", "expires_days": 90})
    assert put.status == 200
    tenant.admin.put(REWARD, {"referrer": "0", "referred": "0"})
    assert tenant.reader.get(REWARD).body["version"] == 2
    first = tenant.reader.get(REWARD, version=1).body
    assert (first["referrer"], first["referred"], first["expires_days"]) == ("20", "10", 90)
    assert tenant.reader.get(REWARD, version=3).code == "catalog_entry_not_found"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (PLAN, {"credits": "1"}, "name"),
        (PLAN, {"name": "P"}, "credits"),
        (PLAN, {"name": "P", "credits": "0"}, "credits"),
        (PLAN, {"name": "P", "credits": "1", "period": "week"}, "period"),
        (PLAN, {"name": "P", "credits": "1", "rollover": "capped"}, "rollover_max"),
        (PLAN, {"name": "P", "credits": "1", "trial_days": 3}, "trial_days"),
        (
            PLAN,
            {"name": "P", "credits": "1", "price": {"amount": 1, "currency": "eur"}},
            "price.currency",
        ),
        (PLAN, {"name": "P", "credits": "1", "price": {"amount": 1}}, "price.currency"),
        (PLAN, {"name": "P", "credits": "1", "providers": {"paypal": ["x"]}}, "providers.paypal"),
        (PLAN, {"name": "P", "credits": "1", "providers": {"clerk": ["a b"]}}, "providers.clerk"),
        (PLAN, {"name": "P", "credits": "1", "effective_at": "tomorrow"}, "effective_at"),
        (PACK, {"name": "P", "credits": "1", "expires_days": 0}, "expires_days"),
        (PACK, {"name": "P", "credits": "1", "fallback": True}, "fallback"),
        (REWARD, {"referrer": "1"}, "referred"),
        (REWARD, {"referrer": "1", "referred": "-1"}, "referred"),
    ],
)
def test_a_field_that_breaks_its_rule_is_named(
    tenant: Tenant, path: str, body: dict[str, Any], field: str
) -> None:
    answer = tenant.admin.put(path, body)
    assert (answer.status, answer.code) == (422, "invalid_request"), answer.body
    assert answer.body["errors"][0]["field"] == field
    assert tenant.reader.get("/v1/catalog/plans").body["data"] == []


def test_the_offer_that_has_a_price_already_is_named(tenant: Tenant) -> None:
    sold = {"name": "P", "credits": "1", "providers": {"stripe": ["price_1"]}}
    assert tenant.admin.put(PLAN, sold).status == 200
    refused = tenant.admin.put(PACK, sold)
    assert refused.code == "invalid_request"
    assert refused.body["errors"][0]["message"] == "must not hold price_1, which is of plan pro"
