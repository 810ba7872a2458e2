"""What a projection is: its tables, and how a batch of events changes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, LiteralString

import msgspec
from msgspec import Struct
from psycopg import Connection, Cursor
from psycopg.sql import SQL, Identifier

from ledger.records import Recorded
from projections.arrays import columns

SCHEMA = "projections"
TABLE_EXISTS = "SELECT to_regclass(%(table)s) IS NOT NULL"
_encode = msgspec.json.Encoder().encode


class Inconsistent(Exception):
    """An event speaks of a row that is not there: the table is not what the ledger says."""


class Table(Struct, frozen=True, kw_only=True):
    """One table, under a name that says its version: another shape is another name.

    `create` and `indexes` name their table in braces, as the fold's statements do, so that a
    rebuild can make the same table under another name. `key` identifies a row, and orders rows.
    `hints` are columns that say nothing of their own, and depend on how events came in batches.
    """

    name: str
    key: tuple[str, ...]
    create: LiteralString
    indexes: tuple[LiteralString, ...] = ()
    hints: tuple[str, ...] = ()


class Projection(Struct, frozen=True, kw_only=True):
    """Tables that follow the ledger. Its position is kept under the first table's name.

    `tidy` is a statement that the runner repeats now and then, to keep `hints` sharp.
    """

    name: str
    tables: tuple[Table, ...]
    apply: Callable[[Target, Sequence[Recorded]], None]
    tidy: LiteralString | None = None

    @property
    def tracked_as(self) -> str:
        """The name of its tracking row: a new version starts from position 0 again."""
        return self.tables[0].name


class Target:
    """Where a fold's rows go: the live tables, or those of a rebuild beside them (`suffix`).

    In a pipeline, statements are sent without waiting for what becomes of those before them.
    """

    def __init__(
        self, connection: Connection[Any], projection: Projection, suffix: str = ""
    ) -> None:
        """Write over `connection`, inside the caller's transaction."""
        self._connection = connection
        self._names = tuple(table.name for table in projection.tables)
        self._suffix = suffix
        self._changes: list[tuple[Cursor[Any], int]] = []

    def write(self, statement: LiteralString, rows: Sequence[Struct]) -> None:
        """Send a statement over all `rows`, given as arrays by field."""
        if rows:
            self._send(statement, rows)

    def change(self, statement: LiteralString, rows: Sequence[Struct]) -> None:
        """Send a statement that must meet one row for each of `rows`; `check` tells if it did."""
        if rows:
            self._changes.append((self._send(statement, rows), len(rows)))

    def check(self) -> None:
        """Make sure that all changes met their rows, once done; else raise Inconsistent."""
        for cursor, rows in self._changes:
            if cursor.rowcount != rows:
                met = cursor.rowcount
                raise Inconsistent(f"{rows} rows of {self._names[0]} change, but {met} are there")

    def _send(self, statement: LiteralString, rows: Sequence[Struct]) -> Cursor[Any]:
        query = rendered(statement, self._names, self._suffix)
        return self._connection.execute(query, columns(rows), prepare=True)


@lru_cache(maxsize=256)
def rendered(statement: LiteralString, names: tuple[str, ...], suffix: str = "") -> bytes:
    """Return a statement with its tables' real names in place of those in braces."""
    tables = {name: Identifier(SCHEMA, name + suffix) for name in names}
    return SQL(statement).format(**tables).as_bytes()


def as_json(value: object) -> str:
    """Return a value as JSON text, for a jsonb column."""
    return _encode(value).decode()


def create(connection: Connection[Any], projection: Projection, suffix: str = "") -> None:
    """Make a projection's tables, without their secondary indexes."""
    for table in projection.tables:
        connection.execute(rendered(table.create, (table.name,), suffix))


def index(connection: Connection[Any], projection: Projection, suffix: str = "") -> None:
    """Make the secondary indexes of a projection's tables: quicker once the rows are there."""
    for table in projection.tables:
        for statement in table.indexes:
            connection.execute(rendered(statement, (table.name,), suffix))


def tidy(connection: Connection[Any], projection: Projection) -> None:
    """Keep a projection's hints sharp, if it has any."""
    if projection.tidy is not None:
        names = tuple(table.name for table in projection.tables)
        connection.execute(rendered(projection.tidy, names), prepare=True)


def drop(connection: Connection[Any], projection: Projection, suffix: str = "") -> None:
    """Drop what there is of a projection's tables."""
    for table in projection.tables:
        statement = SQL("DROP TABLE IF EXISTS {}")
        connection.execute(statement.format(Identifier(SCHEMA, table.name + suffix)))


def exists(connection: Connection[Any], projection: Projection) -> bool:
    """Tell whether all tables of a projection are there."""
    found = (
        connection.execute(TABLE_EXISTS, {"table": f"{SCHEMA}.{table.name}"}).fetchone()
        for table in projection.tables
    )
    return all(row is not None and row[0] for row in found)
