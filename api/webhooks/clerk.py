"""Clerk: signed by Svix, so with `svix-*` headers. The id is a header; the body has none.

The body holds personal data (`event_attributes`, names, addresses), and its times are in
milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from api.webhooks import guard, standard
from api.webhooks.guard import Delivery, RawHeaders


def verify(headers: RawHeaders, body: bytes, secrets: Sequence[str], now: datetime) -> Delivery:
    """Return the event, if it is signed with one of the secrets. Raises WebhookRefused."""
    message_id, payload = standard.verify(headers, body, secrets, now, "clerk", prefix=b"svix")
    return Delivery(
        id=message_id,
        type=guard.event_type(payload),
        payload=payload,
        occurred_at=guard.counted_time(payload.get("timestamp"), per_second=1_000),
    )
