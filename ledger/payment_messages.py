"""What passes through NATS of a webhook: written by whoever received it, read by the worker."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec
from msgspec import Raw, Struct

from ledger.domain.facts import PaymentFact, Provider

PAYMENT_STREAM: Final = "PAYMENT"
PAYMENT_BYTES_MAX: Final = 512 * 1024
"""The largest message. A dead letter adds headers, and must fit what NATS carries (1 MiB)."""


class PaymentMessage(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """One delivery whose sender is proven, and the facts it tells. Its tenant is in its subject.

    A delivery that tells no facts may be of a type that is none of ours, be `unreadable`, or ask
    for a payment to be fetched (`fetch`): then the facts are in what is fetched.
    """

    id: str
    """Of endpoint, delivery and body: the same whenever the same bytes are delivered again."""
    endpoint: str
    provider: Provider
    delivery: str
    """The provider's id; unique for one endpoint alone."""
    type: str
    occurred_at: datetime | None = None
    """UTC; what the sender states, if it can be read."""
    received_at: datetime
    payload: Raw
    """JSON: what the provider sent, as far as it is known to hold no personal data."""
    facts: tuple[PaymentFact, ...] = ()
    fetch: str | None = None
    """The payment, by Asaas's id, that must be fetched from there before anything follows."""
    unreadable: str | None = None
    """Why nothing follows although it should: a field and its rule."""


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(PaymentMessage)


def encode_message(message: PaymentMessage) -> bytes:
    """Return the JSON of a message."""
    return _encode(message)


def decode_message(payload: bytes) -> PaymentMessage:
    """Return the message in some JSON. Raises msgspec.MsgspecError or UnicodeDecodeError."""
    return _decoder.decode(payload)
