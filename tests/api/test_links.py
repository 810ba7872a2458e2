"""Links: which account an owner is, said again as often as it changes."""

from __future__ import annotations

import pytest

from tests.api.room import Answer, Service, Tenant

OWNER = "/v1/links/stripe:customer:cus_1"


def _link(tenant: Tenant, owner: str, account: str) -> Answer:
    return tenant.service.put(f"/v1/links/{owner}", {"account": account.rpartition("/")[2]})


def test_a_link_is_put_read_changed_and_removed(tenant: Tenant) -> None:
    tenant.account(name="a")
    tenant.account(name="b")
    made = tenant.service.put(OWNER, {"account": "a"})
    assert (made.status, made.body["owner"], made.body["account"]) == (
        200,
        "stripe:customer:cus_1",
        "a",
    )
    assert made.body["by"].startswith("key:key_")
    assert tenant.reader.get(OWNER).body == made.body
    changed = tenant.service.put(OWNER, {"account": "b"}).body
    assert changed["account"] == "b"
    assert changed["linked_at"] > made.body["linked_at"]
    assert tenant.reader.get("/v1/links").body["data"] == [changed]
    gone = tenant.service.send("DELETE", OWNER, key="d")
    assert gone.body == {"owner": "stripe:customer:cus_1", "deleted": True}
    assert tenant.reader.get(OWNER).code == "link_not_found"
    assert tenant.service.send("DELETE", OWNER, key="d2").code == "link_not_found"


def test_a_link_to_an_account_that_is_not_there_is_refused(tenant: Tenant) -> None:
    refused = tenant.service.put(OWNER, {"account": "nobody"}, key="k")
    assert (refused.status, refused.code) == (404, "account_not_found")
    assert tenant.reader.get("/v1/links").body["data"] == []
    tenant.account(name="nobody")
    assert tenant.service.put(OWNER, {"account": "nobody"}, key="k").status == 200


@pytest.mark.parametrize(
    "owner", ["a", "account:a", "stripe:price:p", "stripe:customer:", "clerk:users:u", "users:u"]
)
def test_an_owner_says_who_names_whom(tenant: Tenant, owner: str) -> None:
    tenant.account(name="a")
    refused = _link(tenant, owner, "a")
    assert (refused.status, refused.body["errors"][0]["field"]) == (422, "owner")


@pytest.mark.parametrize(
    "owner",
    [
        "stripe:customer:cus_1",
        "clerk:user:u",
        "clerk:organization:o",
        "asaas:customer:c",
        "stripe:session:cs_1",
        "clerk:item:csi_1",
        "asaas:payment:pay_1",
    ],
)
def test_every_kind_of_owner_can_be_linked(tenant: Tenant, owner: str) -> None:
    tenant.account(name="a")
    assert _link(tenant, owner, "a").status == 200


def test_links_are_listed_by_owner_a_page_at_a_time(tenant: Tenant) -> None:
    accounts = [tenant.account() for _ in range(2)]
    for number in range(5):
        assert _link(tenant, f"clerk:user:u{number}", accounts[number % 2]).status == 200
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        body = tenant.reader.get("/v1/links", limit=2, **cursor).body
        seen += [link["owner"] for link in body["data"]]
        if body["next_cursor"] is None:
            break
        cursor = {"cursor": body["next_cursor"]}
    assert seen == [f"clerk:user:u{number}" for number in range(5)]
    of_one = tenant.reader.get("/v1/links", account=accounts[1].rpartition("/")[2]).body["data"]
    assert [link["owner"] for link in of_one] == ["clerk:user:u1", "clerk:user:u3"]
    assert tenant.reader.get("/v1/links", cursor="x").body["errors"][0]["field"] == "cursor"


def test_a_key_stands_for_one_link(tenant: Tenant) -> None:
    tenant.account(name="a")
    tenant.account(name="b")
    first = tenant.service.put(OWNER, {"account": "a"}, key="k")
    tenant.service.put(OWNER, {"account": "b"}, key="k2")
    again = tenant.service.put(OWNER, {"account": "a"}, key="k")
    assert (again.raw, again.headers["idempotent-replayed"]) == (first.raw, "true")
    assert tenant.reader.get(OWNER).body["account"] == "b"
    assert tenant.service.put(OWNER, {"account": "b"}, key="k").code == "idempotency_mismatch"


def test_a_tenant_sees_no_links_of_another(service: Service, tenant: Tenant) -> None:
    tenant.account(name="a")
    _link(tenant, "stripe:customer:cus_1", "a")
    stranger = service.tenant()
    assert stranger.reader.get(OWNER).code == "link_not_found"
    assert stranger.reader.get("/v1/links").body["data"] == []
    assert stranger.service.put(OWNER, {"account": "a"}).code == "account_not_found"
    assert stranger.service.send("DELETE", OWNER, key="d").code == "link_not_found"
    stranger.close()
