"""Columns of rows as PostgreSQL's binary arrays, for less than a list costs through psycopg.

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
from itertools import repeat
from operator import add
from typing import Any, Final, get_args, get_type_hints

import psycopg
from msgspec import Struct
from msgspec.structs import astuple
from psycopg import Connection
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.pq import Format

EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""From where PostgreSQL counts microseconds."""
MICROSECOND: Final = timedelta(microseconds=1)
_header = struct.Struct(">iiiii").pack
_length = struct.Struct(">i").pack
_int8 = struct.Struct(">iq").pack
_types = psycopg.adapters.types

NULL: Final = _length(-1)
INT8_BYTES: Final = 8
INT8_LENGTH: Final = _length(INT8_BYTES)


Encoder = Callable[[tuple[Any, ...]], Any]


class Texts(bytes):
    """A text[], encoded."""


class Bigints(bytes):
    """A bigint[], encoded."""


class Times(bytes):
    """A timestamptz[], encoded."""


class _Encoded(Dumper):
    """Hands over what is encoded already."""

    format = Format.BINARY

    def dump(self, obj: Any) -> Buffer:
        return bytes(obj)


class _TextsDumper(_Encoded):
    oid = _types["text"].array_oid


class _BigintsDumper(_Encoded):
    oid = _types["int8"].array_oid


class _TimesDumper(_Encoded):
    oid = _types["timestamptz"].array_oid


def register(connection: Connection[Any]) -> None:
    """Let statements on `connection` take encoded arrays as parameters."""
    connection.adapters.register_dumper(Texts, _TextsDumper)
    connection.adapters.register_dumper(Bigints, _BigintsDumper)
    connection.adapters.register_dumper(Times, _TimesDumper)


def columns(rows: Sequence[Struct]) -> dict[str, Any]:
    """Return rows of one kind as arrays, by the name of the field; at least one row.

    Texts, whole numbers and times are encoded; columns of other types are lists, as psycopg takes
    them. So are numbers beyond 64 bits, for a numeric[]. Rows are many, short-lived and without
    cycles, so that none need be collected (`gc`).
    """
    values = zip(*map(astuple, rows), strict=True)
    encoders = _encoders(type(rows[0]))
    return {name: encode(value) for (name, encode), value in zip(encoders, values, strict=True)}


@lru_cache(maxsize=64)
def _encoders(kind: type[Struct]) -> tuple[tuple[str, Encoder], ...]:
    hints = get_type_hints(kind)
    return tuple((name, _encoder(hints[name])) for name in kind.__struct_fields__)


def _encoder(hint: Any) -> Encoder:
    options = {one for one in get_args(hint) or (hint,) if one is not type(None)}
    by_type: dict[Any, Encoder] = {str: _texts, int: _bigints, datetime: _times}
    return by_type.get(options.pop(), list) if len(options) == 1 else list


def _texts(values: tuple[str | None, ...]) -> Texts:
    return Texts(_array("text", values, _encoded_texts))


def _bigints(values: tuple[Any, ...]) -> Bigints | list[int | None]:
    try:
        if None in values:
            return Bigints(_array("int8", values, _encoded_integers))
        numbers = array("q", values)
    except (OverflowError, struct.error):
        return list(values)
    if sys.byteorder == "little":
        numbers.byteswap()
    # Each number behind its length: the same byte of all numbers at a time.
    whole = bytearray(INT8_LENGTH + bytes(INT8_BYTES)) * len(values)
    data = numbers.tobytes()
    for at in range(INT8_BYTES):
        whole[len(INT8_LENGTH) + at :: len(INT8_LENGTH) + INT8_BYTES] = data[at::INT8_BYTES]
    return Bigints(_head("int8", len(values)) + whole)


def _times(values: tuple[datetime | None, ...]) -> Times:
    return Times(_array("timestamptz", values, _encoded_times))


def _head(element: str, length: int) -> bytes:
    """Return the head of an array: its dimensions, that nulls may come, the type, where it lies."""
    return _header(1, 1, _types[element].oid, length, 1)


def _array(
    element: str, values: tuple[Any, ...], encode: Callable[[Collection[Any]], Iterable[bytes]]
) -> bytes:
    """Return an array of which every distinct value is encoded once."""
    distinct = set(values)
    distinct.discard(None)
    items = dict(zip(distinct, encode(distinct), strict=True))
    items[None] = NULL
    return _head(element, len(values)) + b"".join(map(items.__getitem__, values))


def _encoded_texts(values: Collection[str]) -> Iterable[bytes]:
    data = list(map(str.encode, values))
    return map(add, map(_length, map(len, data)), data)


def _encoded_integers(values: Collection[int]) -> Iterable[bytes]:
    return map(_int8, repeat(INT8_BYTES), values)


def _encoded_times(values: Collection[datetime]) -> Iterable[bytes]:
    return _encoded_integers([(value - EPOCH) // MICROSECOND for value in values])
