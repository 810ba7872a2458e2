"""Webhooks in, over HTTP: what is believed is stored in JetStream and answered 200, and only that.

The rows of what is refused are those that are known to matter: the providers' libraries fail in
some of them, or believe what they should not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.webhooks.guard import BODY_BYTES_MAX
from ledger.payment_messages import PAYMENT_BYTES_MAX, encode_message
from scrip.embedded import EmbeddedNats
from tests.api.receiving import (
    ENDPOINTS,
    at_the_time_of_the_tests,
    endpoint_of,
    event,
    make_streams,
    messages,
    sent,
    signed,
)
from tests.api.room import Service, Tenant
from tests.api.webhooks.senders import (
    AT,
    OTHERS,
    PREFIXES,
    PROVIDERS,
    SECRETS,
    SIGNERS,
    headers_of,
    replaced,
    signature_header,
    value_of,
)

VECTORS = json.loads((Path(__file__).parent / "webhooks" / "vectors.json").read_text("utf-8"))
SIGNED = [(provider, vector) for provider in PROVIDERS for vector in VECTORS[provider]]
PERSONAL = (
    *(b"example.org", b"example.com", b"Example", b"192.0.2.", b"Mozilla", b"8829", b"MASTERCARD"),
    *(b"a75a1d98", b"ten_01", b"pack_1000", b"1000 credits", b"asaas.com", b"image_url"),
)
TELLS_NOTHING = {"thin v1.invoice.paid", "credits.granted (our outbound)"}


@pytest.fixture(scope="module")
def service(nats_service: Service, nats_server: EmbeddedNats) -> Iterator[Service]:
    """Let the tenants of these tests be of the service that has a way to NATS."""
    make_streams(nats_server.url)
    with at_the_time_of_the_tests(nats_service):
        yield nats_service


# -- what is believed ------------------------------------------------------------------------


@pytest.mark.parametrize(("provider", "vector"), SIGNED, ids=lambda part: str(part)[:60])
def test_what_a_provider_signed_is_stored_without_personal_data(
    tenant: Tenant, nats_server: EmbeddedNats, provider: str, vector: dict[str, Any]
) -> None:
    token = vector["headers"].get("asaas-access-token")
    path = endpoint_of(tenant, provider, vector.get("secret", token))
    headers = [(name.encode(), value.encode()) for name, value in vector["headers"].items()]
    body = vector["body"].encode()
    answer = sent(tenant, path, headers, body)
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    (message,) = messages(nats_server.url, tenant.name)
    assert answer.body == {
        "id": message.id,
        "type": message.type,
        "facts": len(message.facts),
        "unreadable": message.unreadable,
    }
    assert message.endpoint == path.rpartition("/")[2]
    assert message.provider == provider
    if provider == "asaas":
        assert (message.facts, message.fetch) == ((), "pay_080225913252")
    else:
        assert bool(message.facts) != (vector["name"] in TELLS_NOTHING)
        assert message.fetch is None
    assert (message.unreadable is not None) == vector["name"].startswith("thin")
    assert [word for word in PERSONAL if word in encode_message(message)] == []
    kept = json.loads(bytes(message.payload))
    assert kept["event" if provider == "asaas" else "type"] == message.type


def test_the_same_bytes_again_are_one_message(tenant: Tenant, nats_server: EmbeddedNats) -> None:
    path, body = endpoint_of(tenant, "stripe"), event("stripe")
    first = sent(tenant, path, headers_of("stripe", body), body)
    again = sent(tenant, path, headers_of("stripe", body, at=AT + 1), body)
    other = event("stripe", pending_webhooks=2)
    third = sent(tenant, path, headers_of("stripe", other), other)
    elsewhere = signed(tenant, "stripe", body)
    assert {one.status for one in (first, again, third, elsewhere)} == {200}
    assert first.body == again.body
    stored = [message.id for message in messages(nats_server.url, tenant.name)]
    assert stored == [first.body["id"], third.body["id"], elsewhere.body["id"]]
    assert len(set(stored)) == 3


@pytest.mark.parametrize(
    ("provider", "body", "unreadable"),
    [
        ("stripe", event("stripe", livemode=True), "livemode must be false at this endpoint"),
        (
            "stripe",
            event("stripe", data={"object": {"id": "in_1", "status": "paid", "subscription": "s"}}),
            "data.object.amount_paid must be a whole number of the smallest unit",
        ),
        (
            "users",
            event("users", data={"id": "d", "account": "a", "delta": 5}),
            'data.delta must be a text such as "12.5"',
        ),
        (
            "clerk",
            event("clerk", data={"object": "user"}),
            "data.id must be an id",
        ),
        # A number beyond all measure: arithmetic with it fails.
        (
            "clerk",
            event("clerk", timestamp=5).replace(b": 5,", b": 1.7E+4010000005,"),
            "data.updated_at must be milliseconds",
        ),
        (
            "asaas",
            event("asaas", payment={"id": "../payments?x=1"}),
            "payment.id must match [A-Za-z0-9_-]{1,128}",
        ),
        (
            "asaas",
            event("asaas", payment=[]),
            "payment.id must match [A-Za-z0-9_-]{1,128}",
        ),
    ],
)
def test_what_cannot_be_read_is_taken_and_told(
    tenant: Tenant, nats_server: EmbeddedNats, provider: str, body: bytes, unreadable: str
) -> None:
    answer = signed(tenant, provider, body)
    assert (answer.status, answer.body["unreadable"]) == (200, unreadable)
    (message,) = messages(nats_server.url, tenant.name)
    assert (message.unreadable, message.facts, message.fetch) == (unreadable, (), None)


def test_a_type_that_is_none_of_ours_is_taken_and_tells_nothing(
    tenant: Tenant, nats_server: EmbeddedNats
) -> None:
    assert signed(tenant, "asaas", event("asaas", event="SUBSCRIPTION_CREATED")).status == 200
    assert signed(tenant, "stripe", event("stripe", type="tax.settings.updated")).status == 200
    for message in messages(nats_server.url, tenant.name):
        assert (message.facts, message.fetch, message.unreadable) == ((), None, None)


def test_a_large_delivery_loses_its_payload_and_then_its_facts(
    tenant: Tenant, nats_server: EmbeddedNats
) -> None:
    many = [{"id": "x" * 250}] * 3_000
    body = event("users", data={"id": "d_1", "account": many, "delta": "1"})
    assert signed(tenant, "users", body).status == 200
    lines = [
        {"id": f"il_{n}", "amount": 1, "period": {"start": AT, "end": AT + 1}} for n in range(9_000)
    ]
    invoice = {
        "id": "in_1",
        "status": "paid",
        "subscription": "sub_1",
        "amount_paid": 1,
        "currency": "usd",
        "lines": {"data": lines},
    }
    body = event("stripe", data={"object": invoice})
    assert len(body) < BODY_BYTES_MAX
    answer = signed(tenant, "stripe", body)
    rule = f"payload tells more than fits into {PAYMENT_BYTES_MAX} bytes"
    assert (answer.status, answer.body["facts"], answer.body["unreadable"]) == (200, 0, rule)
    for message in messages(nats_server.url, tenant.name):
        assert bytes(message.payload) == b"{}"
        assert len(encode_message(message)) <= PAYMENT_BYTES_MAX


# -- what is not -----------------------------------------------------------------------------


@pytest.mark.parametrize("provider", SIGNERS)
@pytest.mark.parametrize(
    ("late", "status"), [(0, 200), (300, 200), (301, 401), (-301, 401), (-365 * 86_400, 401)]
)
def test_a_signed_time_is_near_ours_on_either_side(
    tenant: Tenant, provider: str, late: int, status: int
) -> None:
    answer = signed(tenant, provider, event(provider), at=AT - late)
    assert answer.status == status
    if status != 200:
        assert answer.body["fault"] == "timestamp_outside_tolerance"


@pytest.mark.parametrize("provider", PROVIDERS)
def test_another_secret_proves_nothing(tenant: Tenant, provider: str) -> None:
    answer = signed(tenant, provider, event(provider), secret=OTHERS[provider])
    assert (answer.status, answer.code) == (401, "webhook_unproven")
    assert answer.headers["content-type"] == "application/problem+json"
    assert SECRETS[provider] not in answer.raw.decode()


@pytest.mark.parametrize("provider", SIGNERS)
@pytest.mark.parametrize(
    "value",
    [
        *(
            b"garbage",
            b"v1,a,b",
            b"v1,abc",
            b"v1,  v1,a",
            b"v1,\xff",
            b"v1=\xff",
            b"v1=\xc3\xa9",
            b"",
        ),
        *(b"t=1790000000,v1=\xe9", b"v0=" + b"0" * 64, b"v1a," + b"A" * 88, b"v1,"),
    ],
)
def test_a_signature_that_is_none_is_refused(tenant: Tenant, provider: str, value: bytes) -> None:
    body = event(provider)
    headers = replaced(headers_of(provider, body), signature_header(provider), value)
    answer = sent(tenant, endpoint_of(tenant, provider), headers, body)
    assert (answer.status, answer.code) == (401, "webhook_unproven")


@pytest.mark.parametrize("provider", SIGNERS)
def test_of_several_signatures_one_must_be_right(tenant: Tenant, provider: str) -> None:
    body, path = event(provider), endpoint_of(tenant, provider)
    headers, name = headers_of(provider, body), signature_header(provider)
    right = value_of(headers, name)
    if provider == "stripe":
        several = [b"v1=zz," + right, right + b",v1=" + b"0" * 64, right + b",v0=1"]
        older = right.replace(b"v1=", b"v0=")
    else:
        several = [b"v1,a,b " + right, right + b" v1," + b"A" * 43 + b"=", b"v1a,xx " + right]
        older = right.replace(b"v1,", b"v1a,")
    for value in several:
        assert sent(tenant, path, replaced(headers, name, value), body).status == 200
    assert sent(tenant, path, replaced(headers, name, older), body).status == 401


@pytest.mark.parametrize("written", [b"+179000000", b"1_79000000", b"17 0000000", b"1790000000.9"])
@pytest.mark.parametrize("provider", SIGNERS)
def test_a_time_is_ten_digits(tenant: Tenant, provider: str, written: bytes) -> None:
    answer = signed(tenant, provider, event(provider), at=written)
    assert (answer.status, answer.code) == (400, "webhook_malformed")
    assert answer.body["fault"] == "timestamp_malformed"


def test_what_is_told_twice_is_refused(tenant: Tenant) -> None:
    for provider in PROVIDERS:
        body, path = event(provider), endpoint_of(tenant, provider)
        headers = headers_of(provider, body)
        answer = sent(tenant, path, [*headers, headers[-1]], body)
        assert (answer.status, answer.body["fault"]) == (400, "header_repeated")
    right = value_of(headers_of("stripe", event("stripe")), b"stripe-signature")
    answer = sent(
        tenant,
        endpoint_of(tenant, "stripe"),
        [(b"stripe-signature", b"t=1790000000," + right)],
        event("stripe"),
    )
    assert (answer.status, answer.body["fault"]) == (400, "timestamp_repeated")


@pytest.mark.parametrize("provider", PREFIXES)
def test_an_id_has_no_dot(tenant: Tenant, provider: str) -> None:
    answer = signed(tenant, provider, event(provider), message_id=b"msg.1")
    assert (answer.status, answer.body["fault"]) == (400, "id_malformed")


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    "body", [b"[]", b"null", b"{", b"", b"not JSON", b'{"a":1,"a":2}', b"\xff"]
)
def test_a_signed_body_is_an_object_in_utf8(tenant: Tenant, provider: str, body: bytes) -> None:
    answer = signed(tenant, provider, body)
    assert (answer.status, answer.code) == (400, "webhook_malformed")
    assert answer.body["fault"] == "body_malformed"


def test_a_secret_that_proves_nothing_cannot_be_given(tenant: Tenant) -> None:
    for provider, secret in (("users", "whsec_YQ=="), ("clerk", "whsec_no base64"), ("asaas", "a")):
        made = tenant.admin.post(ENDPOINTS, {"provider": provider, "secret": secret})
        assert (made.status, made.code) == (422, "invalid_request")


def test_what_takes_nothing_is_one_and_the_same_404(tenant: Tenant) -> None:
    body = event("stripe")
    disabled = endpoint_of(tenant, "stripe")
    made = tenant.admin.send(
        "PATCH", f"{ENDPOINTS}/{disabled.rpartition('/')[2]}", {"state": "disabled"}, key="k"
    )
    assert made.status == 200
    bare = tenant.admin.post(ENDPOINTS, {"provider": "stripe"}).body["path"]
    live = endpoint_of(tenant, "stripe").rpartition("/")[2]
    told = []
    for path in (
        disabled,
        bare,
        "/webhooks/stripe/whe_" + "0" * 26,
        "/webhooks/stripe/x",
        f"/webhooks/users/{live}",
        f"/webhooks/paypal/{live}",
        "/webhooks/stripe/%00",
        "/webhooks/stripe",
    ):
        answer = sent(tenant, path, headers_of("stripe", body), body)
        assert answer.status == 404, path
        told.append({name: value for name, value in answer.body.items() if name != "request_id"})
    assert [one for one in told if one != told[0]] == []
    assert sent(tenant, f"/webhooks/stripe/{live}", headers_of("stripe", body), body).status == 200


def test_a_body_that_is_too_large_is_refused_before_it_is_read(tenant: Tenant) -> None:
    path, body = endpoint_of(tenant, "stripe"), b" " * (BODY_BYTES_MAX + 1)
    for content in (body, iter([body[:-1], body])):
        answer = sent(tenant, path, headers_of("stripe", body), content)
        assert (answer.status, answer.code) == (413, "body_too_large")
        assert answer.body["max_bytes"] == BODY_BYTES_MAX


def test_only_a_post_without_parameters_is_taken(tenant: Tenant) -> None:
    path, body = endpoint_of(tenant, "stripe"), event("stripe")
    assert tenant.reader.get(path).status == 405
    answer = sent(tenant, f"{path}?livemode=true", headers_of("stripe", body), body)
    assert (answer.status, answer.code) == (422, "invalid_request")
