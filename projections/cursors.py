"""Pages, and their cursors: opaque, and naming a row, never an offset or a bare time."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

PAGE_MAX = 500
"""Rows that one page may have."""

Row = TypeVar("Row")
Key = TypeVar("Key")


class InvalidCursor(ValueError):
    """This cursor was not made here, or for another list."""


class Page(Struct, Generic[Row], frozen=True):
    """Some rows of a list, and the cursor of the next page; None at the list's end."""

    data: tuple[Row, ...]
    next_cursor: str | None


def encode_cursor(list_name: str, key: object) -> str:
    """Return the cursor of the row with this key, for the list of this name only."""
    return urlsafe_b64encode(msgspec.json.encode((list_name, key))).rstrip(b"=").decode()


def decode_cursor(list_name: str, kind: type[Key], cursor: str) -> Key:
    """Return the key of the row that a cursor names. Raises InvalidCursor."""
    try:
        text = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        name, key = msgspec.json.decode(text, type=tuple[str, kind])  # type: ignore[valid-type]
    except (ValueError, msgspec.MsgspecError) as error:
        raise InvalidCursor("is not a cursor of this list") from error
    if name != list_name:
        raise InvalidCursor("is a cursor of another list")
    if b"\\u0000" in text:
        # No key holds a backslash, so this is NUL, which PostgreSQL cannot be asked for.
        raise InvalidCursor("is not a cursor of this list")
    result: Key = key
    return result


def page(list_name: str, rows: Sequence[Row], limit: int, key: Callable[[Row], Any]) -> Page[Row]:
    """Make a page of at most `limit` rows of what was selected with a limit of one more."""
    more = len(rows) > limit
    shown = tuple(rows[:limit])
    return Page(shown, encode_cursor(list_name, key(shown[-1])) if more else None)
