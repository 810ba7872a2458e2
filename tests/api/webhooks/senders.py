"""What each provider sends, signed by code of the tests' own, from the standards' texts."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from typing import Any

Headers = list[tuple[bytes, bytes]]

AT = 1_790_000_000
NOW = datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)
PROVIDERS = ("stripe", "clerk", "asaas", "users")
SIGNERS = ("stripe", "clerk", "users")
SECRETS = {
    "stripe": "whsec_" + "Zm9yLXRoZS10ZXN0cy1vZi1zdHJpcGUtMDE",
    "clerk": "whsec_" + base64.b64encode(b"for the tests of clerk 1").decode(),
    "users": "whsec_" + base64.b64encode(b"for the tests of a users' system, no. 1").decode(),
    "asaas": "t0k3n-f0r-th3-t3sts-0f-asaas-n0-1!",
}
OTHERS = {
    "stripe": "whsec_" + "Zm9yLXRoZS10ZXN0cy1vZi1zdHJpcGUtMDI",
    "clerk": "whsec_" + base64.b64encode(b"for the tests of clerk 2").decode(),
    "users": "whsec_" + base64.b64encode(b"for the tests of a users' system, no. 2").decode(),
    "asaas": "t0k3n-f0r-th3-t3sts-0f-asaas-n0-2!",
}
PREFIXES = {"clerk": b"svix", "users": b"webhook"}
EVENTS: dict[str, dict[str, Any]] = {
    "stripe": {
        "id": "evt_1",
        "object": "event",
        "created": AT - 2,
        "data": {"object": {"id": "in_1", "object": "invoice", "amount_paid": 2000}},
        "type": "invoice.paid",
    },
    "clerk": {
        "data": {"id": "user_1", "object": "user", "first_name": "Zoë"},
        "object": "event",
        "timestamp": AT * 1000 - 1,
        "type": "user.created",
    },
    "users": {
        "type": "credits.delta",
        "timestamp": "2026-09-21T14:13:20.5Z",
        "data": {"id": "d_1", "user": "u_1", "delta": "-2.5"},
    },
    "asaas": {
        "id": "evt_05b708f961d739ea7eba7e4db318f621&368604920",
        "event": "PAYMENT_RECEIVED",
        "dateCreated": "2026-09-21 11:13:20",
        "payment": {"object": "payment", "id": "pay_1", "value": 94.51},
    },
}
BODIES = {provider: json.dumps(event).encode() for provider, event in EVENTS.items()}


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """RFC 2104, written out."""
    if len(key) > 64:
        key = hashlib.sha256(key).digest()
    key = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + message).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in key) + inner).digest()


def hex_signature(secret: str, at: bytes, body: bytes) -> bytes:
    """Stripe's: the secret is the key as it is."""
    return hmac_sha256(secret.encode(), at + b"." + body).hex().encode()


def v1_signature(secret: str, message_id: bytes, at: bytes, body: bytes) -> bytes:
    """Standard Webhooks': the secret is the key in base64."""
    key = base64.b64decode(secret.partition("_")[2])
    signed = b".".join([message_id, at, body])
    return b"v1," + base64.b64encode(hmac_sha256(key, signed))


def headers_of(
    provider: str,
    body: bytes,
    *,
    at: int | bytes = AT,
    secret: str | None = None,
    message_id: bytes = b"msg_1",
) -> Headers:
    """Return the headers that `provider` sends with `body`."""
    secret = SECRETS[provider] if secret is None else secret
    time = str(at).encode() if isinstance(at, int) else at
    sent = [(b"host", b"scrip.example"), (b"content-type", b"application/json")]
    if provider == "asaas":
        return [*sent, (b"asaas-access-token", secret.encode())]
    if provider == "stripe":
        signature = hex_signature(secret, time, body)
        return [*sent, (b"stripe-signature", b"t=" + time + b",v1=" + signature)]
    prefix = PREFIXES[provider]
    return [
        *sent,
        (prefix + b"-id", message_id),
        (prefix + b"-timestamp", time),
        (prefix + b"-signature", v1_signature(secret, message_id, time, body)),
    ]


def signature_header(provider: str) -> bytes:
    return b"stripe-signature" if provider == "stripe" else PREFIXES[provider] + b"-signature"


def replaced(headers: Headers, name: bytes, value: bytes) -> Headers:
    """Return the headers with another value of one."""
    return [(key, value if key == name else old) for key, old in headers]


def value_of(headers: Headers, name: bytes) -> bytes:
    (value,) = [value for key, value in headers if key == name]
    return value
