"""Lists: how much of them, from where on, and how far the read side must have come."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from api.answers import Cursor
from api.answers import Position as PositionText
from api.problems import InvalidRequest, invalid
from projections.cursors import InvalidCursor

PAGE_MAX: Final = 200
PAGE_DEFAULT: Final = 50
POSITION_MAX: Final = 2**63 - 1
T = TypeVar("T")

AtPosition = Annotated[
    int,
    Meta(
        ge=0,
        le=POSITION_MAX,
        description="Wait until the read side has come to this position, which a write answered.",
    ),
]
CursorIn = Annotated[
    str, Meta(min_length=1, max_length=1_000, description="`next_cursor` of the page before.")
]
Limit = Annotated[int, Meta(ge=1, le=PAGE_MAX, description="Rows of a page, at most.")]


class Position(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A read that may wait for a position."""

    position: AtPosition = 0


class PageQuery(Position, frozen=True, kw_only=True):
    """A read of one page of a list."""

    cursor: CursorIn | None = None
    limit: Limit = PAGE_DEFAULT


def bad_cursor(error: InvalidCursor) -> InvalidRequest:
    """Return the refusal of a cursor that was not made for this list."""
    return invalid("cursor", "invalid", str(error))


class Listed(Struct, frozen=True, kw_only=True):
    """One page of a list, with what every page says."""

    data: list[Any]
    next_cursor: str | None
    position: str
    as_of: datetime


def listed(data: Iterable[Any], next_cursor: str | None, position: int, as_of: datetime) -> Listed:
    """Return a page."""
    return Listed(data=list(data), next_cursor=next_cursor, position=str(position), as_of=as_of)


def list_of(kind: type[Struct]) -> type[Struct]:
    """Return the type of a page of `kind`, for the description of the API."""
    name = kind.__name__.removesuffix("Out") + "List"
    fields = [
        ("data", list[kind]),  # type: ignore[valid-type]
        ("next_cursor", Cursor),
        ("position", PositionText),
        ("as_of", datetime),
    ]
    page_type = msgspec.defstruct(name, fields, kw_only=True)
    page_type.__doc__ = "One page of a list."
    return page_type
