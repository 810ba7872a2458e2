"""What is not understood whole is refused, by name, before the ledger hears of it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.api.room import MIB, Answer, Tenant
from tests.api.writes import USES

AMOUNT_FIELDS = [
    ("put_account", "overdraft_limit"),
    ("create_grant", "amount"),
    ("create_grant", "cost_basis"),
    ("create_reservation", "amount"),
    ("create_reservation", "at_least"),
    ("capture_reservation", "amount"),
    ("extend_reservation", "amount"),
    ("create_deduction", "amount"),
    ("create_deduction", "at_least"),
    ("create_refund", "amount"),
    ("create_adjustment", "amount"),
    ("put_feature", "unit_price"),
    ("create_reservation", "quantity"),
]
ZERO_IS_FINE = {"overdraft_limit", "cost_basis", "unit_price", "quantity"}
BAD_AMOUNTS = [
    '"-1"',
    "-1",
    '"-0.000001"',
    '"0.0000001"',
    "0.0000001",
    '"1.1234567"',
    "1.1234567",
    "0.30000000000000004",
    '"1000000000000000000000000000000"',
    "1000000000000000000000000000000",
    "1e30",
    "1e400",
    "1e-400",
    "1e99999999999999999999",
    "9" * 5_000,
    '"9007199254.740992"',
    "9007199254.740992",
    '"NaN"',
    '"Infinity"',
    "NaN",
    "Infinity",
    "-Infinity",
    "true",
    '""',
    '" 1"',
    '"1 "',
    '"1 000"',
    '"1,5"',
    '"+1"',
    '"1e3"',
    '".5"',
    '"1."',
    '"0x10"',
    '"\u0661"',
    "[]",
    '["1"]',
    "{}",
]


def _send(tenant: Tenant, name: str, body: bytes, **headers: str) -> Answer:
    method = "PUT" if name.startswith("put_") else "POST"
    response = tenant.admin.http.request(
        method,
        USES[name].at("/v1/accounts/a"),
        content=body,
        headers={"Content-Type": "application/json", "Idempotency-Key": "k", **headers},
    )
    return Answer(
        status=response.status_code,
        body=response.json(),
        headers=response.headers,
        raw=response.content,
    )


def _with(name: str, field: str, text: str) -> bytes:
    body = {n: v for n, v in USES[name].body.items() if n != field}
    members = [f"{json.dumps(n)}: {json.dumps(v)}" for n, v in body.items()]
    return ("{" + ", ".join([*members, f'"{field}": {text}']) + "}").encode()


@pytest.mark.parametrize(("name", "field"), AMOUNT_FIELDS)
def test_an_amount_that_is_none_is_refused_by_name(tenant: Tenant, name: str, field: str) -> None:
    bad = list(BAD_AMOUNTS)
    if field not in ZERO_IS_FINE:
        bad += ['"0"', "0", '"0.000000"', "0.0", "-0"]
    if field != "unit_price":
        bad.append("null")
    if name == "create_adjustment":
        bad = [text for text in bad if text not in {'"-1"', "-1", '"-0.000001"'}]
    for text in bad:
        answer = _send(tenant, name, _with(name, field, text))
        assert (answer.status, answer.code) == (422, "invalid_request"), (text, answer.body)
        assert answer.body["errors"][0]["field"] == field, text
        assert answer.body["errors"][0]["message"], text


@pytest.mark.parametrize("text", ['"12.5"', "12.5", '"12.500000"', "1.25e1", "12.50"])
def test_an_amount_may_be_a_string_or_an_exact_number(tenant: Tenant, text: str) -> None:
    account = tenant.account("20")
    response = tenant.service.http.post(
        f"{account}/deductions",
        content=b'{"amount": ' + text.encode() + b"}",
        headers={"Content-Type": "application/json", "Idempotency-Key": "k"},
    )
    assert response.json()["amount"] == "12.5"


@pytest.mark.parametrize("name", USES)
def test_an_unknown_field_is_refused_by_name(tenant: Tenant, name: str) -> None:
    answer = _send(tenant, name, json.dumps({**USES[name].body, "tenant_id": "x"}).encode())
    assert answer.status == 422
    assert answer.body["errors"] == [
        {"field": "tenant_id", "code": "unknown", "message": "is not known here"}
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"nul",
        b"{'amount': 1}",
        b'{"amount": 1,}',
        b'{"amount": 1} x',
        b'{"amount": "1", "amount": "1"}',
        b'{"amount": "1", "metadata": {"a": "1", "a": "2"}}',
        b'{"amount": "\xff"}',
        b"\xef\xbb\xbf{}",
        b'{"amount": "1\n"}',
        b'{"amount": "1\x00"}',
        b"[" * 100_000,
        b'{"metadata": ' * 5_000 + b"1" + b"}" * 5_000,
    ],
    ids=repr,
)
def test_what_is_not_strict_json_is_malformed(tenant: Tenant, body: bytes) -> None:
    answer = _send(tenant, "create_deduction", body)
    assert (answer.status, answer.code) == (400, "malformed_request")


@pytest.mark.parametrize(
    ("name", "body", "field"),
    [
        ("create_grant", b"", "amount"),
        ("create_grant", b"[]", "body"),
        ("create_grant", b"null", "body"),
        ("create_grant", b'{"amount": "1"}', "kind"),
        ("create_grant", b'{"amount": "1", "kind": "free"}', "kind"),
        ("create_grant", b'{"amount": "1", "kind": "paid", "priority": -1}', "priority"),
        ("create_grant", b'{"amount": "1", "kind": "paid", "priority": 1.5}', "priority"),
        ("create_grant", b'{"amount": "1", "kind": "paid", "scope": ["a b"]}', "scope[0]"),
        ("create_grant", b'{"amount": "1", "kind": "paid", "scope": "a"}', "scope"),
        ("create_grant", b'{"amount": "1", "kind": "paid", "id": "a\\n"}', "id"),
        ("create_grant", b'{"amount": "1", "kind": "paid", "id": "a/b"}', "id"),
        ("create_grant", b'{"amount": "1", "kind": "paid", "id": "a~1"}', "id"),
        ("create_grant", b'{"amount": "1", "kind": "paid", "expires_at": "soon"}', "expires_at"),
        (
            "create_grant",
            b'{"amount": "1", "kind": "paid", "expires_at": "2027-01-01T00:00:00"}',
            "expires_at",
        ),
        (
            "create_grant",
            b'{"amount": "1", "kind": "paid", "expires_at": "0001-01-01T00:00:00+14:00"}',
            "expires_at",
        ),
        (
            "create_grant",
            b'{"amount": "1", "kind": "paid", "expires_at": 1790000000}',
            "expires_at",
        ),
        ("create_grant", b'{"amount": "1", "kind": "paid", "source": {"type": "x"}}', "source.id"),
        ("create_reservation", b'{"amount": "1", "ttl_seconds": 0}', "ttl_seconds"),
        ("create_reservation", b'{"amount": "1", "ttl_seconds": 2592001}', "ttl_seconds"),
        ("create_reservation", b'{"usage": {"input_tokens": -1}}', "usage.input_tokens"),
        ("create_reservation", b'{"amount": "1", "actor": ""}', "actor"),
        ("create_reservation", b'{"amount": "1", "metadata": {"a": 1}}', "metadata[...]"),
        ("create_reservation", b'{"amount": "1", "job": "a\\u0000b"}', "job"),
        ("create_reservation", b'{"amount": "1", "job": "\\ud800"}', "job"),
        ("create_reservation", b'{"amount": "1", "metadata": {"\\u0000": "b"}}', "metadata.\x00"),
        ("create_adjustment", b'{"amount": "1"}', "reason"),
        ("create_adjustment", b'{"amount": "1", "reason": ""}', "reason"),
        ("create_refund", b"{}", "reason"),
        ("put_rate_card", b'{"models": {}}', "models"),
        ("put_refund_policy", b"{}", "regrant_days"),
        ("put_refund_policy", b'{"regrant_days": 0}', "regrant_days"),
    ],
)
def test_a_field_that_breaks_its_rule_is_refused_by_name(
    tenant: Tenant, name: str, body: bytes, field: str
) -> None:
    answer = _send(tenant, name, body)
    assert (answer.status, answer.code) == (422, "invalid_request"), answer.body
    assert answer.body["errors"][0]["field"] == field


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "amount"),
        ({"amount": "1", "quantity": "1", "feature": "f"}, "amount"),
        ({"quantity": "1"}, "feature"),
        ({"feature": "f", "usage": {"input_tokens": 1}}, "model"),
    ],
)
def test_a_charge_must_be_of_exactly_one_kind(
    tenant: Tenant, body: dict[str, Any], field: str
) -> None:
    account = tenant.account("1")
    answer = tenant.service.post(f"{account}/reservations", body)
    assert (answer.status, answer.body["errors"][0]["field"]) == (422, field)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/accounts?limit=0", "limit"),
        ("/v1/accounts?limit=201", "limit"),
        ("/v1/accounts?limit=x", "limit"),
        ("/v1/accounts?limit=1&limit=2", "limit"),
        ("/v1/accounts?offset=1", "offset"),
        ("/v1/accounts?cursor=abc", "cursor"),
        ("/v1/accounts?cursor=WyJncmFudHMiLDFd", "cursor"),
        # One that holds NUL, which PostgreSQL cannot be asked for.
        ("/v1/accounts?cursor=WyJhY2NvdW50cyIsIlx1MDAwMCJd", "cursor"),
        ("/v1/accounts?search=%00", "search"),
        ("/v1/accounts?search=%ff", "query"),
        ("/v1/accounts?position=-1", "position"),
        ("/v1/accounts?position=99999999999999999999", "position"),
        ("/v1/accounts?api_key=x", "api_key"),
        ("/v1/accounts/a/grants?status=null", "status"),
        ("/v1/catalog/features/f?version=null", "version"),
        ("/v1/accounts/a/usage?start=null", "start"),
        ("/v1/accounts?&", "query"),
        ("/v1/accounts/a%20b", "account"),
        ("/v1/accounts/a~1", "account"),
        ("/v1/accounts/%F0%9F%98%80/balance", "account"),
        ("/v1/accounts/a/balance?consistency=weak", "consistency"),
        ("/v1/accounts/a/usage?time_zone=Mars/Base", "time_zone"),
        ("/v1/accounts/a/usage?group_by=day&time_zone=Mars/Base", "time_zone"),
        ("/v1/accounts/a/usage?group_by=day&time_zone=../etc/passwd", "time_zone"),
        ("/v1/accounts/a/usage?group_by=week", "group_by"),
        ("/v1/accounts/a/usage?group_by=day&limit=5", "limit"),
        ("/v1/accounts/a/usage?start=now", "start"),
        (
            "/v1/accounts/a/usage?start=2026-01-02T00:00:00Z&end=2026-01-01T00:00:00Z",
            "end",
        ),
        ("/v1/catalog/features/f?version=0", "version"),
        ("/v1/events?order=random", "order"),
        ("/health/live?x=1", "x"),
    ],
)
def test_a_parameter_that_breaks_its_rule_is_refused_by_name(
    tenant: Tenant, path: str, field: str
) -> None:
    tenant.account(name="a")
    answer = tenant.admin.send("GET", path)
    assert (answer.status, answer.code) == (422, "invalid_request"), answer.body
    assert answer.body["errors"][0]["field"] == field


@pytest.mark.parametrize("name", USES)
def test_a_write_takes_no_query_parameters(tenant: Tenant, name: str) -> None:
    use = USES[name]
    method = "PUT" if name.startswith("put_") else "POST"
    answer = tenant.admin.send(method, use.at("/v1/accounts/a") + "?dry_run=1", use.body, key="k")
    assert answer.body["errors"][0]["field"] == "dry_run"


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": ""},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "br"},
    ],
    ids=str,
)
def test_another_media_type_or_a_compressed_body_is_refused(
    tenant: Tenant, headers: dict[str, str]
) -> None:
    answer = _send(tenant, "create_deduction", b'{"amount": "1"}', **headers)
    assert (answer.status, answer.code) == (415, "unsupported_media_type")


@pytest.mark.parametrize("content_type", ["application/json", 'Application/JSON; charset="UTF-8"'])
def test_json_may_name_its_charset(tenant: Tenant, content_type: str) -> None:
    answer = _send(tenant, "put_account", b"{}", **{"Content-Type": content_type})
    assert answer.status == 201


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_beyond_the_limit_is_refused(tenant: Tenant, *, chunked: bool) -> None:
    body = b'{"label": "' + b"x" * MIB + b'"}'
    try:
        answer = tenant.service.http.put(
            "/v1/accounts/a",
            content=iter([body]) if chunked else body,
            headers={"Content-Type": "application/json", "Idempotency-Key": "k"},
        )
    except httpx.WriteError:
        return  # The server had hung up before it had it all.
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_the_path_is_checked_before_the_key_and_the_key_before_the_body(tenant: Tenant) -> None:
    steps = [
        ("/v1/accounts/a b/deductions?x=1", None, b"{", 422, "account"),
        ("/v1/accounts/a/deductions?x=1", None, b"{", 422, "x"),
        ("/v1/accounts/a/deductions", None, b"{", 400, "idempotency_key_required"),
        ("/v1/accounts/a/deductions", "k", b"{", 400, "malformed_request"),
        ("/v1/accounts/a/deductions", "k", b"{}", 404, "account_not_found"),
    ]
    for path, key, body, status, told in steps:
        headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
        answer = tenant.service.http.post(path, content=body, headers=headers)
        assert answer.status_code == status
        problem = answer.json()
        assert told in {problem["code"], problem.get("errors", [{}])[0].get("field")}
