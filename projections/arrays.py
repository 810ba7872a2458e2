"""Rows for PostgreSQL, in its binary form: as an array for each column, or as the data of a COPY.

A list is looked through for its type and then dumped value by value. Here the type is known, whole
numbers are turned as one block, and what is there many times is encoded once.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain, repeat
from operator import add
from typing import Annotated, Any, Final, get_args, get_type_hints

import psycopg
from msgspec import Struct
from msgspec.structs import astuple
from psycopg import Connection
from psycopg.adapt import Dumper
from psycopg.errors import NumericValueOutOfRange
from psycopg.pq import Format

Integer = Annotated[int, "int4"]
Json = Annotated[str, "jsonb"]
"""What a field of a row is where its Python type alone would say bigint, and text."""

EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""From where PostgreSQL counts microseconds."""
MICROSECOND: Final = timedelta(microseconds=1)
COPY_HEAD: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
"""What the data of a COPY begins with: a signature, and that there is nothing special about it."""
COPY_END: Final = b"\xff\xff"
JSONB_VERSION: Final = b"\1"
_array_head = struct.Struct(">iiiii").pack
_length = struct.Struct(">i").pack
_field_count = struct.Struct(">h").pack
_int8 = struct.Struct(">iq").pack
_int4 = struct.Struct(">ii").pack
_bool = struct.Struct(">i?").pack
_types = psycopg.adapters.types

NULL: Final = _length(-1)
INT8_BYTES: Final = 8
INT4_BYTES: Final = 4
INT8_LENGTH: Final = _length(INT8_BYTES)

Cells = Iterable[bytes]
"""Values as they stand in an array and in a row of a COPY alike: each behind its length."""


class Array(Struct, frozen=True):
    """A column, encoded as an array of `element`."""

    element: str
    data: bytes


class _ArrayDumper(Dumper):
    """Hands over what is encoded already."""

    format = Format.BINARY

    def get_key(self, obj: Array, format: Any) -> Any:  # noqa: A002, ARG002 - the name is psycopg's
        return (self.cls, obj.element)

    def upgrade(self, obj: Array, format: Any) -> _ArrayDumper:  # noqa: A002, ARG002 - as above
        dumper = type(self)(self.cls)
        dumper.oid = _types[obj.element].array_oid
        return dumper

    def dump(self, obj: Array) -> bytes:
        return obj.data


def register(connection: Connection[Any]) -> None:
    """Let statements on `connection` take encoded arrays as parameters."""
    connection.adapters.register_dumper(Array, _ArrayDumper)


def columns(rows: Sequence[Struct]) -> dict[str, Array | list[int | None]]:
    """Return rows of one kind as arrays, by the name of the field; at least one row.

    Numbers beyond 64 bits are lists, as psycopg takes them for a numeric[]. Rows are many,
    short-lived and without cycles, so that none need be collected (`gc`).
    """
    elements = elements_of(type(rows[0]))
    values = zip(*map(astuple, rows), strict=True)
    return {
        name: _array(elements[name], value) for name, value in zip(elements, values, strict=True)
    }


def copied(rows: Sequence[Struct], fields: Sequence[str]) -> bytes:
    """Return these fields of rows of one kind as the data of a COPY in binary; at least one row.

    Raises NumericValueOutOfRange, as an INSERT would, for a number that is beyond its column.
    """
    elements = elements_of(type(rows[0]))
    values = dict(zip(elements, zip(*map(astuple, rows), strict=True), strict=True))
    parts: list[Cells] = []
    alike = _field_count(len(fields))
    try:
        for name in fields:
            cells = _cells(elements[name], values[name])
            if len(cells) == 1:
                # What is alike in all rows is joined to its neighbours once.
                alike += b"".join(cells.values())
            else:
                if alike:
                    parts.append(repeat(alike, len(rows)))
                    alike = b""
                parts.append(map(cells.__getitem__, values[name]))
    except struct.error as error:
        raise NumericValueOutOfRange(f"{type(rows[0]).__name__}: a number is too large") from error
    if alike:
        parts.append(repeat(alike, len(rows)))
    return COPY_HEAD + b"".join(chain.from_iterable(zip(*parts, strict=True))) + COPY_END


@lru_cache(maxsize=64)
def elements_of(kind: type[Struct]) -> dict[str, str]:
    """Return what PostgreSQL calls the types of a row's fields, by the name of the field."""
    hints = get_type_hints(kind, include_extras=True)
    elements = {}
    for name in kind.__struct_fields__:
        hint = hints[name]
        options = {hint} if hint in ELEMENTS else {*get_args(hint)} - {type(None)}
        if len(options) != 1 or not options <= ELEMENTS.keys():
            raise TypeError(f"no column is known for {kind.__name__}.{name}: {hint}")
        elements[name] = ELEMENTS[options.pop()]
    return elements


def _array(element: str, values: tuple[Any, ...]) -> Array | list[int | None]:
    try:
        data = _bigints(values) if element == "int8" else _joined(element, values)
    except (OverflowError, struct.error):
        return list(values)
    # Its dimensions, that nulls may come, the type, how long it is and where it begins.
    return Array(element, _array_head(1, 1, _types[element].oid, len(values), 1) + data)


def _bigints(values: tuple[Any, ...]) -> bytes:
    """Return the cells of numbers, joined: as one block where none is null."""
    if None in values:
        return _joined("int8", values)
    numbers = array("q", values)
    if sys.byteorder == "little":
        numbers.byteswap()
    # Each number behind its length: the same byte of all numbers at a time.
    whole = bytearray(INT8_LENGTH + bytes(INT8_BYTES)) * len(values)
    data = numbers.tobytes()
    for at in range(INT8_BYTES):
        whole[len(INT8_LENGTH) + at :: len(INT8_LENGTH) + INT8_BYTES] = data[at::INT8_BYTES]
    return bytes(whole)


def _joined(element: str, values: tuple[Any, ...]) -> bytes:
    return b"".join(map(_cells(element, values).__getitem__, values))


def _cells(element: str, values: tuple[Any, ...]) -> dict[Any, bytes]:
    """Return the cell of every distinct value."""
    distinct = set(values)
    cells = {None: NULL} if None in distinct else {}
    distinct.discard(None)
    cells.update(zip(distinct, ENCODERS[element](distinct), strict=True))
    return cells


def _text_cells(values: Collection[str]) -> Cells:
    return _framed(list(map(str.encode, values)))


def _json_cells(values: Collection[str]) -> Cells:
    return _framed([JSONB_VERSION + value.encode() for value in values])


def _framed(data: list[bytes]) -> Cells:
    return map(add, map(_length, map(len, data)), data)


def _bigint_cells(values: Collection[int]) -> Cells:
    return map(_int8, repeat(INT8_BYTES), values)


def _integer_cells(values: Collection[int]) -> Cells:
    return map(_int4, repeat(INT4_BYTES), values)


def _boolean_cells(values: Collection[bool]) -> Cells:
    return map(_bool, repeat(1), values)


def _time_cells(values: Collection[datetime]) -> Cells:
    return _bigint_cells([(value - EPOCH) // MICROSECOND for value in values])


ELEMENTS: Final[dict[Any, str]] = {
    str: "text",
    int: "int8",
    bool: "bool",
    datetime: "timestamptz",
    Integer: "int4",
    Json: "jsonb",
}
ENCODERS: Final[dict[str, Callable[[Collection[Any]], Cells]]] = {
    "text": _text_cells,
    "int8": _bigint_cells,
    "bool": _boolean_cells,
    "timestamptz": _time_cells,
    "int4": _integer_cells,
    "jsonb": _json_cells,
}
