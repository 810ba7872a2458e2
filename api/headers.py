"""The headers of a request, by name, and those that answers have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

NO_STORE: Final = (b"cache-control", b"no-store")
REVALIDATE: Final = (b"cache-control", b"private, no-cache")
REPLAYED: Final = (b"idempotent-replayed", b"true")
SAFE: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)
"""What every answer tells a browser, which has no business here."""


class Headers:
    """The headers of one request. Their names are in lower case, as ASGI has them."""

    __slots__ = ("_last", "_raw")

    def __init__(self, raw: Sequence[tuple[bytes, bytes]]) -> None:
        """Read `raw`, once for all that ask."""
        self._raw = raw
        self._last = dict(raw)

    def values(self, name: bytes) -> list[bytes]:
        """Return all values of a header, in their order."""
        if name not in self._last:
            return []
        if len(self._last) == len(self._raw):  # No name occurs twice.
            return [self._last[name]]
        return [value for key, value in self._raw if key == name]

    def only(self, name: bytes) -> bytes | None:
        """Return the value of a header that is there exactly once, else None."""
        values = self.values(name)
        return values[0] if len(values) == 1 else None
