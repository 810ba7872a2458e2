"""A delivery that is proven becomes the message that workers get: what it tells, what is kept.

Whatever it holds, there is a message: a sender whose delivery is refused sends it again and
again, and some then send nothing else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from msgspec import Raw
from msgspec.structs import replace

from api.webhook_receiving import LiveEndpoint
from api.webhooks import clerk_facts, stripe_facts, users_facts
from api.webhooks.guard import Delivery
from api.webhooks.reading import Part, Unreadable
from api.webhooks.redacting import redacted
from ledger.domain.facts import PaymentFact, Provider
from ledger.domain.values import derived_id
from ledger.payment_messages import PaymentMessage, encode_message

_FACTS: Final[dict[Provider, Callable[[str, str, dict[str, Any]], tuple[PaymentFact, ...]]]] = {
    "stripe": stripe_facts.facts,
    "clerk": clerk_facts.facts,
    "users": users_facts.facts,
}
"""Of those whose signature covers the body. Of Asaas, nothing is believed but that it called."""
_THIN: Final = "v2.core.event"
_NOTHING: Final = Raw(b"{}")
# It becomes part of an address that is asked with the tenant's key.
_PAYMENT_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


def message_of(
    endpoint: LiveEndpoint, delivery: Delivery, body: bytes, received_at: datetime, bytes_max: int
) -> PaymentMessage:
    """Return the message for a delivery; in JSON, it has at most `bytes_max` bytes."""
    content = hashlib.sha256(body).hexdigest()
    message = PaymentMessage(
        id=derived_id("dlv", f"{endpoint.id}\0{delivery.id}\0{content}"),
        endpoint=endpoint.id,
        provider=endpoint.provider,
        delivery=delivery.id,
        type=delivery.type,
        occurred_at=delivery.occurred_at,
        received_at=received_at,
        payload=redacted(endpoint.provider, delivery.payload),
    )
    try:
        if endpoint.provider == "asaas":
            message = replace(message, fetch=_payment(delivery))
        else:
            message = replace(message, facts=_facts(endpoint, delivery))
    except Unreadable as error:
        message = replace(message, unreadable=str(error))
    if len(encode_message(message)) > bytes_max:
        message = replace(message, payload=_NOTHING)
    if len(encode_message(message)) > bytes_max:
        rule = f"tells more than fits into {bytes_max} bytes"
        message = replace(message, facts=(), unreadable=f"payload {rule}")
    return message


def _facts(endpoint: LiveEndpoint, delivery: Delivery) -> tuple[PaymentFact, ...]:
    payload = delivery.payload
    if endpoint.provider == "stripe":
        # An event of the other mode says so; what says nothing has been signed with our secret.
        if payload.get("livemode", endpoint.livemode) is not endpoint.livemode:
            raise Unreadable(
                "livemode", f"must be {str(endpoint.livemode).lower()} at this endpoint"
            )
        if payload.get("object") == _THIN:
            raise Unreadable("object", "must be event: choose snapshot payloads at Stripe")
    return _FACTS[endpoint.provider](delivery.id, delivery.type, payload)


def _payment(delivery: Delivery) -> str | None:
    """Return the payment that an event of Asaas is about, if it is about one."""
    if not delivery.type.startswith("PAYMENT_"):
        return None
    payment = Part(delivery.payload).part("payment")
    name = payment.id("id")
    if name is None or not _PAYMENT_ID.fullmatch(name):
        raise Unreadable(payment.field("id"), f"must match {_PAYMENT_ID.pattern}")
    return name
