"""Comparing a projection's live rows with those built again beside them, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from msgspec import Struct
from psycopg import Connection, ServerCursor
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composed, Identifier

from projections.projection import SCHEMA, Table

FETCHED: Final = 5_000
"""Digests that are fetched at a time."""

Key = tuple[Any, ...]

SELECT_DIGESTS = SQL("SELECT {key}, md5({row}::text) FROM {table} AS t ORDER BY {key}")
SELECT_ROW = SQL("SELECT to_jsonb(t) - {hints} AS row FROM {table} AS t WHERE {condition}")
WHOLE, WITHOUT = SQL("t"), SQL("(to_jsonb(t) - {hints})")
SAME = SQL("{} IS NOT DISTINCT FROM %s")
COUNT = SQL("SELECT count(*) FROM {table}")


class Difference(Struct, frozen=True, kw_only=True):
    """A row that is not what its events make of it; None where there is no row."""

    table: str
    key: dict[str, str]
    live: dict[str, Any] | None
    rebuilt: dict[str, Any] | None

    def __str__(self) -> str:
        """Say which row, and what is wrong with it."""
        where = ", ".join(f"{name} {value}" for name, value in self.key.items())
        if self.live is None:
            return f"{self.table}: {where} is missing"
        if self.rebuilt is None:
            return f"{self.table}: {where} should not be there"
        wrong = (
            f"{name} is {self.live[name]!r} instead of {right!r}"
            for name, right in self.rebuilt.items()
            if self.live[name] != right
        )
        return f"{self.table}: {where}: {'; '.join(wrong)}"


def compare(
    live: Connection[Any], copied: Connection[Any], table: Table, suffix: str
) -> Iterator[Difference]:
    """Yield what differs, by key. Both connections are in a transaction, at the same position."""
    wrong = _read(live, table, ""), _read(copied, table, suffix)
    for key in _differing(*wrong):
        yield Difference(
            table=table.name,
            key={name: str(value) for name, value in zip(table.key, key, strict=True)},
            live=_row(live, table, "", key),
            rebuilt=_row(copied, table, suffix, key),
        )


def count_rows(connection: Connection[Any], table: Table, suffix: str) -> int:
    """Return how many rows a table has."""
    query = COUNT.format(table=Identifier(SCHEMA, table.name + suffix))
    row = connection.execute(query).fetchone()
    return row[0] if row else 0


def _read(connection: Connection[Any], table: Table, suffix: str) -> Iterator[tuple[Key, str]]:
    query = SELECT_DIGESTS.format(
        key=SQL(", ").join(map(Identifier, table.key)),
        row=WITHOUT.format(hints=_hints(table)) if table.hints else WHOLE,
        table=Identifier(SCHEMA, table.name + suffix),
    )
    with ServerCursor(connection, f"digests_{table.name}") as cursor:
        cursor.itersize = FETCHED
        for *key, digest in cursor.execute(query):
            yield tuple(key), digest


def _hints(table: Table) -> Composed:
    return SQL("{}::text[]").format([name for name, _ in table.hints])


def _differing(live: Iterator[tuple[Key, str]], built: Iterator[tuple[Key, str]]) -> Iterator[Key]:
    """Walk two sequences that are sorted by key, and yield the keys that are not in both alike."""
    ours, theirs = next(live, None), next(built, None)
    while ours is not None or theirs is not None:
        if ours == theirs:
            ours, theirs = next(live, None), next(built, None)
        elif theirs is None or (ours is not None and _order(ours[0]) < _order(theirs[0])):
            assert ours is not None
            yield ours[0]
            ours = next(live, None)
        elif ours is None or _order(theirs[0]) < _order(ours[0]):
            yield theirs[0]
            theirs = next(built, None)
        else:
            yield ours[0]
            ours, theirs = next(live, None), next(built, None)


def _order(key: Key) -> tuple[tuple[bool, Any], ...]:
    """Order keys as the database does: bytewise, with nulls last."""
    return tuple((part is None, part if part is not None else 0) for part in key)


def _row(connection: Connection[Any], table: Table, suffix: str, key: Key) -> dict[str, Any] | None:
    query = SELECT_ROW.format(
        hints=_hints(table),
        table=Identifier(SCHEMA, table.name + suffix),
        condition=SQL(" AND ").join(SAME.format(Identifier(name)) for name in table.key),
    )
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(query, key).fetchone()
    return row["row"] if row else None
