"""Payment messages into JetStream: a webhook is answered once its message is stored there."""

from __future__ import annotations

from typing import Final

import structlog
from nats.errors import Error as NatsError

from api.problems import NatsUnavailable
from api.routes import NatsWay
from ledger.domain.facts import Provider
from ledger.payment_messages import (
    PAYMENT_BYTES_MAX,
    PAYMENT_STREAM,
    PaymentMessage,
    encode_message,
)

ACK_SECONDS_MAX: Final = 5.0
"""Svix waits 15 seconds for an answer, and Stripe somewhat longer."""
HEADERS_BYTES_MAX: Final = 4_096
MSG_ID: Final = "Nats-Msg-Id"
log = structlog.get_logger("scrip.api")


def message_bytes_max(way: NatsWay | None) -> int:
    """Return how large a message may be. Raises NatsUnavailable if there is nowhere to send it."""
    if way is None or way.client is None or not way.client.is_connected:
        raise NatsUnavailable
    return min(PAYMENT_BYTES_MAX, way.client.max_payload - HEADERS_BYTES_MAX)


async def store(way: NatsWay | None, tenant: str, message: PaymentMessage) -> None:
    """Return once JetStream has stored a message, now or before.

    Raises NatsUnavailable if it does not say so. It may have been stored then: whoever sends the
    webhook again sends the same message.
    """
    message_bytes_max(way)
    assert way is not None
    assert way.client is not None
    provider: Provider = message.provider
    try:
        await way.client.jetstream(timeout=ACK_SECONDS_MAX).publish(
            way.payment_subject(tenant, provider),
            encode_message(message),
            timeout=ACK_SECONDS_MAX,
            stream=PAYMENT_STREAM,
            headers={MSG_ID: message.id},
        )
    except (NatsError, OSError, TimeoutError) as error:
        why = f"{type(error).__name__}: {error}".strip(": ")
        log.warning("webhook.not_stored", endpoint=message.endpoint, id=message.id, why=why)
        raise NatsUnavailable from error
