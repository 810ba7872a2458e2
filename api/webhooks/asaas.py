"""Asaas: no signature, but a token that both sides know, in `asaas-access-token`.

The token binds neither the body nor a time. So the payment must be fetched again from Asaas before
anything is granted, and the id of the event is all there is against a repetition.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from api.webhooks import guard
from api.webhooks.guard import Delivery, RawHeaders, WebhookRefused

TOKEN: Final = b"asaas-access-token"
ZONE: Final = ZoneInfo("America/Sao_Paulo")
"""Asaas writes times without a zone. This is where it is; the documents do not say."""
# As in `evt_05b708f961d739ea7eba7e4db318f621&368604920`.
_EVENT_ID = re.compile(r"[A-Za-z0-9_&-]{1,128}")


def verify(
    headers: RawHeaders,
    body: bytes,
    secrets: Sequence[str],
    now: datetime,  # noqa: ARG001 - Nothing that Asaas sends could be held against it.
) -> Delivery:
    """Return the event, if it came with one of the tokens. Raises WebhookRefused."""
    usable = guard.admit(body, secrets, "asaas")
    token = guard.only(headers, TOKEN)
    if not any(hmac.compare_digest(token, secret.encode()) for secret in usable):
        raise WebhookRefused("token_mismatch", f"the header {TOKEN.decode()} must be the token")
    payload = guard.payload_of(body)
    return Delivery(
        id=guard.event_id(payload, _EVENT_ID),
        type=guard.event_type(payload, "event"),
        payload=payload,
        occurred_at=_local_time(payload.get("dateCreated")),
    )


def _local_time(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        return guard.in_range(datetime.strptime(value, "%Y-%m-%d %H:%M:%S").replace(tzinfo=ZONE))
    except ValueError:
        return None
