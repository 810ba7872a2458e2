"""What amounts, quantities and ids are: their units, bounds and spellings."""

from __future__ import annotations

import hashlib
import re
from decimal import Decimal
from typing import Annotated, Final

from msgspec import Meta

PLACES: Final = 6
MICRO: Final = 10**PLACES
"""Micro-credits in one credit."""

CREDITS_MAX: Final = 2**53 - 1
"""The largest single amount, in micro-credits: what every JSON reader can hold exactly."""

TOTAL_MAX: Final = 2**62
"""The most an account may be granted in all its life, in micro-credits: sums stay in a bigint."""

GRANTS_MAX: Final = 100_000
"""Grants an account may have in all its life."""

OPEN_RESERVATIONS_MAX: Final = 100_000
"""Reservations an account may have open at once."""

CHANGES_MAX: Final = 10_000
"""How often a reservation or deduction may be captured in part, extended and refunded, together."""

SLICES_MAX: Final = 1_000
"""Slices of grants that a reservation may pin: each of its events states them all again."""

METADATA_CHARACTERS_MAX: Final = 4_096
"""The characters of all names and texts of one metadata."""

TTL_SECONDS_DEFAULT: Final = 600
TTL_SECONDS_MAX: Final = 30 * 24 * 3600

PRIORITY_DEFAULT: Final = 100
PRIORITY_MAX: Final = 1_000

REGRANT_DAYS_MAX: Final = 36_500

EXPIRES_DAYS_MAX: Final = 36_500
"""The longest life that a pack or a referral reward may have."""

TRIAL_DAYS_MAX: Final = 730
URL_MAX: Final = 2_000
"""The characters of an address that others are sent to."""

PROVIDER_IDS_MAX: Final = 100
"""Ids of one payment provider that a plan or a pack may be sold under."""

ZONE_DEFAULT: Final = "UTC"
"""The zone whose clock says when the periods of an account begin, unless it says another."""

TEXT_MAX: Final = 255
"""The characters of a name for people, and of an id that is not ours."""

PRICE_MAX: Final = 2**53 - 1
"""The highest price, in its currency's smallest unit: what every JSON reader can hold exactly."""

TOKENS_MAX: Final = 10**12
"""The most tokens of one kind that one usage may state."""

Credits = Annotated[int, Meta(extra={"unit": "micro-credits"})]
"""A whole number of micro-credits (1 credit = 1 000 000); never a float."""

Quantity = Annotated[int, Meta(extra={"unit": "millionths"})]
"""A quantity of a feature's unit, in millionths, so that 2.5 seconds are exact."""

NAME_MAX: Final = 128
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@|+-]*")
DIGITS_MAX: Final = 40
LENGTH_MAX: Final = 100
_DECIMAL = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?")
_TOO_FINE = f"must have at most {PLACES} decimal places"
_TOO_LARGE = f"must be at most {CREDITS_MAX // MICRO}.{CREDITS_MAX % MICRO:06d}"

# Base32 as RFC 4648 has it, in lower case, two letters at a time.
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS: Final = [first + second for first in _LETTERS for second in _LETTERS]
_SHIFTS: Final = range(110, -1, -10)


def is_name(text: str) -> bool:
    """Tell whether `text` can be an id: 1 to 128 letters, digits and `_ . : @ | + -`.

    `~` and `/` are kept for ids that Scrip makes from others.
    """
    return len(text) <= NAME_MAX and _NAME.fullmatch(text) is not None


def is_storable(text: str) -> bool:
    """Tell whether PostgreSQL can keep `text` and index it: not empty, nor longer than a text."""
    if not 1 <= len(text) <= TEXT_MAX or "\0" in text:
        return False
    # Surrogates are what UTF-8 cannot encode.
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def parse_decimal(text: str | Decimal, *, signed: bool = False) -> int:
    """Return a decimal with at most 6 places as a whole number of millionths.

    Raises ValueError, whose text states the rule that was broken.
    """
    if isinstance(text, Decimal):
        if not text.is_finite():
            raise ValueError("must be a finite number")
        if text and abs(text.adjusted()) >= DIGITS_MAX:
            raise ValueError(_TOO_LARGE if text.adjusted() > 0 else _TOO_FINE)
        # A zero may have any exponent, and would be written out with as many zeros.
        text = format(text or Decimal(0).copy_sign(text), "f")
    if len(text) > LENGTH_MAX:
        raise ValueError(f"must be at most {LENGTH_MAX} characters")
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise ValueError('must be a decimal number such as "12.5", without spaces or exponent')
    sign, whole, fraction = match.groups(default="")
    fraction = fraction.rstrip("0")
    if len(fraction) > PLACES:
        raise ValueError(_TOO_FINE)
    millionths = int(whole) * MICRO + int(fraction.ljust(PLACES, "0"))
    if millionths > CREDITS_MAX:
        raise ValueError(_TOO_LARGE)
    if sign and not signed:
        raise ValueError("must not be negative")
    return -millionths if sign else millionths


def format_decimal(millionths: int) -> str:
    """Write millionths as a plain decimal: no exponent, no trailing zeros. Parsing reads it."""
    sign = "-" if millionths < 0 else ""
    whole, fraction = divmod(abs(millionths), MICRO)
    if not fraction:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{fraction:06d}".rstrip("0")


def derived_id(kind: str, key: str) -> str:
    """Return the id that Scrip gives to what the command with this idempotency key makes.

    A key is unique in its account for ever, so the id is; a retry anywhere derives the same one.
    """
    digest = hashlib.sha256(f"{kind}\0{key}".encode()).digest()
    number = int.from_bytes(digest[:15], "big")
    return f"{kind}_{''.join([_PAIRS[number >> shift & 0x3FF] for shift in _SHIFTS])}"
