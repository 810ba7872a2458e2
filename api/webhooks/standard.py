"""Standard Webhooks 1.0.0, and Svix, which is the same under other names of headers.

`…-signature` is a list of `v1,<base64>` over `{id}.{timestamp}.{body}`, with one space between.
The key is what `whsec_` is followed by, decoded: the opposite of Stripe.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from svix.webhooks import Webhook

from api.webhooks import guard
from api.webhooks.guard import RawHeaders, WebhookRefused
from ledger.domain.facts import Provider

_V1 = re.compile(rb"v1,[A-Za-z0-9+/]{43}=")


def verify(
    headers: RawHeaders,
    body: bytes,
    secrets: Sequence[str],
    now: datetime,
    provider: Provider,
    *,
    prefix: bytes,
) -> tuple[str, dict[str, Any]]:
    """Return the id and the payload of a message signed with one of the secrets.

    The headers are `{prefix}-id`, `{prefix}-timestamp` and `{prefix}-signature`. Raises
    WebhookRefused.
    """
    usable = guard.admit(body, secrets, provider)
    message_id = guard.message_id(guard.only(headers, prefix + b"-id"))
    signed_time = guard.signed_time(guard.only(headers, prefix + b"-timestamp"), now)
    given = _well_formed(guard.only(headers, prefix + b"-signature"))
    text = guard.text_of(body)
    # `Webhook.verify` would ask a clock of its own, and fails on a malformed signature before the
    # right one. What it would compare with is `sign`.
    right = [Webhook(secret).sign(message_id, signed_time, text).encode() for secret in usable]
    if not any(hmac.compare_digest(one, other) for one in given for other in right):
        raise WebhookRefused("signature_mismatch", "a v1 signature must be right for the body")
    return message_id, guard.payload_of(body)


def _well_formed(header: bytes) -> list[bytes]:
    """Return the v1 signatures of a header that can be right; others are skipped."""
    items = header.split(b" ")
    found = [item for item in items if _V1.fullmatch(item)]
    if len(header) > guard.SIGNATURES_BYTES_MAX or not all(items) or not found:
        rule = (
            "the signatures must be a list of v1,<base64 of 32 bytes>, separated by single spaces,"
            f" of at most {guard.SIGNATURES_BYTES_MAX} bytes"
        )
        raise WebhookRefused("signature_malformed", rule)
    return found
