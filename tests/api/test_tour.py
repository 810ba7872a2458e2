"""The main path, and what every answer of it says."""

from __future__ import annotations

import time

from tests.api.room import Tenant, fresh


def test_reserve_capture_and_read_back(tenant: Tenant) -> None:
    account = tenant.account("10")
    made = tenant.service.post(f"{account}/reservations", {"id": "job", "amount": "4"})
    assert made.status == 201
    assert made.body["status"] == "open"
    assert made.body["draws"] == [{"grant": made.body["draws"][0]["grant"], "amount": "4"}]
    assert made.headers["location"] == f"{account}/reservations/job"
    assert made.body["balance"]["available"] == "6"

    spent = tenant.service.post(f"{account}/reservations/job/capture", {"amount": "1.5"})
    assert spent.status == 200
    assert spent.body["deduction"] == "job~1"
    assert spent.body["reservation"]["status"] == "captured"
    assert spent.body["balance"]["available"] == "8.5"

    balance = tenant.reader.get(f"{account}/balance", position=spent.body["position"])
    assert balance.body["available"] == "8.5"
    assert balance.body["consumed"] == "1.5"
    usage = tenant.reader.get(f"{account}/usage", position=spent.body["position"])
    assert [row["amount"] for row in usage.body["data"]] == ["1.5"]


def test_every_read_knows_what_was_just_written(tenant: Tenant) -> None:
    account = tenant.account("10")
    service = tenant.service
    grant = service.post(
        f"{account}/grants",
        {
            "id": "g",
            "amount": 5,
            "kind": "promotional",
            "scope": ["image"],
            "cost_basis": "0.01",
            "source": {"type": "plan", "id": "p1"},
            "reason": "trial",
            "metadata": {"a": "b"},
        },
    )
    assert grant.status == 201, grant.body
    read = service.get(f"{account}/grants/g").body
    for name in ("amount", "available", "status", "scope", "cost_basis", "source", "metadata"):
        assert read[name] == grant.body[name]
    assert read["reason"] == "trial"
    service.post(f"{account}/reservations", {"id": "r", "amount": "2"})
    assert service.get(f"{account}/reservations/r").body["remaining"] == "2"
    shown = service.get(account).body
    assert shown["id"] == account.rsplit("/", 1)[1]
    position = service.post(f"{account}/deductions", {"id": "d", "amount": "1"}).body["position"]
    events = service.get(f"{account}/events", position=position, order="oldest").body["data"]
    names = [event["name"] for event in events]
    assert names == [
        "account.opened.v1",
        "credits.granted.v1",
        "credits.granted.v1",
        "credits.reserved.v1",
        "credits.deducted.v1",
    ]


def test_what_has_expired_is_not_shown_as_available_although_nobody_recorded_it(
    tenant: Tenant,
) -> None:
    account = tenant.account("10")
    tenant.service.post(f"{account}/reservations", {"id": "r", "amount": "4", "ttl_seconds": 5})
    position = tenant.service.post(
        f"{account}/grants",
        {"id": "late", "amount": "5", "kind": "paid", "effective_at": soon(6)},
    ).body["position"]
    before = tenant.reader.get(f"{account}/balance", position=position).body
    assert (before["available"], before["reserved"], before["pending"]) == ("6", "4", "5")
    time.sleep(6.3)
    after = tenant.reader.get(f"{account}/balance").body
    assert (after["available"], after["reserved"], after["pending"]) == ("15", "0", "0")
    assert tenant.reader.get(account).body["balance"]["available"] == "15"
    listed = tenant.reader.get("/v1/accounts", position=position).body["data"]
    assert [row["balance"]["available"] for row in listed] == ["15"]
    reservation = tenant.reader.get(f"{account}/reservations/r").body
    assert (reservation["status"], reservation["remaining"]) == ("expired", "0")
    at = {"position": position}
    assert ids(tenant, f"{account}/reservations", status="open", **at) == []
    assert ids(tenant, f"{account}/reservations", status="expired", **at) == ["r"]
    assert tenant.reader.get(f"{account}/grants/late").body["status"] == "active"
    assert ids(tenant, f"{account}/grants", status="pending", **at) == []
    assert "late" in ids(tenant, f"{account}/grants", status="active", **at)


def soon(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + seconds)) + "Z"


def ids(tenant: Tenant, path: str, **parameters: str) -> list[str]:
    return [row["id"] for row in tenant.reader.get(path, **parameters).body["data"]]


def test_a_price_is_put_quoted_reserved_and_recorded(tenant: Tenant) -> None:
    rates = {
        "input_per_million": "3",
        "output_per_million": "15",
        "cached_input_per_million": "0.3",
    }
    put = tenant.admin.put("/v1/catalog/rate-cards/chat", {"models": {"m": rates}})
    assert (put.status, put.body["version"]) == (200, 1)
    asked = {
        "feature": "chat",
        "model": "m",
        "usage": {"input_tokens": 1000, "output_tokens": 100},
    }
    quote = tenant.service.send("POST", "/v1/quotes", asked)
    assert (quote.status, quote.body["amount"]) == (200, "0.0045")
    account = tenant.account("10")
    made = tenant.service.post(f"{account}/reservations", {"id": "r", **asked})
    assert made.body["amount"] == "0.0045"
    assert made.body["price"] == quote.body["price"]
    spent = tenant.service.post(
        f"{account}/reservations/r/capture", {"usage": {"input_tokens": 500}}
    )
    assert spent.body["price"]["amount"] == "0.0015"
    row = tenant.reader.get(f"{account}/usage", position=spent.body["position"]).body["data"][0]
    assert row["usage"] == {"input_tokens": 500, "output_tokens": 0, "cached_input_tokens": 0}


def test_any_version_of_the_catalog_can_be_read(tenant: Tenant) -> None:
    path = "/v1/catalog/features/image"
    for price in ("1", "2", "0"):
        tenant.admin.put(path, {"name": "Image", "unit_price": price})
    assert tenant.reader.get(path).body["unit_price"] == "0"
    assert tenant.reader.get(path, version=2).body["unit_price"] == "2"
    assert tenant.reader.get(path, version=4).code == "catalog_entry_not_found"
    assert tenant.reader.get("/v1/catalog/features/none").status == 404
    first = tenant.reader.get(f"{path}/versions", limit=2).body
    rest = tenant.reader.get(f"{path}/versions", limit=2, cursor=first["next_cursor"]).body
    assert [row["version"] for row in first["data"] + rest["data"]] == [1, 2, 3]
    assert rest["next_cursor"] is None
    assert tenant.reader.get("/v1/catalog/refund-policy").body == {
        "version": 0,
        "regrant_days": None,
    }
    tenant.admin.put("/v1/catalog/refund-policy", {"regrant_days": 30})
    assert tenant.reader.get("/v1/catalog/refund-policy").body["regrant_days"] == 30


def test_what_a_feature_says_of_too_much_rules_where_nothing_else_is_said(tenant: Tenant) -> None:
    path = "/v1/catalog/features/image"
    tenant.admin.put(path, {"name": "Image", "overage": "debt"})
    assert tenant.reader.get(path).body["overage"] == "debt"
    account = tenant.account("10")
    reserved = {"id": "r", "feature": "image", "amount": "5"}
    assert tenant.service.post(f"{account}/reservations", reserved).status == 201
    capture = f"{account}/reservations/r/capture"
    refused = tenant.service.post(capture, {"amount": "12", "overage": "reject"})
    assert refused.code == "capture_exceeds_reservation"
    captured = tenant.service.post(capture, {"amount": "12"})
    assert (captured.status, captured.body["debt"]) == (200, "2")
    spent = tenant.service.post(f"{account}/deductions", {"feature": "image", "amount": "1"})
    assert (spent.status, spent.body["balance"]["debt"]) == (201, "3")
    other = tenant.service.post(f"{account}/deductions", {"feature": "text", "amount": "1"})
    assert other.code == "insufficient_credits"
    tenant.admin.put(path, {"name": "Image"})
    assert "overage" not in tenant.reader.get(path).body
    changed = [{"field": "overage", "from": "debt", "to": None}]
    assert tenant.reader.get(f"{path}/diff").body["changes"] == changed
    wrong = tenant.admin.put(path, {"name": "Image", "overage": "ask"})
    assert (wrong.status, wrong.body["errors"][0]["field"]) == (422, "overage")


def test_a_read_of_the_catalog_is_answered_304_to_its_own_etag(tenant: Tenant) -> None:
    tenant.admin.put("/v1/catalog/features/image", {"name": "Image"})
    first = tenant.reader.get("/v1/catalog/features/image")
    again = tenant.reader.send(
        "GET", "/v1/catalog/features/image", headers={"If-None-Match": first.headers["etag"]}
    )
    assert (again.status, again.raw) == (304, b"")


def test_usage_adds_up_in_every_grouping(tenant: Tenant) -> None:
    tenant.admin.put("/v1/catalog/features/image", {"name": "Image", "unit_price": "1"})
    account = tenant.account("100")
    for actor in ("ann", "bob", "ann"):
        last = tenant.service.post(
            f"{account}/deductions", {"feature": "image", "quantity": "2.5", "actor": actor}
        )
    tenant.reader.get(f"{account}/usage", position=last.body["position"])
    for by in ("hour", "day", "feature", "model", "actor"):
        zone = {"time_zone": "Asia/Kathmandu"} if by in {"hour", "day"} else {}
        report = tenant.reader.get(f"{account}/usage", group_by=by, **zone)
        assert report.status == 200, report.body
        assert report.body["total"]["amount"] == "7.5"
        assert report.body["total"]["quantity"] == "7.5"
        assert sum(float(group["amount"]) for group in report.body["data"]) == 7.5
    only = tenant.reader.get(f"{account}/usage", actor="bob").body["data"]
    assert [row["amount"] for row in only] == ["2.5"]


def test_refund_adjustment_revocation_and_clawback(tenant: Tenant) -> None:
    account = tenant.account()
    tenant.service.post(f"{account}/grants", {"id": "g", "amount": "10", "kind": "paid"})
    tenant.service.post(f"{account}/deductions", {"id": "d", "amount": "4"})
    refund = tenant.service.post(
        f"{account}/deductions/d/refunds", {"amount": "1", "reason": "half bad"}
    )
    assert refund.body["returns"] == [{"grant": "g", "amount": "1", "to": "available"}]
    assert (refund.body["refunded"], refund.body["reason"]) == ("1", "half bad")
    adjusted = tenant.admin.post(
        f"{account}/adjustments", {"amount": "-20", "reason": "audit", "overage": "debt"}
    )
    assert (adjusted.status, adjusted.body["debt"]) == (201, "13")
    revoked = tenant.admin.post(f"{account}/grants/g/revoke", {"clawback": True})
    assert (revoked.status, revoked.body["debt"]) == (200, "3")
    assert revoked.body["balance"]["debt"] == "16"


def test_an_extension_and_a_release(tenant: Tenant) -> None:
    account = tenant.account("10")
    tenant.service.put(account, {"overdraft_limit": "5"})
    tenant.service.post(f"{account}/reservations", {"id": "r", "amount": "9"})
    more = tenant.service.post(
        f"{account}/reservations/r/extend", {"amount": "3", "ttl_seconds": 900}
    )
    assert (more.body["remaining"], more.body["overdraft"]) == ("12", "2")
    shown = tenant.service.get(f"{account}/reservations/r", position=more.body["position"]).body
    assert (shown["remaining"], shown["overdraft"]) == ("12", "2")
    gone = tenant.service.post(f"{account}/reservations/r/release")
    assert (gone.body["status"], gone.body["balance"]["available"]) == ("released", "10")


def test_a_list_is_read_page_by_page(tenant: Tenant) -> None:
    account = tenant.account("10")
    for number in range(7):
        last = tenant.service.post(f"{account}/reservations", {"id": f"r{number}", "amount": "1"})
    seen: list[str] = []
    cursor: dict[str, str] = {"position": last.body["position"]}
    while True:
        page = tenant.reader.get(f"{account}/reservations", limit=3, **cursor).body
        seen += [row["id"] for row in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == [f"r{number}" for number in reversed(range(7))]


def test_accounts_are_found_by_a_part_of_id_or_label(tenant: Tenant) -> None:
    name = fresh("Team")
    tenant.service.put(f"/v1/accounts/{name}", {"label": "100% Görlitz"})
    position = tenant.service.put("/v1/accounts/other").body["position"]

    def search(text: str) -> list[str]:
        found = tenant.reader.get("/v1/accounts", search=text, position=position).body["data"]
        return [row["id"] for row in found]

    assert search(name.lower()) == [name]
    assert search("0% gör") == [name]
    assert search("nobody") == []


def test_the_audit_trail_says_who_what_and_why(tenant: Tenant) -> None:
    account = tenant.account("10")
    done = tenant.admin.post(
        f"{account}/adjustments", {"amount": "1", "reason": "goodwill"}, key="adjust-1"
    )
    found = tenant.admin.get("/v1/events", key="adjust-1", position=done.body["position"]).body
    (event,) = found["data"]
    assert event["name"] == "balance.adjusted.v1"
    assert event["reason"] == "goodwill"
    assert event["actor"].startswith("key:key_")
    assert event["data"]["amount"] == "1"
    assert tenant.admin.get("/v1/events", actor=event["actor"]).body["data"][0] == event
    by_name = tenant.admin.get("/v1/events", name="credits.granted.v1").body["data"]
    assert [row["data"]["amount"] for row in by_name] == ["10"]
