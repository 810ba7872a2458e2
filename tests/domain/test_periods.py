"""When the periods of a plan begin and end, in any zone."""

from __future__ import annotations

from calendar import isleap
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example
from hypothesis import given as for_all
from hypothesis import strategies as st

from ledger.domain.offers import Period
from ledger.domain.periods import (
    Schedule,
    changed,
    days_after,
    instant,
    is_zone,
    period,
    period_at,
)

MICROSECOND = timedelta(microseconds=1)
ZONES_APART = timedelta(hours=27)
"""From UTC-11 to UTC+14, and summer time."""
NAMES = (
    "UTC",
    "Pacific/Apia",
    "Asia/Kathmandu",
    "America/Sao_Paulo",
    "Europe/Berlin",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "America/St_Johns",
    "Pacific/Kiritimati",
)
DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
ZONES = st.sampled_from(NAMES)
UNITS: st.SearchStrategy[Period] = st.sampled_from(("month", "year"))
TIMES = st.times() | st.sampled_from(
    (time(), time(0, 0, 30), time(2, 30), time(2, 15), time(23, 59, 59, 999_999))
)
DATES = st.dates(date(1970, 1, 2), date(2099, 12, 31))
LATE = st.builds(
    lambda year, month, back: date(year, month, days_of(year, month) - back),
    st.integers(1971, 2099),
    st.integers(1, 12),
    st.integers(0, 3),
)
LEAP = st.integers(493, 524).map(lambda fourth: date(fourth * 4, 2, 29))
ANCHORS = st.tuples(DATES | LATE | LEAP, TIMES, ZONES).map(
    lambda drawn: instant(datetime.combine(drawn[0], drawn[1]), drawn[2])
)


def days_of(year: int, month: int) -> int:
    return 29 if month == 2 and isleap(year) else DAYS[month - 1]


def utc(*parts: int) -> datetime:
    return clock(*parts).replace(tzinfo=UTC)


def clock(year: int, month: int, day: int, *parts: int) -> datetime:
    """Return what a clock may show: in no zone."""
    return datetime(year, month, day, *parts)  # noqa: DTZ001


def shown(when: datetime, zone: str) -> datetime:
    """Return what the clock of the zone shows then."""
    return when.astimezone(ZoneInfo(zone)).replace(tzinfo=None)


def asked(wall: datetime, unit: Period, count: int) -> datetime:
    """Count month by month, as one would by hand."""
    year, month = wall.year, wall.month
    for _ in range(count * (12 if unit == "year" else 1)):
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)
    return wall.replace(year=year, month=month, day=min(wall.day, days_of(year, month)), fold=0)


def nearest(wall: datetime, to: datetime, unit: Period) -> datetime:
    """Return the step of `wall`, before it or after, that is nearest to a time."""
    months = range(1, 13) if unit == "month" else (wall.month,)
    steps = (
        wall.replace(year=year, month=month, day=min(wall.day, days_of(year, month)))
        for year in (to.year - 1, to.year, to.year + 1)
        for month in months
    )
    return min(steps, key=lambda step: abs(step - to))


def exists(wall: datetime, zone: str) -> bool:
    return shown(wall.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC), zone) == wall


def check_start(start: datetime, wall: datetime, zone: str) -> None:
    """Assert that `start` is when the clock shows `wall` first, or goes on after it."""
    if exists(wall, zone):
        assert shown(start, zone) == wall
        assert start.astimezone(ZoneInfo(zone)).fold == 0
    else:
        assert shown(start - MICROSECOND, zone) < wall < shown(start, zone)


# -- any anchor, any zone, 1970 to 2100 ------------------------------------------------------------


@for_all(ANCHORS, ZONES, UNITS, st.integers(0, 1_560))
@example(utc(2011, 12, 30, 10), "Pacific/Apia", "month", 1)
@example(utc(1994, 11, 30, 10), "Pacific/Kiritimati", "month", 1)
@example(utc(2009, 10, 1, 2, 30, 30), "America/St_Johns", "month", 1)
def test_a_period_begins_units_after_the_anchor_and_ends_where_the_next_begins(
    anchor: datetime, zone: str, unit: Period, index: int
) -> None:
    number, start, end = period(anchor, zone, unit, index := index // (12 if unit == "year" else 1))
    assert number == index
    assert start < end == period(anchor, zone, unit, index + 1).start
    assert start.utcoffset() == end.utcoffset() == timedelta(0)
    wall = shown(anchor, zone)
    if index == 0:
        assert start == anchor
    else:
        check_start(start, asked(wall, unit, index), zone)
    check_start(end, asked(wall, unit, index + 1), zone)


@for_all(ANCHORS, ZONES, UNITS, st.integers(1, 1_560))
@example(utc(2011, 11, 30, 10), "Pacific/Apia", "month", 1)
@example(utc(2009, 10, 1, 2, 30, 30), "America/St_Johns", "month", 1)
def test_a_period_holds_its_start_and_not_its_end(
    anchor: datetime, zone: str, unit: Period, index: int
) -> None:
    _, start, end = found = period(anchor, zone, unit, index)
    before, after = (period(anchor, zone, unit, one) for one in (index - 1, index + 1))
    assert period_at(anchor, zone, unit, start - MICROSECOND) == before
    assert period_at(anchor, zone, unit, start) == found
    assert period_at(anchor, zone, unit, start + MICROSECOND) == found
    assert period_at(anchor, zone, unit, end - MICROSECOND) == found
    assert period_at(anchor, zone, unit, end) == after


@for_all(ANCHORS, ZONES, UNITS, st.timedeltas(timedelta(0), timedelta(days=47_000)))
def test_every_moment_from_the_anchor_on_is_in_exactly_one_period(
    anchor: datetime, zone: str, unit: Period, later: timedelta
) -> None:
    index, start, end = found = period_at(anchor, zone, unit, anchor + later)
    assert start <= anchor + later < end
    assert found == period(anchor, zone, unit, index)


@pytest.mark.parametrize("zone", NAMES)
@pytest.mark.parametrize("day", [28, 29, 30, 31])
def test_the_day_comes_back_after_every_short_month(zone: str, day: int) -> None:
    anchor = instant(clock(1970, 1, day, 12), zone)
    starts = [shown(period(anchor, zone, "month", one).start, zone) for one in range(131 * 12)]
    assert starts[-1].year == 2100
    for step, start in enumerate(starts):
        expected = asked(clock(1970, 1, day, 12), "month", step)
        # Apia had no 30 December 2011, Kiritimati no 31 December 1994.
        if expected.date() not in {date(2011, 12, 30), date(1994, 12, 31)}:
            assert start.day == expected.day == min(day, days_of(start.year, start.month))


def test_a_year_from_29_february_ends_on_the_28th_but_for_leap_years() -> None:
    days = [period(utc(2096, 2, 29), "UTC", "year", one).start for one in range(5)]
    assert [(day.year, day.day) for day in days] == [
        (2096, 29),
        (2097, 28),
        (2098, 28),
        (2099, 28),
        (2100, 28),  # No leap year.
    ]
    assert period(utc(2096, 2, 29), "UTC", "year", 8).start == utc(2104, 2, 29)


# -- clocks that are put forward and back ----------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "wall", "expected"),
    [
        ("Europe/Berlin", clock(2026, 3, 29, 2, 30), utc(2026, 3, 29, 1)),
        ("Europe/Berlin", clock(2026, 3, 29, 2), utc(2026, 3, 29, 1)),
        ("Europe/Berlin", clock(2026, 3, 29, 3), utc(2026, 3, 29, 1)),
        ("Europe/Berlin", clock(2026, 10, 25, 2, 30), utc(2026, 10, 25, 0, 30)),
        ("Australia/Lord_Howe", clock(2026, 10, 4, 2, 15), utc(2026, 10, 3, 15, 30)),
        ("Australia/Lord_Howe", clock(2026, 4, 5, 1, 45), utc(2026, 4, 4, 14, 45)),
        ("America/Sao_Paulo", clock(2018, 11, 4), utc(2018, 11, 4, 3)),
        ("America/Sao_Paulo", clock(2018, 2, 17, 23, 30), utc(2018, 2, 18, 1, 30)),
        ("Pacific/Apia", clock(2011, 12, 30), utc(2011, 12, 30, 10)),
        ("Pacific/Apia", clock(2011, 12, 30, 23, 59, 59), utc(2011, 12, 30, 10)),
        ("Asia/Kathmandu", clock(1986, 1, 1, 0, 7), utc(1985, 12, 31, 18, 30)),
        ("Asia/Kathmandu", clock(2026, 1, 31), utc(2026, 1, 30, 18, 15)),
        ("Africa/Casablanca", clock(2026, 3, 22, 2, 30), utc(2026, 3, 22, 2)),
        ("Africa/Casablanca", clock(2026, 2, 15, 2, 30), utc(2026, 2, 15, 1, 30)),
    ],
)
def test_a_skipped_time_is_when_the_clock_goes_on_and_a_repeated_one_the_first(
    zone: str, wall: datetime, expected: datetime
) -> None:
    assert instant(wall, zone) == expected


def test_an_anchor_in_a_repeated_hour_is_itself_the_start() -> None:
    second = utc(2026, 10, 25, 1, 30)  # 02:30 in Berlin, for the second time.
    assert period_at(second, "Europe/Berlin", "month", second).start == second
    with pytest.raises(ValueError, match="begun"):
        period_at(second, "Europe/Berlin", "month", second - MICROSECOND)
    assert period(second, "Europe/Berlin", "month", 1).start == utc(2026, 11, 25, 1, 30)
    assert period(second, "Europe/Berlin", "year", 1).start == utc(2027, 10, 25, 0, 30)


def test_a_day_that_the_zone_skipped_costs_one_period_a_day_and_no_other() -> None:
    anchor = instant(clock(2011, 10, 30, 9), "Pacific/Apia")
    starts = [period(anchor, "Pacific/Apia", "month", one).start for one in range(5)]
    assert [shown(one, "Pacific/Apia") for one in starts] == [
        clock(2011, 10, 30, 9),
        clock(2011, 11, 30, 9),
        clock(2011, 12, 31),
        clock(2012, 1, 30, 9),
        clock(2012, 2, 29, 9),
    ]


# -- changes ---------------------------------------------------------------------------------------


@for_all(ANCHORS, ZONES, st.lists(ZONES, min_size=1, max_size=3), UNITS, st.integers(0, 40))
@example(utc(2011, 11, 29, 11), "Pacific/Auckland", ["Pacific/Apia"], "month", 0)
@example(utc(2026, 1, 29, 10), "Pacific/Kiritimati", ["Pacific/Pago_Pago"], "month", 0)
def test_a_new_zone_rules_from_the_next_period_on_and_keeps_day_and_time(
    anchor: datetime, zone: str, zones: list[str], unit: Period, index: int
) -> None:
    schedule, wall = Schedule(anchor=anchor, zone=zone, unit=unit), shown(anchor, zone)
    for new_zone in zones:
        running = schedule.period(schedule.first + index)
        schedule = changed(schedule, running.end - MICROSECOND, zone=new_zone)
        first, start, end = schedule.period(running.number + 1)
        assert (schedule.first, schedule.begins, start) == (first, start, running.end)
        usual = asked(wall, unit, first + 1) - asked(wall, unit, first)
        assert abs(end - start - usual) <= ZONES_APART
        check_start(end, asked(wall, unit, first + 1), new_zone)
        check_start(schedule.period(first + 5).start, asked(wall, unit, first + 5), new_zone)


@for_all(ANCHORS, ANCHORS, ZONES, UNITS, st.integers(0, 20))
def test_a_new_anchor_makes_one_period_longer_or_shorter_by_half_a_unit_at_most(
    anchor: datetime, other: datetime, zone: str, unit: Period, index: int
) -> None:
    old = Schedule(anchor=anchor, zone="America/Sao_Paulo", unit=unit)
    running = old.period(index)
    new = changed(old, running.start, zone=zone, anchor=other)
    spans = [new.period(running.number + more) for more in (1, 2, 3)]
    assert [one.number for one in spans] == [index + 1, index + 2, index + 3]
    assert running.end == spans[0].start
    assert all(one.end == two.start for one, two in pairwise(spans))
    half = timedelta(days=16 if unit == "month" else 183)
    longest = timedelta(days=31 if unit == "month" else 366)
    shortest = timedelta(days=28 if unit == "month" else 365)
    assert (
        shortest - half - ZONES_APART < spans[0].end - spans[0].start < longest + half + ZONES_APART
    )
    for _, _, end in spans:
        check_start(end, nearest(shown(other, zone), shown(end, zone), unit), zone)


@for_all(ANCHORS, ANCHORS, ZONES, st.integers(0, 20), st.integers(0, 20))
def test_a_changed_schedule_finds_what_it_says(
    anchor: datetime, other: datetime, zone: str, index: int, more: int
) -> None:
    old = Schedule(anchor=anchor, zone="Europe/Berlin", unit="month")
    new = changed(old, old.period(index).start, zone=zone, anchor=other)
    found = new.period(new.first + more)
    assert new.at(found.start) == new.at(found.end - MICROSECOND) == found
    assert new.at(found.end) == new.period(found.number + 1)
    for early in (new.begins - MICROSECOND, anchor - MICROSECOND):
        with pytest.raises(ValueError, match="begun"):
            new.at(early)
    with pytest.raises(ValueError, match="no period"):
        new.period(new.first - 1)


def test_a_change_in_mid_period_leaves_that_period_as_it_was() -> None:
    berlin = Schedule(anchor=utc(2025, 12, 31, 23), zone="Europe/Berlin", unit="month")
    moved = changed(berlin, utc(2026, 1, 15), zone="America/Sao_Paulo")
    assert berlin.at(utc(2026, 1, 15)) == (0, utc(2025, 12, 31, 23), utc(2026, 1, 31, 23))
    # The first of February came in Berlin; the first of March comes in São Paulo.
    assert moved.period(1) == (1, utc(2026, 1, 31, 23), utc(2026, 3, 1, 3))
    anchored = changed(berlin, utc(2026, 1, 15), anchor=utc(2026, 1, 9, 23))
    assert anchored.period(1) == (1, utc(2026, 1, 31, 23), utc(2026, 3, 9, 23))
    assert anchored.period(2) == (2, utc(2026, 3, 9, 23), utc(2026, 4, 9, 22))


# -- what is due -----------------------------------------------------------------------------------


@for_all(ANCHORS, ZONES, st.lists(st.integers(0, 5_000), min_size=1, max_size=5))
def test_however_often_one_looks_each_period_is_due_once_and_in_order(
    anchor: datetime, zone: str, hours: list[int]
) -> None:
    schedule = Schedule(anchor=anchor, zone=zone, unit="month")
    looks = [anchor + timedelta(hours=one) for one in sorted(hours)]
    found, last = [], None
    for now in looks:
        for span in schedule.due(last, now):
            found.append(span)
            last = span.number
        assert schedule.at(now) == found[-1]
        assert list(schedule.due(last, now)) == []
    assert found == list(schedule.due(None, looks[-1]))
    assert [one.number for one in found] == list(range(len(found)))


def test_nothing_is_due_a_microsecond_early() -> None:
    schedule = Schedule(anchor=utc(2026, 1, 31), zone="UTC", unit="month")
    assert list(schedule.due(None, utc(2026, 1, 31) - MICROSECOND)) == []
    assert [one.number for one in schedule.due(None, utc(2026, 1, 31))] == [0]
    assert [one.number for one in schedule.due(0, utc(2026, 2, 28) - MICROSECOND)] == []
    assert [one.number for one in schedule.due(0, utc(2026, 2, 28))] == [1]


# -- days and names --------------------------------------------------------------------------------


@for_all(ANCHORS, ZONES, st.integers(0, 400))
def test_days_are_counted_on_the_clock(anchor: datetime, zone: str, days: int) -> None:
    end = days_after(anchor, zone, days)
    if days:
        check_start(end, (shown(anchor, zone) + timedelta(days=days)).replace(fold=0), zone)
    else:
        assert end == anchor


@pytest.mark.parametrize("name", NAMES)
def test_a_zone_is_known_by_its_name(name: str) -> None:
    assert is_zone(name)


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "Europe", "../zones", "/etc/localtime"])
def test_what_is_no_zone_is_told(name: str) -> None:
    assert not is_zone(name)
