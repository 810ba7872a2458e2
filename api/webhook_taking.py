"""Webhooks in: proven, put into JetStream, and only then answered with 200.

The order of checks: path and method (404, 405), the endpoint (404), the size of the body (413),
then what the provider's scheme says (400, 401). Whatever is proven is taken.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, cast, get_args

import structlog
from msgspec import Struct

from api.payment_stream import message_bytes_max, store
from api.problems import (
    BodyTooLarge,
    NatsUnavailable,
    RouteNotFound,
    SecretsUnreadable,
    WebhookMalformed,
    WebhookUnproven,
)
from api.routes import Call, Hook, ReadBody
from api.webhook_receiving import LiveEndpoint
from api.webhooks.guard import BODY_BYTES_MAX, Delivery, RawHeaders, WebhookRefused
from api.webhooks.providers import verify
from api.webhooks.telling import message_of
from ledger.domain.errors import LedgerError, StoreUnavailable
from ledger.domain.facts import Provider

PROVIDERS: Final[frozenset[str]] = frozenset(get_args(Provider))
log = structlog.get_logger("scrip.api")


class WebhookTaken(Struct, frozen=True, kw_only=True):
    """The delivery is stored, and nothing that it tells will be lost.

    `facts` is how many it tells by itself. `unreadable` says why none, if there should be some.
    """

    id: str
    type: str
    facts: int
    unreadable: str | None


async def _take(call: Call, headers: RawHeaders, read: ReadBody) -> WebhookTaken | None:
    endpoint = await _endpoint(call)
    body = await read(BODY_BYTES_MAX)
    if body is None:
        return None
    way, now = call.room.deps.nats, call.room.deps.writer.clock()
    delivery = _proven(endpoint, headers, body, now)
    message = message_of(endpoint, delivery, body, now, message_bytes_max(way))
    await store(way, endpoint.tenant, message)
    log.info(
        "webhook.taken",
        tenant=endpoint.tenant,
        endpoint=endpoint.id,
        id=message.id,
        type=message.type,
        facts=len(message.facts),
        unreadable=message.unreadable,
        request_id=call.request_id,
    )
    return WebhookTaken(
        id=message.id,
        type=message.type,
        facts=len(message.facts),
        unreadable=message.unreadable,
    )


async def _endpoint(call: Call) -> LiveEndpoint:
    """Return the endpoint. One that is disabled is as one that never was."""
    provider = call.path["provider"]
    if provider in PROVIDERS:
        name = cast("Provider", provider)
        found = await call.room.receivers.find(call.path["endpoint"], name)
        if found is not None:
            return found
    raise RouteNotFound


def _proven(endpoint: LiveEndpoint, headers: RawHeaders, body: bytes, now: datetime) -> Delivery:
    secrets = [secret.value.get_secret_value() for secret in endpoint.secrets]
    try:
        return verify(endpoint.provider, headers, body, secrets, now)
    except WebhookRefused as refused:
        log.info("webhook.refused", endpoint=endpoint.id, fault=refused.code)
        raise _refusal(refused) from None


def _refusal(refused: WebhookRefused) -> LedgerError:
    match refused.status:
        case 404:
            return RouteNotFound()
        case 413:
            return BodyTooLarge(max_bytes=BODY_BYTES_MAX)
        case 401:
            return WebhookUnproven(fault=refused.code, rule=refused.rule)
        case _:
            return WebhookMalformed(fault=refused.code, rule=refused.rule)


TAKE_WEBHOOK = Hook(
    method="POST",
    path="/webhooks/{provider}/{endpoint}",
    name="take_webhook",
    tag="webhooks",
    summary="Take what a payment provider or a user system tells",
    details="The sender is known by its signature (for `asaas`, by its token) over the body as it"
    " was sent. 200 means that it is stored; whoever gets anything else must send it again.",
    roles=None,
    refusals=(
        RouteNotFound,
        BodyTooLarge,
        WebhookMalformed,
        WebhookUnproven,
        NatsUnavailable,
        SecretsUnreadable,
        StoreUnavailable,
    ),
    handle=_take,
    answer=WebhookTaken,
)
