"""What is made of a webhook that can be believed; and that the providers' libraries agree."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from stripe import Webhook as StripeWebhook
from svix.webhooks import Webhook as SvixWebhook

from api.webhooks import providers
from api.webhooks.guard import Delivery
from tests.api.webhooks.senders import (
    AT,
    BODIES,
    EVENTS,
    NOW,
    PROVIDERS,
    SECRETS,
    SIGNERS,
    headers_of,
    hmac_sha256,
    value_of,
)


def _delivered(provider: str, body: bytes) -> Delivery:
    return providers.verify(provider, headers_of(provider, body), body, [SECRETS[provider]], NOW)


@pytest.mark.parametrize(
    ("provider", "name", "kind", "occurred_at"),
    [
        ("stripe", "evt_1", "invoice.paid", datetime(2026, 9, 21, 14, 13, 18, tzinfo=UTC)),
        ("clerk", "msg_1", "user.created", datetime(2026, 9, 21, 14, 13, 19, 999_000, tzinfo=UTC)),
        ("users", "msg_1", "credits.delta", datetime(2026, 9, 21, 14, 13, 20, 500_000, tzinfo=UTC)),
        (
            "asaas",
            "evt_05b708f961d739ea7eba7e4db318f621&368604920",
            "PAYMENT_RECEIVED",
            datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC),
        ),
    ],
)
def test_a_delivery_says_what_happened_and_when(
    provider: str, name: str, kind: str, occurred_at: datetime
) -> None:
    payload = json.loads(BODIES[provider], parse_float=Decimal)
    assert _delivered(provider, BODIES[provider]) == Delivery(
        id=name, type=kind, payload=payload, occurred_at=occurred_at
    )


def test_money_of_asaas_keeps_every_digit() -> None:
    value = _delivered("asaas", BODIES["asaas"]).payload["payment"]["value"]
    assert (type(value), str(value)) == (Decimal, "94.51")


def test_a_thin_event_of_stripe_is_a_delivery_without_data() -> None:
    thin = {
        "id": "evt_thin1",
        "object": "v2.core.event",
        "type": "v1.invoice.paid",
        "livemode": False,
        "created": "2026-09-21T14:13:18.000Z",
        "related_object": {"id": "in_1", "type": "invoice", "url": "/v1/invoices/in_1"},
    }
    assert _delivered("stripe", json.dumps(thin).encode()) == Delivery(
        id="evt_thin1",
        type="v1.invoice.paid",
        payload=thin,
        occurred_at=datetime(2026, 9, 21, 14, 13, 18, tzinfo=UTC),
    )


@pytest.mark.parametrize("name", ["created", "timestamp", "dateCreated"])
@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -1,
        10**400,
        1.5,
        1e300,
        "",
        "yesterday",
        "9999-12-31 23:59:59",
        "0001-01-01",
        [],
        {},
        "9999-12-31T23:59:59-23:59",
        "2026-09-21T14:13:20",
        "2026-13-01 00:00:00",
        "٢٠٢٦-٠٩",
    ],
)
def test_a_time_that_cannot_be_read_is_left_out(name: str, value: object) -> None:
    provider = {"created": "stripe", "timestamp": "clerk", "dateCreated": "asaas"}[name]
    for sender in {provider, "users"} if name == "timestamp" else {provider}:
        body = json.dumps({**EVENTS[sender], name: value}).encode()
        assert _delivered(sender, body).occurred_at is None


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_time_may_be_missing(provider: str) -> None:
    names = {"created", "timestamp", "dateCreated"}
    event = {name: value for name, value in EVENTS[provider].items() if name not in names}
    assert _delivered(provider, json.dumps(event).encode()).occurred_at is None


@pytest.mark.parametrize("provider", SIGNERS)
def test_what_is_signed_is_the_bytes_and_not_the_json(provider: str) -> None:
    # The same JSON in other bytes, as some senders write it.
    for body in (
        json.dumps(EVENTS[provider], separators=(",", ":")).encode(),
        json.dumps(EVENTS[provider], ensure_ascii=False, indent=2).encode(),
        b" \r\n\t" + BODIES[provider] + b"\n",
    ):
        assert _delivered(provider, body).payload == EVENTS[provider]


@pytest.mark.parametrize("provider", SIGNERS)
def test_the_libraries_believe_what_we_believe(provider: str) -> None:
    # Their clock is the machine's.
    now, body, secret = datetime.now(UTC), BODIES[provider], SECRETS[provider]
    headers = headers_of(provider, body, at=int(now.timestamp()))
    assert providers.verify(provider, headers, body, [secret], now).type
    if provider == "stripe":
        header = value_of(headers, b"stripe-signature").decode()
        assert StripeWebhook.construct_event(body, header, secret).id == "evt_1"
    else:
        texts = {name.decode(): value.decode() for name, value in headers}
        SvixWebhook(secret).verify(body, texts)


@pytest.mark.parametrize(
    ("key", "message"), [(b"k", b"m"), (b"k" * 64, b""), (b"k" * 65, b"m" * 99)]
)
def test_the_tests_sign_as_hmac_does(key: bytes, message: bytes) -> None:
    assert hmac_sha256(key, message) == hmac.digest(key, message, hashlib.sha256)


def test_the_tests_sign_as_the_standard_says() -> None:
    # RFC 4231, test case 2.
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert hmac_sha256(b"Jefe", b"what do ya want for nothing?").hex() == expected
    assert datetime.fromtimestamp(AT, UTC) == NOW
