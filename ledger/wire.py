"""Statements sent without waiting, one round trip for all; their results are taken later.

Between the two, the server works and commits while the sender does something else. psycopg's own
pipeline commits only once its caller waits; this stands on the libpq that psycopg exposes.
"""

from __future__ import annotations

import select
from collections.abc import Sequence
from struct import Struct as Layout
from struct import iter_unpack
from typing import Any, Final, LiteralString
from weakref import WeakKeyDictionary

from msgspec import Struct
from psycopg import Connection, OperationalError, sql
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus, Format
from psycopg.pq.abc import PGconn, PGresult

ABSENT: Final = (-1).to_bytes(4, signed=True)
"""The cell of a NULL: its length is -1."""

_BINARY: Final = Format.BINARY
_ARRAY: Final = Layout(">iiIii")
ARRAY_BYTES: Final = _ARRAY.size
_BAD: Final = frozenset({ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_ABORTED})

_known: WeakKeyDictionary[Connection[Any], set[str]] = WeakKeyDictionary()
"""Which statements each connection has prepared."""


class Statement(Struct, frozen=True):
    """A statement that each connection prepares once. `types` are its parameters'."""

    name: LiteralString
    text: LiteralString
    types: tuple[LiteralString, ...] = ()


class Step(Struct, frozen=True):
    """A statement with its parameters, in binary."""

    statement: Statement
    values: Sequence[bytes] = ()


def cell(value: bytes) -> bytes:
    """Return a value behind its length in four bytes: as an array and COPY have it."""
    return len(value).to_bytes(4) + value


def array(element: int, cells: Sequence[bytes]) -> bytes:
    """Return a one-dimensional array of cells, in binary. `element` is the OID of their type."""
    if not cells:
        return _ARRAY.pack(0, 0, element, 0, 0)[:12]
    return _ARRAY.pack(1, 1, element, len(cells), 1) + b"".join(cells)


def elements(layout: str, value: bytes | None) -> list[Any]:
    """Return what an array of cells of one size holds; `layout` is a cell's behind its length."""
    return [] if value is None else [one for _, one in iter_unpack(layout, value[ARRAY_BYTES:])]


def texts(value: bytes | None) -> list[str]:
    """Return what an array of texts holds."""
    found: list[str] = []
    place = ARRAY_BYTES
    while value is not None and place < len(value):
        start = place + 4
        place = start + int.from_bytes(value[place:start])
        found.append(value[start:place].decode())
    return found


class Flight:
    """Statements on their way, one transaction unless one is open already.

    Whoever has nothing else to do waits in `land`. Whoever has calls `advance` when `socket` can be
    read (or written, while there is something `unsent`), and `result` once all has come.
    """

    def __init__(self, connection: Connection[Any], steps: Sequence[Step]) -> None:
        """Send `steps` without waiting for any of them."""
        for step in steps:
            prepare(connection, step.statement)
        self._pgconn: PGconn = connection.pgconn
        self._results: list[PGresult] = []
        self._pgconn.enter_pipeline_mode()
        for step in steps:
            self._pgconn.send_query_prepared(
                step.statement.name.encode(),
                step.values,
                [_BINARY] * len(step.values),
                result_format=_BINARY,
            )
        self._pgconn.pipeline_sync()
        self.unsent = bool(self._pgconn.flush())
        """Whether the kernel has not taken all of it yet."""

    @property
    def socket(self) -> int:
        """What tells, to whoever watches it, that there is something to `advance`."""
        return self._pgconn.socket

    def advance(self) -> bool:
        """Go as far as it goes without waiting, and tell whether all has come.

        Raises OperationalError if the connection is lost.
        """
        self._pgconn.consume_input()  # The server may not read on before it is read from.
        if self.unsent:
            self.unsent = bool(self._pgconn.flush())
        while not self._pgconn.is_busy():
            result = self._pgconn.get_result()
            if result is not None:
                self._results.append(result)
                if result.status == ExecStatus.PIPELINE_SYNC:
                    return True
            elif self._pgconn.status == ConnStatus.BAD:
                raise OperationalError(self._pgconn.get_error_message())
        return False

    def result(self) -> PGresult:
        """Return the last one's result, all having come. Raises what psycopg would."""
        self._pgconn.exit_pipeline_mode()
        for result in self._results:
            if result.status in _BAD:
                raise error_from_result(result)
        return self._results[-2]

    def land(self) -> PGresult:
        """Wait for all of them and return the last one's result. Raises what psycopg would."""
        while not self.advance():
            poll = select.poll()
            poll.register(self.socket, select.POLLIN | select.POLLOUT * self.unsent)
            poll.poll()
        return self.result()


def prepare(connection: Connection[Any], statement: Statement) -> None:
    """Have a connection know a statement: the first time, that takes a round trip."""
    known = _known.setdefault(connection, set())
    if statement.name in known:
        return
    types = sql.SQL("({})" if statement.types else "{}").format(
        sql.SQL(", ").join(map(sql.SQL, statement.types))
    )
    connection.execute(
        sql.SQL("PREPARE {}{} AS {}").format(
            sql.Identifier(statement.name), types, sql.SQL(statement.text)
        ),
        prepare=False,
    )
    known.add(statement.name)
