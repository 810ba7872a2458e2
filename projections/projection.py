"""What a projection is: its tables, and how a batch of events changes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, LiteralString

import msgspec
from msgspec import Struct
from psycopg import Connection, Cursor
from psycopg.adapt import PyFormat
from psycopg.sql import SQL, Composed, Identifier, Placeholder

from ledger.records import Recorded
from projections.arrays import Json, columns, copied

SCHEMA = "projections"
TABLE_EXISTS = "SELECT to_regclass(%(table)s) IS NOT NULL"
INSERT: Final = SQL("INSERT INTO {table} ({columns}) SELECT * FROM unnest({arrays})")
COPY: Final = SQL("COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)")
_encode = msgspec.json.Encoder().encode


class Inconsistent(Exception):
    """An event speaks of a row that is not there: the table is not what the ledger says."""


class Table(Struct, frozen=True, kw_only=True):
    """One table, under a name that says its version: another shape is another name.

    `create` and `indexes` name their table in braces, as the fold's statements do, so that a
    rebuild can make the same table under another name. `key` identifies a row, and orders rows.
    `hints` are columns that say nothing of their own, and depend on how events came in batches;
    each is named with the column whose value a new row has in it.
    """

    name: str
    key: tuple[str, ...]
    create: LiteralString
    indexes: tuple[LiteralString, ...] = ()
    hints: tuple[tuple[str, str], ...] = ()


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
    """Where a fold's rows go: the live tables.

    In a pipeline, statements are sent without waiting for what becomes of those before them.
    """

    def __init__(
        self, connection: Connection[Any], projection: Projection, suffix: str = ""
    ) -> None:
        """Write over `connection`, inside the caller's transaction."""
        self._connection = connection
        self._tables = {table.name: table for table in projection.tables}
        self._names = tuple(self._tables)
        self._suffix = suffix
        self._changes: list[tuple[Cursor[Any], int]] = []

    def insert(self, table: str, rows: Sequence[Struct]) -> None:
        """Add new rows to the table of this name: a column for each of their fields, and hints."""
        if rows:
            self._changes.append((self._add(self._tables[table], rows), len(rows)))

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

    def _add(self, table: Table, rows: Sequence[Struct]) -> Cursor[Any]:
        query = inserting(table, type(rows[0]), self._suffix)
        return self._connection.execute(query, columns(rows), prepare=True)

    def _send(self, statement: LiteralString, rows: Sequence[Struct]) -> Cursor[Any]:
        query = rendered(statement, self._names, self._suffix)
        return self._connection.execute(query, columns(rows), prepare=True)


class Filling(Target):
    """The same for the tables of a rebuild beside the live ones: new rows go there by COPY.

    That costs PostgreSQL less than an INSERT, but cannot be done in a pipeline.
    """

    def _add(self, table: Table, rows: Sequence[Struct]) -> Cursor[Any]:
        kind = type(rows[0])
        cursor = self._connection.cursor()
        with cursor.copy(copying(table, kind, self._suffix)) as copy:
            copy.write(copied(rows, tuple(_given(table, kind).values())))
        return cursor


@lru_cache(maxsize=64)
def inserting(table: Table, kind: type[Struct], suffix: str = "") -> bytes:
    """Return the statement that adds rows of a kind to a table, given as arrays by field."""
    arrays = (Placeholder(field, PyFormat.BINARY) for field in _given(table, kind).values())
    return _adding(INSERT, table, kind, suffix, arrays=SQL(", ").join(arrays))


@lru_cache(maxsize=64)
def copying(table: Table, kind: type[Struct], suffix: str = "") -> bytes:
    """Return the statement that adds rows of a kind to a table, given as the data of a COPY."""
    return _adding(COPY, table, kind, suffix)


def _adding(
    statement: SQL, table: Table, kind: type[Struct], suffix: str, **parts: Composed
) -> bytes:
    names = SQL(", ").join(map(Identifier, _given(table, kind)))
    name = Identifier(SCHEMA, table.name + suffix)
    return statement.format(table=name, columns=names, **parts).as_bytes()


def _given(table: Table, kind: type[Struct]) -> dict[str, str]:
    """Return which field the columns of a new row are given."""
    return {**{name: name for name in kind.__struct_fields__}, **dict(table.hints)}


@lru_cache(maxsize=256)
def rendered(statement: LiteralString, names: tuple[str, ...], suffix: str = "") -> bytes:
    """Return a statement with its tables' real names in place of those in braces."""
    tables = {name: Identifier(SCHEMA, name + suffix) for name in names}
    return SQL(statement).format(**tables).as_bytes()


def as_json(value: object) -> Json:
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
