"""Stripe: `Stripe-Signature: t=…,v1=…` over `{t}.{body}`. The key is the whole `whsec_…` text.

Snapshot events (`object: event`) and thin ones (`object: v2.core.event`, without data) are signed
alike. An account can have both kinds sent: then one action arrives twice, under two ids.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from stripe import SignatureVerificationError, WebhookSignature

from api.webhooks import guard
from api.webhooks.guard import Delivery, RawHeaders, WebhookRefused

SIGNATURE: Final = b"stripe-signature"
_HEX_SHA256 = re.compile(rb"[0-9a-f]{64}")
_EVENT_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


def verify(headers: RawHeaders, body: bytes, secrets: Sequence[str], now: datetime) -> Delivery:
    """Return the event, if it is signed with one of the secrets. Raises WebhookRefused."""
    usable = guard.admit(body, secrets, "stripe")
    header = _checked(guard.only(headers, SIGNATURE), now)
    text = guard.text_of(body)
    if not any(_is_signed(text, header, secret) for secret in usable):
        raise WebhookRefused("signature_mismatch", "a v1 signature must be right for the body")
    payload = guard.payload_of(body)
    created = payload.get("created")
    return Delivery(
        id=guard.event_id(payload, _EVENT_ID),
        type=guard.event_type(payload),
        payload=payload,
        # A snapshot event counts the seconds, a thin one writes the time out.
        occurred_at=guard.counted_time(created) or guard.written_time(created),
    )


def _checked(header: bytes, now: datetime) -> str:
    """Return the time and the well-formed v1 signatures of a header: all that the library sees."""
    if len(header) > guard.SIGNATURES_BYTES_MAX:
        rule = f"the signatures must be at most {guard.SIGNATURES_BYTES_MAX} bytes"
        raise WebhookRefused("signature_malformed", rule)
    elements = [element.partition(b"=") for element in header.split(b",")]
    times = [value for key, _, value in elements if key == b"t"]
    if len(times) > 1:
        raise WebhookRefused("timestamp_repeated", "t must be given once")
    signatures = [
        value for key, _, value in elements if key == b"v1" and _HEX_SHA256.fullmatch(value)
    ]
    if not times or not signatures:
        rule = "the header must hold t= and a v1= of 64 hexadecimal digits in lower case"
        raise WebhookRefused("signature_malformed", rule)
    guard.signed_time(times[0], now)
    return b",".join([b"t=" + times[0], *(b"v1=" + value for value in signatures)]).decode("ascii")


def _is_signed(text: str, header: str, secret: str) -> bool:
    try:
        # Without a tolerance: the library checks the past alone, and by a clock of its own.
        WebhookSignature.verify_header(text, header, secret, tolerance=None)
    except SignatureVerificationError:
        return False
    return True
