"""How single values look in a request: amounts, quantities, names, times; and in the schema.

Amounts arrive as decimal strings, or as JSON numbers whose text is exact. Each kind of value states
its own rule; the error that a client reads is that sentence.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Final, Self

import msgspec
from msgspec import Meta, UnsetType
from pydantic import SecretStr

from ledger.domain.values import (
    CREDITS_MAX,
    MICRO,
    NAME_MAX,
    PLACES,
    TTL_SECONDS_MAX,
    parse_decimal,
)

NUMBER_MAX: Final = CREDITS_MAX / MICRO
SECRET_MAX: Final = 255
EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
_NOT_A_NUMBER = 'must be a decimal string such as "12.5", or a number'
_TOO_LARGE = f"must be at most {CREDITS_MAX // MICRO}.{CREDITS_MAX % MICRO:06d}"


class Millionths:
    """A decimal with at most 6 places, kept as a whole number of millionths."""

    __slots__ = ("value",)
    signed: ClassVar[bool] = False
    zero: ClassVar[bool] = True
    about: ClassVar[str] = "A quantity of the feature's unit, with at most 6 decimal places."

    def __init__(self, value: int) -> None:
        """Take a whole number of millionths."""
        self.value = value

    @classmethod
    def parse(cls, given: object) -> Self:
        """Return what was given as JSON. Raises ValueError, whose text states the broken rule."""
        if type(given) is str:
            value = _parse(given, cls.signed)
        elif isinstance(given, Decimal):
            value = parse_decimal(given, signed=cls.signed)
        elif isinstance(given, int) and not isinstance(given, bool):
            value = given * MICRO
            if abs(value) > CREDITS_MAX:
                raise ValueError(_TOO_LARGE)
            if value < 0 and not cls.signed:
                raise ValueError("must not be negative")
        else:
            raise ValueError(_NOT_A_NUMBER)
        if value == 0 and not cls.zero:
            raise ValueError("must not be 0" if cls.signed else "must be more than 0")
        return cls(value)

    @classmethod
    def schema(cls) -> dict[str, Any]:
        """Return the JSON schema: a decimal string, or a number."""
        sign = "-?" if cls.signed else ""
        number: dict[str, Any] = {"type": "number", "maximum": NUMBER_MAX}
        if cls.signed:
            number["minimum"] = -NUMBER_MAX
        else:
            number["minimum" if cls.zero else "exclusiveMinimum"] = 0
        text = {"type": "string", "pattern": f"^{sign}[0-9]{{1,10}}(\\.[0-9]{{1,{PLACES}}})?$"}
        return {"anyOf": [text, number], "description": cls.about}


# The same few amounts are asked for again and again.
@lru_cache(maxsize=4_096)
def _parse(text: str, signed: bool) -> int:  # noqa: FBT001 - named at its one call
    return parse_decimal(text, signed=signed)


class Amount(Millionths):
    """Credits, more than 0."""

    __slots__ = ()
    zero = False
    about = "Credits, more than 0, with at most 6 decimal places."


class AmountOrZero(Millionths):
    """Credits; 0 is a value."""

    __slots__ = ()
    about = "Credits, with at most 6 decimal places. 0 is allowed."


class SignedAmount(Millionths):
    """Credits, up or down, but not 0."""

    __slots__ = ()
    signed = True
    zero = False
    about = "Credits to add (positive) or to take away (negative), with at most 6 decimal places."


class Moment:
    """A point in time, in UTC."""

    __slots__ = ("value",)

    def __init__(self, value: datetime) -> None:
        """Take an aware time."""
        self.value = value

    @classmethod
    def parse(cls, given: object) -> Self:
        """Return what was given as JSON. Raises ValueError, whose text states the broken rule."""
        rule = "must be an RFC 3339 time with an offset, such as 2026-11-21T09:30:00Z"
        if not isinstance(given, str):
            raise ValueError(rule)  # noqa: TRY004 - msgspec reports ValueErrors by field
        try:
            value = msgspec.convert(given, Annotated[datetime, Meta(tz=True)])
        except msgspec.ValidationError:
            raise ValueError(rule) from None
        if not EARLIEST <= value < LATEST:
            raise ValueError("must lie between 2000 and 2200")
        return cls(value.astimezone(UTC))

    @classmethod
    def schema(cls) -> dict[str, Any]:
        """Return the JSON schema."""
        return {"type": "string", "format": "date-time", "examples": ["2026-12-31T00:00:00Z"]}


def exact_number(text: str) -> Decimal | str:
    """Return a JSON number without losing a digit of it; one beyond all measure stays text."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return text


def _secret(given: object) -> SecretStr:
    """Return a secret, which is masked wherever it is printed. Raises ValueError."""
    if not isinstance(given, str) or not 1 <= len(given) <= SECRET_MAX:
        raise ValueError(f"must be a text of 1 to {SECRET_MAX} characters")
    return SecretStr(given)


def decode_hook(kind: type, given: object) -> object:
    """Decode the kinds of this module, for msgspec."""
    if issubclass(kind, Millionths | Moment):
        return kind.parse(given)
    if kind is SecretStr:
        return _secret(given)
    raise NotImplementedError(kind)  # So msgspec is told that a kind is not known here.


def schema_hook(kind: type) -> dict[str, Any]:
    """Describe the kinds of this module, for msgspec."""
    if issubclass(kind, Millionths | Moment):
        return kind.schema()
    if kind is SecretStr:
        return {"type": "string", "format": "password", "minLength": 1, "maxLength": SECRET_MAX}
    raise NotImplementedError(kind)  # So msgspec is told that a kind is not known here.


NAME_RULE: Final = (
    f"must be 1 to {NAME_MAX} letters, digits and _ . : @ | + - and begin with a letter or digit"
)
_NAME_CHARS = "[A-Za-z0-9_.:@|+-]"
NAME_PATTERN: Final = f"^[A-Za-z0-9]{_NAME_CHARS}{{0,{NAME_MAX - 1}}}$"

Name = Annotated[
    str,
    # Python's `$` also matches before a last newline; the schema's does not.
    Meta(pattern=NAME_PATTERN + r"(?!\n)", extra_json_schema={"pattern": NAME_PATTERN}),
]
Text = Annotated[str, Meta(min_length=1, max_length=255)]
Reason = Annotated[
    str,
    Meta(min_length=1, max_length=500, description="Why, in words; kept in the audit trail."),
]
Metadata = Annotated[
    dict[Annotated[str, Meta(min_length=1, max_length=64)], Annotated[str, Meta(max_length=500)]],
    Meta(max_length=50, description="Up to 50 texts of your own. Put no personal data here."),
]
Ttl = Annotated[
    int,
    Meta(ge=1, le=TTL_SECONDS_MAX, description="Seconds until the reservation expires."),
]
IdempotencyKey = Annotated[
    str,
    Meta(
        pattern=r"^[!-~]{1,255}$(?!\n)",
        extra_json_schema={"pattern": "^[!-~]{1,255}$"},
        description="1 to 255 visible ASCII characters, unique per account for ever.",
    ),
]


def millionths(field: Millionths | UnsetType) -> int | None:
    """Return the number of millionths, or None where the field was left out."""
    return None if isinstance(field, UnsetType) else field.value


def moment(field: Moment | None) -> datetime | None:
    """Return the time, or None where there is none."""
    return None if field is None else field.value
