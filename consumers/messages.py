"""Generation events, as CloudEvents 1.0: checked to the last field, then turned into an order.

What is decided here is the form of a message alone. What it means for a balance the ledger decides.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from consumers.streams import GENERATION_KINDS, tenant_of
from ledger.domain.commands import CaptureUpTo, Reserve
from ledger.domain.entities import Charge, Usage
from ledger.domain.values import (
    MICRO,
    NAME_MAX,
    TOKENS_MAX,
    TTL_SECONDS_DEFAULT,
    TTL_SECONDS_MAX,
    parse_decimal,
)
from ledger.records import Order

BY: Final = "service:generations"
KEY_MAX: Final = 255
TYPE_PREFIX: Final = "scrip.generation."

Kind = Literal["started", "progressed", "succeeded", "failed", "cancelled"]
Type = Literal[
    "scrip.generation.started",
    "scrip.generation.progressed",
    "scrip.generation.succeeded",
    "scrip.generation.failed",
    "scrip.generation.cancelled",
]
Name = Annotated[str, Meta(pattern=rf"\A[A-Za-z0-9][A-Za-z0-9_.:@|+-]{{0,{NAME_MAX - 1}}}\Z")]
Text = Annotated[str, Meta(pattern=r"\A[^\x00-\x1f\x7f]{1,255}\Z")]
Tokens = Annotated[int, Meta(ge=0, le=TOKENS_MAX)]
Ttl = Annotated[int, Meta(ge=1, le=TTL_SECONDS_MAX)]


class InvalidMessage(Exception):
    """A message that can never be handled as it is. The text says what is wrong with it."""


class Millionths:
    """A decimal with at most 6 places, as a whole number of millionths."""

    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        """Take a whole number of millionths."""
        self.value = value


class UsageIn(Struct, frozen=True, forbid_unknown_fields=True):
    """Tokens so far. Cached input tokens are not counted among the input tokens."""

    input_tokens: Tokens = 0
    output_tokens: Tokens = 0
    cached_input_tokens: Tokens = 0


class EstimateIn(Struct, frozen=True, forbid_unknown_fields=True):
    """What a job may come to: one of the three."""

    amount: Millionths | None = None
    quantity: Millionths | None = None
    usage: UsageIn | None = None


class GenerationData(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happened to a job. `usage`, `quantity` and `amount` are totals since the job began."""

    account: Name
    job: Name
    feature: Text | None = None
    model: Text | None = None
    usage: UsageIn | None = None
    quantity: Millionths | None = None
    amount: Millionths | None = None
    estimate: EstimateIn | None = None
    ttl_seconds: Ttl | None = None
    actor: Text | None = None


class GenerationEvent(Struct, frozen=True, kw_only=True):
    """A CloudEvent in JSON. Attributes that are not named here are extensions, and not read."""

    specversion: Literal["1.0"]
    id: Text
    source: Text
    type: Type
    time: Annotated[datetime, Meta(tz=True)] | None = None
    datacontenttype: Literal["application/json"] = "application/json"
    data: GenerationData

    @property
    def kind(self) -> Kind:
        """The last word of the type."""
        return self.type.removeprefix(TYPE_PREFIX)  # type: ignore[return-value]


def order_of(subject: str, payload: bytes) -> Order:
    """Return what a message asks of the ledger. Raises InvalidMessage."""
    event = parse(payload)
    if subject.rsplit(".", 1)[-1] != event.kind:
        raise InvalidMessage(f"the type {event.type} does not belong to the subject {subject}")
    return Order(
        tenant=tenant_of(subject),
        account=event.data.account,
        command=command_of(event),
        key=key_of(event.source, event.id),
        by=BY,
        occurred_at=event.time,
    )


def parse(payload: bytes) -> GenerationEvent:
    """Return the event in a message. Raises InvalidMessage, which says what is wrong, and where."""
    try:
        return _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessage(str(error)) from error


def command_of(event: GenerationEvent) -> Reserve | CaptureUpTo:
    """Return the command for an event. Raises InvalidMessage if its parts do not fit its type."""
    data, kind = event.data, event.kind
    ttl_seconds = data.ttl_seconds or TTL_SECONDS_DEFAULT
    charge = _charge("data", data, data.feature, data.model)
    if kind == "started":
        if charge is not None:
            raise InvalidMessage(
                "started states what may be used, as data.estimate, and no usage yet"
            )
        if data.estimate is not None:
            estimate = _charge("data.estimate", data.estimate, data.feature, data.model)
            if estimate is None:
                raise InvalidMessage("data.estimate must state an amount, a quantity or a usage")
            return Reserve(
                id=data.job,
                charge=estimate,
                ttl_seconds=ttl_seconds,
                actor=data.actor,
                job=data.job,
            )
    elif data.estimate is not None:
        raise InvalidMessage(f"data.estimate belongs to started, not to {kind}")
    elif charge is None and kind in {"progressed", "succeeded"}:
        raise InvalidMessage(f"{kind} must state data.usage, data.quantity or data.amount")
    return CaptureUpTo(
        operation=data.job,
        charge=charge,
        final=kind in {"succeeded", "failed", "cancelled"},
        ttl_seconds=ttl_seconds,
        actor=data.actor,
        job=data.job,
    )


def key_of(source: str, event_id: str) -> str:
    """Return the idempotency key of an event: its source and id, or their hash where they are long.

    A hash as well where the two could be told apart in more than one way.
    """
    key = f"ce:{source}#{event_id}"
    if len(key) <= KEY_MAX and "#" not in source and key.isascii() and " " not in key:
        return key
    digest = hashlib.sha256(f"{len(source)}:{source}{event_id}".encode()).hexdigest()
    return f"ce:sha256:{digest}"


def _charge(
    where: str, stated: GenerationData | EstimateIn, feature: str | None, model: str | None
) -> Charge | None:
    given = (stated.amount is not None, stated.quantity is not None, stated.usage is not None)
    if not any(given):
        return None
    if sum(given) > 1:
        raise InvalidMessage(f"{where} must state an amount, a quantity or a usage, and only one")
    usage = stated.usage
    return Charge(
        amount=stated.amount.value if stated.amount else None,
        feature=feature,
        quantity=stated.quantity.value if stated.quantity else None,
        model=model if usage else None,
        usage=Usage(usage.input_tokens, usage.output_tokens, usage.cached_input_tokens)
        if usage
        else None,
    )


def _millionths(kind: type, given: Any) -> Millionths:
    assert kind is Millionths
    if isinstance(given, int) and not isinstance(given, bool):
        given = str(given)
    if not isinstance(given, str | Decimal):
        raise ValueError('must be a decimal string such as "12.5", or a number')  # noqa: TRY004 - msgspec names the field of a ValueError
    return Millionths(parse_decimal(given))


def _exact(text: str) -> Decimal | str:
    """Read a JSON number without losing a digit of it; one beyond all measure stays text."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return text


_decoder = msgspec.json.Decoder(GenerationEvent, dec_hook=_millionths, float_hook=_exact)
assert MICRO  # The unit of Millionths.
assert {TYPE_PREFIX + kind for kind in GENERATION_KINDS} == set(Type.__args__)  # type: ignore[attr-defined]
