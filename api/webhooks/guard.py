"""What all webhooks have in common: limits, a strict grammar, a refusal, and what comes out.

Whatever arrives here may come from anybody. So it is held against a grammar first, byte by byte;
the provider's own library sees only what has passed. It is either a Delivery or WebhookRefused,
and never another exception.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct

from api.decoding import CONTAINERS, Decoder
from api.fields import EARLIEST, LATEST, Moment
from api.webhook_secrets import broken_rule
from ledger.domain.errors import LedgerError
from ledger.domain.facts import Provider

RawHeaders: TypeAlias = Sequence[tuple[bytes, bytes]]
"""The headers of a request as ASGI has them: all of them, in their order."""

TOLERANCE: Final = timedelta(seconds=300)
"""How far a signed time may be from ours, before or after. Nobody can set it, least of all to 0."""
BODY_BYTES_MAX: Final = 1024 * 1024
SIGNATURES_BYTES_MAX: Final = 4_096
NESTING_MAX: Final = 64
"""How deep a payload may go: whoever reads it on may recurse without fear."""

Fault = Literal[
    "endpoint_disabled",
    "body_too_large",
    "header_missing",
    "header_repeated",
    "id_malformed",
    "timestamp_malformed",
    "timestamp_repeated",
    "timestamp_outside_tolerance",
    "signature_malformed",
    "signature_mismatch",
    "token_mismatch",
    "body_malformed",
    "event_malformed",
]
STATUS: Final[dict[Fault, int]] = {
    "endpoint_disabled": 404,
    "body_too_large": 413,
    "header_missing": 401,
    "header_repeated": 400,
    "id_malformed": 400,
    "timestamp_malformed": 400,
    "timestamp_repeated": 400,
    "timestamp_outside_tolerance": 401,
    "signature_malformed": 401,
    "signature_mismatch": 401,
    "token_mismatch": 401,
    "body_malformed": 400,
    "event_malformed": 400,
}
"""400: it can be read in two ways, or in none. 401: nothing proves who sent it."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_SECONDS: Final = int(LATEST.timestamp())
_TIMESTAMP = re.compile(rb"[0-9]{10}")
# No dot: it separates the id from what follows it in the signed bytes.
_MESSAGE_ID = re.compile(rb"[A-Za-z0-9_-]{1,128}")
_TYPE = re.compile(r"[A-Za-z0-9_.]{1,128}")
_decoder: Decoder[dict[str, Any]] = Decoder(dict[str, Any])


class WebhookRefused(Exception):
    """What came cannot be believed. `rule` says what must be so, and echoes nothing of what came.

    `code` is one of `Fault`; `status` is the HTTP status that goes with it: 400, 401, 404 or 413.
    """

    def __init__(self, code: Fault, rule: str) -> None:
        """Refuse for the reason `code`, by `rule`."""
        super().__init__(code, rule)
        self.code = code
        self.rule = rule
        self.status = STATUS[code]


class Delivery(Struct, frozen=True, kw_only=True):
    """One webhook whose sender is proven. Its content is as the sender wrote it, so unchecked.

    `id` is the same on every repetition, and unique for one endpoint alone. Numbers in `payload`
    that are not whole are Decimal. `occurred_at` is what the sender states, if it can be read.
    """

    id: str
    type: str
    payload: dict[str, Any]
    occurred_at: datetime | None = None


def admit(body: bytes, secrets: Sequence[str], provider: Provider) -> list[str]:
    """Return the secrets that may prove a sender: a weak one proves nothing, so it is left out."""
    usable = [secret for secret in secrets if broken_rule(provider, secret) is None]
    if not usable:
        raise WebhookRefused("endpoint_disabled", "the endpoint must have a secret")
    if len(body) > BODY_BYTES_MAX:
        raise WebhookRefused("body_too_large", f"the body must be at most {BODY_BYTES_MAX} bytes")
    return usable


def only(headers: RawHeaders, name: bytes) -> bytes:
    """Return the value of a header that is there exactly once."""
    values = [value for key, value in headers if key.lower() == name]
    if not values:
        raise WebhookRefused("header_missing", f"the header {name.decode()} must be given")
    if len(values) > 1:
        raise WebhookRefused("header_repeated", f"the header {name.decode()} must be given once")
    return values[0]


def message_id(value: bytes) -> str:
    """Return the id of a message, as its header states it."""
    if not _MESSAGE_ID.fullmatch(value):
        raise WebhookRefused("id_malformed", "the id must be 1 to 128 letters, digits, _ and -")
    return value.decode("ascii")


def signed_time(value: bytes, now: datetime) -> datetime:
    """Return a timestamp in whole seconds, if it is within the tolerance of `now`."""
    if not _TIMESTAMP.fullmatch(value):
        raise WebhookRefused("timestamp_malformed", "the timestamp must be 10 digits")
    signed = EPOCH + timedelta(seconds=int(value))
    if abs(now - signed) > TOLERANCE:
        rule = f"the timestamp must be within {TOLERANCE.total_seconds():.0f} seconds of now"
        raise WebhookRefused("timestamp_outside_tolerance", rule)
    return signed


def text_of(body: bytes) -> str:
    """Return the body as text, which encodes to the same bytes again."""
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        raise WebhookRefused("body_malformed", "the body must be in UTF-8") from None


def payload_of(body: bytes) -> dict[str, Any]:
    """Return the body as a JSON object; its names are distinct, and a database can hold it all."""
    text_of(body)
    try:
        payload = _decoder.decode(body)
    except (LedgerError, RecursionError):
        rule = "the body must be a JSON object, with distinct names and without NUL"
        raise WebhookRefused("body_malformed", rule) from None
    if _is_deeper_than(NESTING_MAX, payload):
        rule = f"the body must be nested at most {NESTING_MAX} deep"
        raise WebhookRefused("body_malformed", rule)
    return payload


def _is_deeper_than(levels: int, payload: dict[str, Any]) -> bool:
    level: list[Any] = [payload]
    for _ in range(levels):
        level = [
            part
            for container in level
            for part in (container.values() if type(container) is dict else container)
            if type(part) in CONTAINERS
        ]
        if not level:
            return False
    return True


def event_id(payload: dict[str, Any], pattern: re.Pattern[str]) -> str:
    """Return the `id` that the payload states; all of it matches `pattern`."""
    value = payload.get("id")
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise WebhookRefused("event_malformed", f"id must match {pattern.pattern}")
    return value


def event_type(payload: dict[str, Any], name: str = "type") -> str:
    """Return the type of event that the payload states in its member `name`."""
    value = payload.get(name)
    if not isinstance(value, str) or not _TYPE.fullmatch(value):
        raise WebhookRefused("event_malformed", f"{name} must match {_TYPE.pattern}")
    return value


def counted_time(value: object, *, per_second: int = 1) -> datetime | None:
    """Return a whole number of seconds, or of parts of one, since 1970 as a time."""
    # Not isinstance: True is no time.
    if type(value) is not int or not 0 <= value < _LATEST_SECONDS * per_second:
        return None
    return EPOCH + timedelta(microseconds=value * (1_000_000 // per_second))


def written_time(value: object) -> datetime | None:
    """Return a time in RFC 3339, in UTC."""
    try:
        return Moment.parse(value).value
    except ValueError:
        return None


def in_range(value: datetime) -> datetime | None:
    """Return an aware time in UTC, unless it lies beyond what Scrip takes for a time."""
    return value.astimezone(UTC) if EARLIEST <= value < LATEST else None
