"""Who sends webhooks: the name of each provider, how it is verified, and its kind of secret."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Literal

from api.webhooks import asaas, clerk, stripe, users
from api.webhooks.guard import Delivery, RawHeaders

Provider = Literal["stripe", "clerk", "asaas", "users"]

_VERIFY: Final[dict[Provider, Callable[[RawHeaders, bytes, Sequence[str], datetime], Delivery]]] = {
    "stripe": stripe.verify,
    "clerk": clerk.verify,
    "asaas": asaas.verify,
    "users": users.verify,
}
_BROKEN_RULE: Final[dict[Provider, Callable[[str], str | None]]] = {
    "stripe": stripe.broken_rule,
    "clerk": clerk.broken_rule,
    "asaas": asaas.broken_rule,
    "users": users.broken_rule,
}


def verify(
    provider: Provider, headers: RawHeaders, body: bytes, secrets: Sequence[str], now: datetime
) -> Delivery:
    """Return what `provider` sent, if one of the endpoint's active `secrets` proves it.

    `body` is the raw bytes. Raises WebhookRefused, and nothing else, whatever was sent.
    """
    return _VERIFY[provider](headers, body, secrets, now)


def check_secret(provider: Provider, secret: str) -> None:
    """Check a secret before it is stored.

    Raises ValueError, whose text states the broken rule and holds nothing of the secret.
    """
    rule = _BROKEN_RULE[provider](secret)
    if rule is not None:
        raise ValueError(rule)
