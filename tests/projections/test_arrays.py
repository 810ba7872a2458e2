"""Columns that are encoded here come back as what they were."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from psycopg import Connection

from ledger.store import Store
from projections.arrays import Bigints, Texts, Times, columns
from projections.tables import connect

INT8 = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
TIMES = st.datetimes(
    datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)  # noqa: DTZ001
)  # fmt: skip
QUERY = """
SELECT %(text)s, %(number)s, %(maybe)s, %(time)s, %(later)s,
    pg_typeof(%(text)s)::text, pg_typeof(%(number)s)::text, pg_typeof(%(time)s)::text
"""


class Row(Struct):
    text: str | None
    number: int
    maybe: int | None
    time: datetime
    later: datetime | None


ROWS = st.lists(
    st.builds(Row, TEXTS | st.none(), INT8, INT8 | st.none(), TIMES, TIMES | st.none()), min_size=1
)


@pytest.fixture(scope="module")
def connection(told: Store) -> Iterator[Connection[tuple[object, ...]]]:
    with connect(told) as connection:
        yield connection


@given(rows=ROWS)
def test_what_is_encoded_comes_back(
    connection: Connection[tuple[object, ...]], rows: list[Row]
) -> None:
    row = connection.execute(QUERY, columns(rows)).fetchone()
    assert row is not None
    assert [list(values) for values in zip(*row[:5], strict=True)] == [  # type: ignore[call-overload]
        [one.text, one.number, one.maybe, one.time, one.later] for one in rows
    ]
    assert row[5:] == ("text[]", "bigint[]", "timestamp with time zone[]")


def test_a_time_is_the_same_moment_in_any_zone(
    connection: Connection[tuple[object, ...]],
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


def test_what_is_neither_text_nor_number_nor_time_is_left_to_psycopg() -> None:
    class Flags(Struct):
        on: bool | None
        name: str

    found = columns([Flags(on=True, name="a"), Flags(on=None, name="a")])
    assert found["on"] == [True, None]
    assert {type(found["name"])} <= {Texts, Bigints, Times}


def test_a_text_with_nul_is_refused_by_the_database(
    connection: Connection[tuple[object, ...]],
) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(psycopg.DataError):
        connection.execute(QUERY, columns([Row("a\0b", 1, None, now, None)]))
