"""A user system of the tenant's own: Standard Webhooks, so `webhook-*` headers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from api.webhooks import guard, standard
from api.webhooks.guard import Delivery, RawHeaders


def verify(headers: RawHeaders, body: bytes, secrets: Sequence[str], now: datetime) -> Delivery:
    """Return the event, if it is signed with one of the secrets. Raises WebhookRefused."""
    message_id, payload = standard.verify(headers, body, secrets, now, "users", prefix=b"webhook")
    return Delivery(
        id=message_id,
        type=guard.event_type(payload),
        payload=payload,
        occurred_at=guard.written_time(payload.get("timestamp")),
    )
