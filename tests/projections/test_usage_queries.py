"""Usage by time and by name: in any zone, over any range, the groups add up to the rows."""

import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
import pytest

from ledger.domain import commands as c
from ledger.domain.entities import Charge, Usage
from ledger.store import Store
from projections.cursors import InvalidCursor
from projections.runner import Runner
from projections.usage_queries import (
    GroupBy,
    UsageFilter,
    UsageGroup,
    UsageRow,
    group_usage,
    list_usage,
    total_usage,
)
from scrip.embedded import EmbeddedPostgres
from tests.projections.conftest import ask, close
from tests.projections.histories import History

ZONES = ("UTC", "Asia/Kathmandu", "America/Sao_Paulo", "Pacific/Apia", "Europe/Berlin")
CHANGES = (
    datetime(2011, 12, 29, tzinfo=UTC),  # Apia leaves out a day.
    datetime(2018, 2, 17, tzinfo=UTC),  # São Paulo turns back at midnight.
    datetime(2018, 11, 3, tzinfo=UTC),  # São Paulo turns forward at midnight.
    datetime(2026, 3, 28, tzinfo=UTC),  # Berlin turns forward.
    datetime(2026, 10, 24, tzinfo=UTC),  # Berlin turns back.
)
SUMS = ("amount", "refunded", "quantity", "input_tokens", "output_tokens", "cached_input_tokens")


@pytest.fixture(scope="module")
def spent(postgres_server: EmbeddedPostgres, template: str) -> Iterator[Store]:
    """Ann's deductions around the changes of several zones, some of them refunded."""
    urls = postgres_server.create_database("projections_usage", template)
    store = Store.open(urls.app_url)
    runner = Runner(store)
    runner.start()
    with History(store, seed=3, start=CHANGES[0] - timedelta(days=1)) as history:
        for change in CHANGES:
            history.now = change
            while history.now < change + timedelta(days=3):
                spend(history)
        history.catch_up()
    runner.close()
    yield store
    close(store)
    postgres_server.drop_database(urls.name)


def spend(history: History) -> None:
    pick, upto = history.random.choice, history.random.randint
    history.now += timedelta(minutes=upto(1, 55), seconds=upto(0, 59))
    charge = pick(
        (
            Charge(amount=upto(0, 20)),
            Charge(quantity=upto(0, 5) * 1_000_000, feature="image"),
            Charge(usage=Usage(upto(0, 10**7), upto(0, 10**6)), feature="text", model="small"),
        )
    )
    deduct = c.Deduct(
        charge=charge,
        overage="debt",
        actor=pick((None, "agent", "ann")),
        job=pick((None, "job-1")),
    )
    recorded = history.order("north", "ann", deduct)
    assert recorded is not None
    if upto(0, 4) == 0:
        name = getattr(recorded.event, "deduction", "")
        history.order("north", "ann", c.Refund(deduction=name))


@pytest.fixture(scope="module")
def rows(spent: Store) -> tuple[UsageRow, ...]:
    return listed(spent, UsageFilter())


def listed(store: Store, where: UsageFilter, limit: int = 100_000) -> tuple[UsageRow, ...]:
    found: list[UsageRow] = []
    cursor = None
    while True:
        page = ask(
            store,
            lambda conn: list_usage(conn, "north", "ann", where, cursor=cursor, limit=limit),  # noqa: B023 - asked at once
        )
        found += page.data
        cursor = page.next_cursor
        if cursor is None:
            return tuple(found)


def groups(store: Store, where: UsageFilter, by: GroupBy, zone: str = "UTC") -> list[UsageGroup]:
    return ask(
        store,
        lambda conn: group_usage(conn, "north", "ann", where, by=by, zone=ZoneInfo(zone)),
    )


def summed(rows: tuple[UsageRow, ...]) -> dict[str, int]:
    sums = {name: sum(getattr(row, name) or 0 for row in rows) for name in SUMS}
    return {**sums, "count": len(rows)}


def sums_of(group: UsageGroup) -> dict[str, int]:
    return {name: getattr(group, name) for name in (*SUMS, "count")}


def total_of(found: list[UsageGroup]) -> dict[str, int]:
    sums: Counter[str] = Counter()
    for group in found:
        sums.update(sums_of(group))
    return {name: sums[name] for name in (*SUMS, "count")}


def ranges() -> Iterator[UsageFilter]:
    """Yield ranges with ragged ends, within an hour, over a change, and over everything."""
    dice = random.Random(5)  # noqa: S311 - a seed makes a failure happen again
    yield UsageFilter()
    yield UsageFilter(start=CHANGES[4] + timedelta(hours=1), end=CHANGES[4] + timedelta(hours=30))
    for change in CHANGES:
        start = change + timedelta(seconds=dice.randint(0, 86_400))
        yield UsageFilter(start=start, end=start + timedelta(seconds=dice.randint(1, 3_000)))
        yield UsageFilter(start=start, end=start + timedelta(seconds=dice.randint(3_600, 200_000)))
        yield UsageFilter(start=start)


def within(rows: tuple[UsageRow, ...], where: UsageFilter) -> tuple[UsageRow, ...]:
    return tuple(row for row in rows if where.start <= row.recorded_at < where.end)


@pytest.mark.parametrize("zone", ZONES)
def test_days_are_those_of_the_zone_and_add_up_to_the_range(
    spent: Store, rows: tuple[UsageRow, ...], zone: str
) -> None:
    for where in ranges():
        days: dict[object, list[UsageRow]] = {}
        for row in reversed(within(rows, where)):
            day = row.recorded_at.astimezone(ZoneInfo(zone)).date()
            days.setdefault(day, []).append(row)
        found = groups(spent, where, "day", zone)
        assert {
            group.start and group.start.astimezone(ZoneInfo(zone)).date(): sums_of(group)
            for group in found
        } == {day: summed(tuple(some)) for day, some in days.items()}
        assert total_of(found) == summed(within(rows, where))


@pytest.mark.parametrize("zone", ZONES)
def test_hours_are_those_of_the_zone_and_add_up_to_the_range(
    spent: Store, rows: tuple[UsageRow, ...], zone: str
) -> None:
    for where in ranges():
        hours: dict[datetime, list[UsageRow]] = {}
        for row in within(rows, where):
            local = row.recorded_at.astimezone(ZoneInfo(zone))
            past = timedelta(minutes=local.minute, seconds=local.second)
            hours.setdefault(row.recorded_at - past, []).append(row)
        found = groups(spent, where, "hour", zone)
        assert {group.start: sums_of(group) for group in found} == {
            hour: summed(tuple(some)) for hour, some in hours.items()
        }
        assert [group.start for group in found] == sorted(hours)


@pytest.mark.parametrize("by", ["feature", "model", "actor"])
def test_names_add_up_to_the_range(spent: Store, rows: tuple[UsageRow, ...], by: GroupBy) -> None:
    for where in ranges():
        named: dict[str | None, list[UsageRow]] = {}
        for row in within(rows, where):
            named.setdefault(getattr(row, by), []).append(row)
        assert {group.name: sums_of(group) for group in groups(spent, where, by)} == {
            name: summed(tuple(some)) for name, some in named.items()
        }


def test_the_total_is_the_sum_of_the_rows(spent: Store, rows: tuple[UsageRow, ...]) -> None:
    for where in ranges():
        total = ask(spent, lambda conn, where=where: total_usage(conn, "north", "ann", where))
        assert sums_of(total) == summed(within(rows, where))


@pytest.mark.parametrize(
    "names",
    [
        {"feature": "text"},
        {"model": "small"},
        {"actor": "ann"},
        {"job": "job-1"},
        {"feature": "image", "actor": "agent", "job": "job-1"},
        {"feature": "unknown"},
    ],
)
def test_filters_mean_the_same_for_rows_groups_and_totals(
    spent: Store, rows: tuple[UsageRow, ...], names: dict[str, str]
) -> None:
    for part in ranges():
        where = msgspec.structs.replace(part, **names)
        wanted = tuple(
            row
            for row in within(rows, where)
            if all(getattr(row, name) == value for name, value in names.items())
        )
        assert listed(spent, where) == wanted
        for by in ("hour", "day", "feature", "actor"):
            assert total_of(groups(spent, where, by, "Asia/Kathmandu")) == summed(wanted)
        total = ask(spent, lambda conn, where=where: total_usage(conn, "north", "ann", where))
        assert sums_of(total) == summed(wanted)


def test_pages_make_the_whole_list_newest_first(spent: Store, rows: tuple[UsageRow, ...]) -> None:
    assert listed(spent, UsageFilter(), limit=7 * 13) == rows
    order = [(row.recorded_at, row.position) for row in rows]
    assert order == sorted(order, reverse=True)
    assert any(row.refunded for row in rows)


def test_others_see_nothing_of_it(spent: Store) -> None:
    for tenant, account in (("south", "ann"), ("north", "bob")):
        total = ask(spent, lambda conn, t=tenant, a=account: total_usage(conn, t, a, UsageFilter()))
        assert total == UsageGroup()


def test_a_cursor_of_another_list_is_refused(spent: Store) -> None:
    for cursor in ("nonsense", "é", "WyJncmFudHMiLDVd", ""):
        if cursor:
            with pytest.raises(InvalidCursor):
                ask(
                    spent,
                    lambda conn, cursor=cursor: list_usage(
                        conn, "north", "ann", UsageFilter(), cursor=cursor
                    ),
                )
