"""Asaas: no signature, but a token that both sides know, in `asaas-access-token`.

The token binds neither the body nor a time. So the payment must be fetched again from Asaas before
anything is granted, and the id of the event is all there is against a repetition.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

from api.webhooks import guard
from api.webhooks.guard import Delivery, RawHeaders, WebhookRefused

TOKEN: Final = b"asaas-access-token"
CHARACTERS_MIN: Final = 32
CHARACTERS_MAX: Final = 255
RUN_MAX: Final = 4
"""How many neighbours in the alphabet may follow each other: 1234, but not 12345."""
ZONE: Final = ZoneInfo("America/Sao_Paulo")
"""Asaas writes times without a zone. This is where it is; the documents do not say."""
_VISIBLE = re.compile(rf"[!-~]{{{CHARACTERS_MIN},{CHARACTERS_MAX}}}")
_REPEATED = re.compile(r"(.)\1{3}")
_API_KEY = re.compile(r"\$?aact_")
# As in `evt_05b708f961d739ea7eba7e4db318f621&368604920`.
_EVENT_ID = re.compile(r"[A-Za-z0-9_&-]{1,128}")


def broken_rule(secret: str) -> str | None:
    """Return what is wrong with a token, if anything is. The rules are those of Asaas."""
    if not _VISIBLE.fullmatch(secret):
        return f"must be {CHARACTERS_MIN} to {CHARACTERS_MAX} visible ASCII characters"
    if _API_KEY.match(secret):
        return "must not be an API key of Asaas"
    if _REPEATED.search(secret):
        return "must not hold the same character 4 times in a row"
    if _has_a_run(secret):
        return "must not hold a run such as 12345"
    return None


def _has_a_run(secret: str) -> bool:
    length = 1
    for before, character in pairwise(secret):
        is_next = ord(character) == ord(before) + 1 and before.isalnum() and character.isalnum()
        length = length + 1 if is_next else 1
        if length > RUN_MAX:
            return True
    return False


def verify(
    headers: RawHeaders,
    body: bytes,
    secrets: Sequence[str],
    now: datetime,  # noqa: ARG001 - Nothing that Asaas sends could be held against it.
) -> Delivery:
    """Return the event, if it came with one of the tokens. Raises WebhookRefused."""
    usable = guard.admit(body, secrets, broken_rule)
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
