"""Who sends webhooks, and how each is verified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from api.webhooks import asaas, clerk, stripe, users
from api.webhooks.guard import Delivery, RawHeaders
from ledger.domain.facts import Provider

_VERIFY: Final[dict[Provider, Callable[[RawHeaders, bytes, Sequence[str], datetime], Delivery]]] = {
    "stripe": stripe.verify,
    "clerk": clerk.verify,
    "asaas": asaas.verify,
    "users": users.verify,
}


def verify(
    provider: Provider, headers: RawHeaders, body: bytes, secrets: Sequence[str], now: datetime
) -> Delivery:
    """Return what `provider` sent, if one of the endpoint's active `secrets` proves it.

    `body` is the raw bytes. Raises WebhookRefused, and nothing else, whatever was sent.
    """
    return _VERIFY[provider](headers, body, secrets, now)
