"""Rows that are encoded here come back as what they were: as arrays, and through a COPY."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from psycopg import Connection

from ledger.store import Store
from projections.arrays import Integer, Json, columns
from projections.projection import (
    Filling,
    Projection,
    Table,
    Target,
    as_json,
    create,
)
from projections.tables import connect

NOW = datetime(2026, 1, 1, tzinfo=UTC)
INT8 = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
TIMES = st.datetimes(
    datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)  # noqa: DTZ001
)  # fmt: skip
QUERY = """
SELECT %(text)s, %(number)s, %(maybe)s, %(time)s, %(later)s, %(small)s, %(flag)s, %(document)s
"""
TYPES = """
SELECT pg_typeof(%(text)s)::text, pg_typeof(%(number)s)::text, pg_typeof(%(maybe)s)::text,
    pg_typeof(%(time)s)::text, pg_typeof(%(later)s)::text, pg_typeof(%(small)s)::text,
    pg_typeof(%(flag)s)::text, pg_typeof(%(document)s)::text
"""
CREATE = """
CREATE TABLE {copied_v1} (
    id bigint GENERATED ALWAYS AS IDENTITY, text text, number bigint, maybe bigint,
    time timestamptz, later timestamptz, small integer, flag boolean, document jsonb,
    again timestamptz)
"""
SELECT = """
SELECT text, number, maybe, time, later, small, flag, document, again
FROM projections.copied_v1 ORDER BY id
"""
COPIED = Projection(
    name="copied",
    tables=(Table(name="copied_v1", key=("id",), create=CREATE, hints=(("again", "later"),)),),
    apply=lambda _target, _batch: None,
)
TARGETS = pytest.mark.parametrize("target", [Target, Filling])


class Row(Struct):
    text: str | None
    number: int
    maybe: int | None
    time: datetime
    later: datetime | None
    small: Integer | None = None
    flag: bool | None = None
    document: Json | None = None


ROWS = st.lists(
    st.builds(
        Row,
        text=TEXTS | st.none(),
        number=INT8,
        maybe=INT8 | st.none(),
        time=TIMES,
        later=TIMES | st.none(),
        small=st.integers(-(2**31), 2**31 - 1) | st.none(),
        flag=st.booleans() | st.none(),
        document=st.dictionaries(TEXTS, TEXTS | st.booleans()).map(as_json) | st.none(),
    ),
    min_size=1,
)


@pytest.fixture(scope="module")
def connection(told: Store) -> Iterator[Connection[tuple[Any, ...]]]:
    with connect(told) as connection:
        create(connection, COPIED)
        yield connection


def values(row: Row) -> list[object]:
    document = None if row.document is None else msgspec.json.decode(row.document)
    return [*msgspec.structs.astuple(row)[:-1], document]


def insert(
    target: type[Target], connection: Connection[tuple[Any, ...]], rows: list[Row]
) -> list[tuple[Any, ...]]:
    """Insert into an empty table, and return what is there then."""
    with connection.transaction(force_rollback=True):
        where = target(connection, COPIED)
        where.insert("copied_v1", rows)
        where.check()
        return connection.execute(SELECT).fetchall()


@given(rows=ROWS)
def test_what_is_encoded_comes_back(
    connection: Connection[tuple[Any, ...]], rows: list[Row]
) -> None:
    found = connection.execute(QUERY, columns(rows)).fetchone()
    assert found is not None
    assert [list(row) for row in zip(*found, strict=True)] == [values(row) for row in rows]


def test_an_array_has_the_type_of_its_field_even_where_all_is_null(
    connection: Connection[tuple[Any, ...]],
) -> None:
    found = connection.execute(TYPES, columns([Row(None, 1, None, NOW, None)])).fetchone()
    time = "timestamp with time zone[]"
    assert found == (
        *("text[]", "bigint[]", "bigint[]", time, time),
        *("integer[]", "boolean[]", "jsonb[]"),
    )


@TARGETS
@given(rows=ROWS)
def test_what_is_inserted_is_there_with_its_hint(
    connection: Connection[tuple[Any, ...]], target: type[Target], rows: list[Row]
) -> None:
    found = insert(target, connection, rows)
    assert [list(row) for row in found] == [[*values(row), row.later] for row in rows]


@TARGETS
@pytest.mark.parametrize(
    "changed", [{"number": 2**63}, {"maybe": -(2**63) - 1}, {"small": 2**31}], ids=str
)
def test_a_number_beyond_its_column_is_refused(
    connection: Connection[tuple[Any, ...]], target: type[Target], changed: dict[str, int]
) -> None:
    row = Row("a", 1, 2, NOW, NOW)
    with pytest.raises(psycopg.errors.NumericValueOutOfRange):
        insert(target, connection, [row, msgspec.structs.replace(row, **changed)])
    assert len(insert(target, connection, [row])) == 1


@TARGETS
def test_a_field_whose_type_is_not_that_of_its_column_is_refused(
    connection: Connection[tuple[Any, ...]], target: type[Target]
) -> None:
    class Wrong(Struct):
        small: str
        later: datetime

    with pytest.raises(psycopg.Error):
        insert(target, connection, [Wrong("123456", NOW)])  # type: ignore[list-item]


@TARGETS
def test_a_text_with_nul_is_refused_by_the_database(
    connection: Connection[tuple[Any, ...]], target: type[Target]
) -> None:
    with pytest.raises(psycopg.DataError):
        insert(target, connection, [Row("a\0b", 1, None, NOW, None)])


def test_a_time_is_the_same_moment_in_any_zone(
    connection: Connection[tuple[Any, ...]],
) -> None:
    there = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=-3)))
    row = connection.execute(QUERY, columns([Row("a", 1, None, there, None)])).fetchone()
    assert row is not None
    assert row[3] == [there]


def test_numbers_beyond_64_bits_are_left_to_psycopg() -> None:
    class Sum(Struct):
        amount: int
        maybe: int | None

    assert columns([Sum(2**63, -(2**63) - 1), Sum(1, None)]) == {
        "amount": [2**63, 1],
        "maybe": [-(2**63) - 1, None],
    }


def test_a_field_of_a_type_that_is_not_known_is_refused() -> None:
    class Ratio(Struct):
        ratio: float

    with pytest.raises(TypeError, match=r"Ratio\.ratio: .*float"):
        columns([Ratio(0.5)])
