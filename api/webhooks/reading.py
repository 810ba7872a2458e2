"""Objects of providers, read leniently: what is odd is as if it were absent; what is needed, told.

Providers add fields, send an id or the whole object in its place, and differ between versions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, TypeVar

from api.fields import EARLIEST, LATEST
from ledger.domain.facts import QUANTITY_MAX
from ledger.domain.offers import Money
from ledger.domain.values import CREDITS_MAX, is_name

T = TypeVar("T")
_ID = re.compile(r"[!-~]{1,255}")
_CURRENCY = re.compile(r"[A-Za-z]{3}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINOR_MAX: Final = CREDITS_MAX
"""The most money of one payment, in the smallest unit."""


class Unreadable(Exception):
    """A delivery of a known type lacks what it must say. Nothing can follow from it."""

    def __init__(self, field: str, rule: str) -> None:
        """Name the field by its path in the payload, and the rule that it breaks."""
        super().__init__(f"{field} {rule}")
        self.field = field
        self.rule = rule


class Part:
    """One object of a payload, and where it is. A part that is absent is empty."""

    __slots__ = ("path", "value")

    def __init__(self, value: Any, path: str = "") -> None:
        """Take any value: what is no object has no fields."""
        self.value: dict[Any, Any] = value if isinstance(value, dict) else {}
        self.path = path

    def __bool__(self) -> bool:
        """Tell whether there is anything in it."""
        return bool(self.value)

    def field(self, name: str) -> str:
        """Return the path of a field."""
        return f"{self.path}.{name}" if self.path else name

    def get(self, name: str) -> Any:
        """Return a field as it is, or None."""
        return self.value.get(name)

    def part(self, *names: str) -> Part:
        """Return the object under these names, one in the other."""
        found = self
        for name in names:
            found = Part(found.get(name), found.field(name))
        return found

    def parts(self, name: str) -> Iterator[Part]:
        """Yield the objects of a list, which may be in the `data` of a list object."""
        path, listed = self.field(name), self.get(name)
        if isinstance(listed, dict):
            path, listed = f"{path}.data", listed.get("data")
        for index, value in enumerate(listed if isinstance(listed, list) else ()):
            if isinstance(value, dict):
                yield Part(value, f"{path}[{index}]")

    def id(self, name: str) -> str | None:
        """Return an id: of 1 to 255 visible ASCII characters, or in the object in its place."""
        value = self.get(name)
        if isinstance(value, dict):
            value = value.get("id")
        return value if isinstance(value, str) and _ID.fullmatch(value) else None

    def needed_id(self, name: str) -> str:
        """Return an id. Raises Unreadable."""
        found = self.id(name)
        return self._needed(name, found, "must be an id")

    def text(self, name: str) -> str:
        """Return a text, or none at all."""
        value = self.get(name)
        return value if isinstance(value, str) else ""

    def name(self, name: str) -> str | None:
        """Return what can be an id of ours."""
        value = self.get(name)
        return value if isinstance(value, str) and is_name(value) else None

    def whole(self, name: str) -> int | None:
        """Return a whole number that one payment can be of, of either sign."""
        value = self.get(name)
        # Without abs(), which fails on a Decimal beyond all measure.
        if isinstance(value, Decimal) and value.is_finite() and -MINOR_MAX <= value <= MINOR_MAX:
            value = int(value) if value == int(value) else None
        # Not isinstance: True is no number.
        return value if type(value) is int and abs(value) <= MINOR_MAX else None

    def needed_whole(self, name: str) -> int:
        """Return a whole number that is not negative. Raises Unreadable."""
        found = self.whole(name)
        positive = found if found is not None and found >= 0 else None
        return self._needed(name, positive, "must be a whole number of the smallest unit")

    def quantity(self, name: str = "quantity") -> int:
        """Return how many; one, if it is not told. Raises Unreadable."""
        if self.get(name) is None:
            return 1
        found = self.whole(name)
        fitting = found if found is not None and 0 <= found <= QUANTITY_MAX else None
        return self._needed(name, fitting, f"must be 0 to {QUANTITY_MAX}")

    def money(self, name: str) -> Money | None:
        """Return an amount in the `currency` that stands beside it, if both are told."""
        amount, currency = self.whole(name), self.text("currency")
        if amount is None or amount < 0 or not _CURRENCY.fullmatch(currency):
            return None
        return Money(amount, currency.upper())

    def needed_money(self, name: str) -> Money:
        """Return an amount in the `currency` that stands beside it. Raises Unreadable."""
        self.needed_whole(name)
        return self._needed("currency", self.money(name), "must be a currency of three letters")

    def time(self, name: str, *, per_second: int = 1) -> datetime | None:
        """Return a count of seconds, or of parts of one, since 1970 as a time."""
        value = self.whole(name)
        if value is None or not 0 <= value < (LATEST - _EPOCH).total_seconds() * per_second:
            return None
        return in_range(_EPOCH + timedelta(microseconds=value * (1_000_000 // per_second)))

    def needed_time(self, name: str, *, per_second: int = 1) -> datetime:
        """Return a count of seconds, or of parts of one, as a time. Raises Unreadable."""
        unit = "seconds" if per_second == 1 else "milliseconds"
        return self._needed(name, self.time(name, per_second=per_second), f"must be {unit}")

    def _needed(self, name: str, found: T | None, rule: str) -> T:
        if found is None:
            raise Unreadable(self.field(name), rule)
        return found


def in_range(value: datetime) -> datetime | None:
    """Return a time in UTC, unless it lies beyond what Scrip takes for a time."""
    return value.astimezone(UTC) if EARLIEST <= value < LATEST else None


def refs(**ids: str | None) -> set[str]:
    """Return what these ids are called here: `stripe_pi="pi_1"` is `stripe:pi:pi_1`."""
    return {f"{kind.replace('_', ':', 1)}:{value}" for kind, value in ids.items() if value}
