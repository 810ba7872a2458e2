"""Every refusal: its shape, its page in the documents, and a way to provoke it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from api.problems import TYPE_PREFIX, refusals
from ledger.domain.errors import LedgerError
from ledger.migrate import migrate
from scrip.embedded import DatabaseUrls, EmbeddedPostgres
from tests.api.room import MIB, WAIT_SECONDS_MAX, Answer, Service, Tenant

ERRORS = Path(__file__).parents[2] / "docs" / "errors.md"
KINDS: list[type[LedgerError]] = list(refusals())
ELSEWHERE = {
    "account_busy": "other writers coming first eight times: the ledger's own tests",
    "newer_events": "events of a newer version: the ledger's own tests",
    "limit_reached": "100 000 grants: the domain's own tests",
    "store_unavailable": "a store that does not answer: test_without_a_database",
    "overloaded": "a full queue: test_a_full_queue",
    "internal_error": "a bug: test_a_bug",
    "wrong_tenant": "another tenant's subject: test_nats",
    "answer_too_large": "a batch whose answer NATS does not carry: test_nats",
    "projection_behind": "no runner: test_a_read_side_that_is_behind",
    "secrets_key_missing": "a service without keys: test_webhook_endpoints",
    "secrets_unreadable": "a service with other keys: test_webhook_receiving",
    "nats_unavailable": "NATS away, or full: test_webhook_nats",
    "webhook_malformed": "a signature that can be read in two ways: test_webhook_taking",
    "webhook_unproven": "a wrong signature: test_webhook_taking",
    "referral_exists": "another referrer: test_referrals",
    "self_referral": "one's own account: test_referrals",
    "offer_not_found": "a pack that is retired: test_checkout",
    "offer_not_sold": "a pack without a price at the provider: test_checkout",
    "provider_key_missing": "a tenant without a key: test_checkout",
    "provider_refused": "a price that the provider does not know: test_checkout",
    "provider_unavailable": "a provider that is away: test_checkout",
    "payment_declined": "a card that is declined: test_stripe_api",
    "webhook_limit_reached": "a secret too many: test_webhook_endpoints",
}


def _closed(tenant: Tenant, account: str) -> str:
    tenant.service.post(f"{account}/reservations", {"id": "r", "amount": "1"})
    tenant.service.post(f"{account}/reservations/r/release")
    return f"{account}/reservations/r"


def _expired(tenant: Tenant, account: str) -> str:
    tenant.service.post(f"{account}/reservations", {"id": "r", "amount": "1", "ttl_seconds": 1})
    time.sleep(1.1)
    return f"{account}/reservations/r"


def _revoked(tenant: Tenant, account: str) -> str:
    tenant.service.post(f"{account}/grants", {"id": "g", "amount": "1", "kind": "paid"})
    tenant.admin.post(f"{account}/grants/g/revoke")
    return f"{account}/grants/g"


def _deducted(tenant: Tenant, account: str) -> str:
    tenant.service.post(f"{account}/deductions", {"id": "d", "amount": "1"})
    return f"{account}/deductions/d"


def _open(tenant: Tenant, account: str) -> str:
    tenant.service.post(f"{account}/reservations", {"id": "r", "amount": "1"})
    return f"{account}/reservations/r"


def _endpoint(tenant: Tenant) -> str:
    return tenant.admin.post("/v1/webhook-endpoints", {"provider": "stripe"}).headers["location"]


def _mismatch(tenant: Tenant, account: str) -> Answer:
    tenant.service.post(f"{account}/deductions", {"amount": "1"}, key="k")
    return tenant.service.post(f"{account}/deductions", {"amount": "2"}, key="k")


def _too_large(tenant: Tenant, account: str) -> Answer:
    return tenant.service.put(account, {"label": "x" * (MIB // 2), "metadata": {"a": "x" * MIB}})


Provoke = Callable[[Tenant, str], Answer]
PROVOKED: dict[str, Provoke] = {
    "insufficient_credits": lambda t, a: t.service.post(f"{a}/deductions", {"amount": "11"}),
    "account_not_found": lambda t, _: t.reader.get("/v1/accounts/nobody/balance"),
    "grant_not_found": lambda t, a: t.reader.get(f"{a}/grants/none"),
    "reservation_not_found": lambda t, a: t.service.post(f"{a}/reservations/none/release"),
    "deduction_not_found": lambda t, a: t.service.post(
        f"{a}/deductions/none/refunds", {"reason": "r"}
    ),
    "catalog_entry_not_found": lambda t, _: t.reader.get("/v1/catalog/features/none"),
    "webhook_endpoint_not_found": lambda t, _: t.admin.get("/v1/webhook-endpoints/whe_none"),
    "webhook_delivery_not_found": lambda t, _: t.admin.get(f"{_endpoint(t)}/deliveries/dlv_none"),
    "webhook_secret_not_found": lambda t, _: t.admin.send(
        "DELETE", f"{_endpoint(t)}/secrets/whs_none", key="k"
    ),
    "link_not_found": lambda t, _: t.reader.get("/v1/links/stripe:customer:cus_none"),
    "payment_not_found": lambda t, _: t.admin.get("/v1/payments/none"),
    "alert_not_found": lambda t, _: t.admin.post("/v1/alerts/unknown_price/none/resolve"),
    "account_key_not_found": lambda t, a: t.service.send("DELETE", f"{a}/keys/none", key="k"),
    "provider_key_not_found": lambda t, _: t.admin.get("/v1/providers/stripe"),
    "grant_exists": lambda t, a: t.service.post(
        f"{_revoked(t, a).removesuffix('/g')}", {"id": "g", "amount": "1", "kind": "paid"}
    ),
    "operation_exists": lambda t, a: t.service.post(
        _open(t, a).removesuffix("/r"), {"id": "r", "amount": "1"}
    ),
    "grant_closed": lambda t, a: t.admin.post(f"{_revoked(t, a)}/revoke"),
    "reservation_closed": lambda t, a: t.service.post(f"{_closed(t, a)}/capture", {"amount": "1"}),
    "reservation_expired": lambda t, a: t.service.post(
        f"{_expired(t, a)}/capture", {"amount": "1"}
    ),
    "capture_exceeds_reservation": lambda t, a: t.service.post(
        f"{_open(t, a)}/capture", {"amount": "2"}
    ),
    "refund_exceeds_deduction": lambda t, a: t.service.post(
        f"{_deducted(t, a)}/refunds", {"amount": "2", "reason": "r"}
    ),
    "price_not_found": lambda t, _: t.service.send(
        "POST", "/v1/quotes", {"feature": "none", "quantity": "1"}
    ),
    "invalid_request": lambda t, a: t.service.post(f"{a}/deductions", {}),
    "idempotency_mismatch": _mismatch,
    "malformed_request": lambda t, a: t.service.send(
        "PUT", a, key="k", content=b"{", headers={"Content-Type": "application/json"}
    ),
    "idempotency_key_required": lambda t, a: t.service.send("PUT", a, {}),
    "unauthenticated": lambda t, a: t.reader.send("GET", a, headers={"Authorization": "x"}),
    "forbidden": lambda t, a: t.reader.put(a),
    "route_not_found": lambda t, _: t.reader.get("/v2/accounts"),
    "referral_not_found": lambda t, a: t.reader.get(f"{a}/referrer"),
    "method_not_allowed": lambda t, a: t.reader.send("DELETE", a),
    "body_too_large": _too_large,
    "unsupported_media_type": lambda t, a: t.service.send(
        "PUT", a, key="k", content=b"{}", headers={"Content-Type": "text/plain"}
    ),
}


def test_codes_are_unique() -> None:
    # The rule of a command and the rule of a request are the same to whoever breaks them.
    codes = sorted(kind.code for kind in KINDS)
    assert len(codes) - len(set(codes)) == 1
    assert codes.count("invalid_request") == 2


def test_every_code_is_provoked_by_a_test() -> None:
    assert set(PROVOKED) | set(ELSEWHERE) == {kind.code for kind in KINDS}


@pytest.mark.parametrize("code", PROVOKED)
def test_a_refusal_is_a_problem_document(tenant: Tenant, code: str) -> None:
    (kind, *_) = (kind for kind in KINDS if kind.code == code)
    answer = PROVOKED[code](tenant, tenant.account("10"))
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    problem = answer.body
    assert (problem["code"], answer.status) == (code, kind.status)
    assert problem["status"] == kind.status
    assert problem["type"] == TYPE_PREFIX + code
    assert problem["retryable"] is kind.retryable
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["title"]
    assert problem["detail"]
    assert ("errors" in problem) == (code == "invalid_request")
    assert ("retry-after" in answer.headers) == (kind.status == 503)


def test_what_is_missing_is_told_in_credits(tenant: Tenant) -> None:
    account = tenant.account("10")
    problem = tenant.service.post(f"{account}/reservations", {"amount": "12.5"}).body
    facts = {name: problem[name] for name in ("required", "available", "shortfall", "limit")}
    assert facts == {
        "required": "12.5",
        "available": "10",
        "shortfall": "2.5",
        "limit": "balance",
    }


def test_every_code_has_its_page() -> None:
    text = ERRORS.read_text()
    rows = re.findall(r"^\| `([a-z_]+)` \| (\d+) \| (yes|no) \|", text, re.MULTILINE)
    written = {code: (int(status), retryable == "yes") for code, status, retryable in rows}
    assert written == {kind.code: (kind.status, kind.retryable) for kind in KINDS}
    assert [code for code, _, _ in rows] == sorted(written, key=lambda c: (written[c][0], c))


def test_unknown_paths_and_methods_are_problems_with_their_headers(tenant: Tenant) -> None:
    answer = tenant.admin.send("PATCH", "/v1/accounts/a")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, PUT")
    for path in ("/", "/v1/accounts/", "/v1/accounts/a/b", "/v1/accounts/a%2Fb", "//"):
        assert tenant.admin.get(path).code == "route_not_found"


def test_an_answer_tells_nothing_of_the_house(tenant: Tenant) -> None:
    answer = tenant.admin.get("/v1/accounts")
    assert "server" not in answer.headers or answer.headers["server"] == "uvicorn"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-1", True), ("a b", False), ("x" * 200, False), ("ä", False)]
)
def test_a_harmless_request_id_is_kept(tenant: Tenant, given: str, *, kept: bool) -> None:
    answer = tenant.reader.http.get(
        "/v1/accounts", headers=[("X-Request-Id", given.encode("latin-1"))]
    )
    assert (answer.headers["x-request-id"] == given) == kept
    assert answer.headers["x-request-id"]


def test_a_full_queue_is_an_answer(own_database: DatabaseUrls) -> None:
    with Service(own_database) as service:
        tenant = service.tenant()
        account = tenant.account("10")
        service.writer._backlog._most = 0
        answer = tenant.service.post(f"{account}/deductions", {"amount": "1"})
        assert (answer.status, answer.code) == (503, "overloaded")
        assert answer.headers["retry-after"] == "1"
        tenant.close()


def test_a_read_side_that_is_behind_says_so(own_database: DatabaseUrls) -> None:
    with Service(own_database, position_wait_seconds=0.2) as service:
        tenant = service.tenant()
        account = tenant.account("10")
        service.runner.close()
        position = tenant.service.post(f"{account}/deductions", {"amount": "1"}).body["position"]
        answer = tenant.reader.get(f"{account}/balance", position=position)
        assert (answer.status, answer.code) == (503, "projection_behind")
        assert (answer.body["asked"], answer.body["retryable"]) == (position, True)
        assert answer.headers["retry-after"] == "1"
        strong = tenant.reader.get(f"{account}/balance", consistency="strong")
        assert strong.body["available"] == "9"
        tenant.close()


def test_a_position_beyond_the_ledger_is_a_mistake(tenant: Tenant) -> None:
    answer = tenant.reader.get(f"{tenant.account()}/balance", position=2**63 - 1)
    assert (answer.status, answer.body["errors"][0]["field"]) == (422, "position")


def test_a_bug_tells_nothing_and_is_logged(
    service: Service, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(service.writer, "pending", broken)
    answer = tenant.service.put("/v1/accounts/a")
    assert (answer.status, answer.code) == (500, "internal_error")
    assert "secret" not in str(answer.body)
    assert "ZeroDivision" not in str(answer.body)


def test_health_says_what_is_wrong(tenant: Tenant) -> None:
    ready = tenant.admin.get("/health/ready")
    assert (ready.status, ready.body["status"]) == (200, "ready")
    assert set(ready.body["checks"]) == {"writer", "database", "schema", "projections"}
    metrics = tenant.admin.get("/metrics")
    assert "scrip_writer_commands_total" in metrics.body
    assert 'scrip_http_requests_total{method="GET",route="/health/ready",status="200"}' in (
        metrics.body
    )


def test_without_a_database_it_says_so_and_comes_back(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path) as server:
        migrate(server.owner_url, "scrip_app")
        with Service(server.urls(), connection_seconds=1.0) as service:
            tenant = service.tenant()
            account = tenant.account("10")
            patience = service.writer.command_timeout_seconds
            service.writer.command_timeout_seconds = 0.5
            server.stop()
            ready = tenant.admin.get("/health/ready")
            assert (ready.status, ready.body["status"]) == (503, "not_ready")
            read = tenant.admin.get(f"{account}/balance")
            assert (read.status, read.code) == (503, "store_unavailable")
            done = tenant.service.post(f"{account}/deductions", {"amount": "1"}, key="k")
            assert (done.status, done.code) == (503, "store_unavailable")
            assert tenant.admin.get("/health/live").status == 200
            server.start()
            service.writer.command_timeout_seconds = patience
            deadline = time.monotonic() + WAIT_SECONDS_MAX
            while True:
                again = tenant.service.post(f"{account}/deductions", {"amount": "1"}, key="k")
                if again.status == 201:
                    break
                assert time.monotonic() < deadline, again.body
                time.sleep(0.1)
            tenant.close()
