"""Users, as an admin searches them: by account, by label, by whom a provider knows them as."""

from __future__ import annotations

import pytest

from tests.api.room import Service, Tenant
from tests.api.test_me import subscribe


def _user(tenant: Tenant, name: str, label: str | None = None, *owners: str) -> str:
    position: str = tenant.service.put(f"/v1/accounts/{name}", {"label": label}).body["position"]
    for owner in owners:
        assert tenant.service.put(f"/v1/links/{owner}", {"account": name}).status == 200
    return position


def _found(tenant: Tenant, position: str, **query: str) -> list[str]:
    answer = tenant.admin.get("/v1/users", position=position, **query)
    assert answer.status == 200, answer.body
    return [user["account"] for user in answer.body["data"]]


def test_a_user_is_shown_with_links_plan_balance_and_use(service: Service, tenant: Tenant) -> None:
    _user(tenant, "a", "Ada", "stripe:customer:cus_1", "clerk:user:u1")
    _user(tenant, "b")
    tenant.admin.put("/v1/catalog/plans/free", {"name": "Free", "credits": "5", "fallback": True})
    tenant.admin.put("/v1/catalog/plans/pro", {"name": "Pro", "credits": "50"})
    with service.database() as connection:
        subscribe(connection, tenant.name, "a", "pro", status="past_due")
    tenant.service.post("/v1/accounts/a/grants", {"amount": "10", "kind": "paid"})
    for _ in range(2):
        done = tenant.service.post("/v1/accounts/a/deductions", {"amount": "1"}).body
    ada, other = tenant.admin.get("/v1/users", position=done["position"]).body["data"]
    assert (ada["account"], ada["label"]) == ("a", "Ada")
    assert ada["links"] == ["clerk:user:u1", "stripe:customer:cus_1"]
    assert ada["plan"] == {"key": "pro", "status": "past_due"}
    assert ada["balance"] == tenant.reader.get("/v1/accounts/a").body["balance"]
    assert ada["balance"]["available"] == "8"
    assert ada["usage_count"] == 2
    newest = tenant.reader.get("/v1/accounts/a/usage", limit=1).body["data"][0]
    assert ada["last_used_at"] == newest["recorded_at"]
    assert other["plan"] == {"key": "free", "status": "free"}
    assert (other["links"], other["usage_count"], other["last_used_at"]) == ([], 0, None)


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("team_7", ["team_7"]),
        ("TEAM", ["team_7", "team_8"]),
        ("ada", ["team_7"]),
        ("cus_", ["lone", "team_8"]),
        ("clerk:user:", ["team_7"]),
        ("cus_%", []),
        ("stripe:customer:cus_2", ["lone"]),
        ("none", []),
    ],
)
def test_users_are_found_by_account_label_and_owner(
    tenant: Tenant, search: str, found: list[str]
) -> None:
    _user(tenant, "team_7", "Ada", "clerk:user:u1")
    _user(tenant, "team_8", "Bob", "stripe:customer:cus_1")
    position = _user(tenant, "lone", None, "stripe:customer:cus_2")
    assert _found(tenant, position, search=search) == found


def test_users_are_listed_a_page_at_a_time(tenant: Tenant) -> None:
    for name in "abcde":
        position = _user(tenant, name, "Team", f"clerk:user:{name}", f"clerk:organization:{name}")
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        query = {"position": position, "search": "team", **cursor}
        body = tenant.admin.get("/v1/users", limit=2, **query).body
        seen += [user["account"] for user in body["data"]]
        if body["next_cursor"] is None:
            break
        cursor = {"cursor": body["next_cursor"]}
    assert seen == list("abcde")
    assert tenant.admin.get("/v1/users", cursor="x").body["errors"][0]["field"] == "cursor"


def test_a_tenant_finds_only_its_own_users(service: Service, tenant: Tenant) -> None:
    _user(tenant, "a", "Ada", "stripe:customer:cus_1")
    stranger = service.tenant()
    position = _user(stranger, "a", "Eve")
    assert _found(stranger, position, search="cus_1") == []
    (user,) = stranger.admin.get("/v1/users", position=position).body["data"]
    assert (user["label"], user["links"]) == ("Eve", [])
    stranger.close()
