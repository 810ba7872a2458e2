"""Who pays for no plan is on the free one: each period once, in the account's zone."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st
from psycopg import AsyncConnection

from api.free_plan import NextRefill, next_refill
from ledger.domain.entities import Source
from ledger.domain.events import CreditsGranted, GrantExpired
from ledger.domain.offers import Period, Plan
from ledger.domain.periods import Schedule
from tests.consumers.plans_room import world
from tests.consumers.room import Room

START = datetime(2027, 1, 31, 22, 30, tzinfo=UTC)
DAY, INSTANT = timedelta(days=1), timedelta(microseconds=1)
ZONES = ("UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/Sao_Paulo", "Pacific/Apia")


def free(**terms: Any) -> Plan:
    return Plan(
        **{"name": "Free", "credits": 100, "fallback": True, "kind": "promotional", **terms}
    )


PRO = Plan(name="Pro", credits=1_000)


def utc(month: int, day: int, hour: int = 22, minute: int = 30) -> datetime:
    return datetime(2027, month, day, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize("unit", ["month", "year"])
@pytest.mark.parametrize("rollover", ["none", "capped", "all"])
def test_a_year_has_each_period_once_with_exact_ends(
    room: Room, unit: Period, rollover: str
) -> None:
    cap = 60 if rollover == "capped" else None
    terms = free(period=unit, rollover=rollover, rollover_max=cap)
    count = 13 if unit == "month" else 3

    @settings(max_examples=4, deadline=None, database=None)
    @for_all(
        day=st.sampled_from((29, 30, 31)),
        zone=st.sampled_from(ZONES),
        spent=st.lists(st.integers(0, 100), min_size=count, max_size=count),
        late=st.lists(st.sampled_from((0, 0, 1, 20)), min_size=count, max_size=count),
    )
    def year(day: int, zone: str, spent: list[int], late: list[int]) -> None:
        opened = datetime(2027, 1, day, 3, 30, tzinfo=UTC)
        schedule = Schedule(anchor=opened, zone=zone, unit=unit)
        with world(room, opened) as one:
            one.put_plan("free", terms)
            one.open(zone)
            left = 0
            for index in range(count):
                number, start, end = schedule.period(index)
                # Nothing comes before its time, and nothing twice.
                one.at(max(opened, start - INSTANT))
                one.at(start + late[index] * DAY)
                one.tick()
                own = one.grants()[f"free~{number}"]
                assert own.amount == 100
                assert own.effective_at == start
                assert own.expires_at == (None if rollover == "all" else end)
                over = min(left, 60) if rollover == "capped" and index else 0
                rolled = one.amounts()
                mine = {name: n for name, n in rolled.items() if name.startswith(f"free~{number}~")}
                assert sum(mine.values()) == over
                if spent[index]:
                    one.spend(spent[index])
                left = over + 100 - spent[index]
            assert sum(n.startswith("free~") and n.count("~") == 1 for n in one.amounts()) == count
            view = one.grants().values()
            assert sum(g.consumed for g in view) == sum(spent)

    year()


def test_what_goes_over_is_what_was_unspent_at_the_boundary_however_late_that_is_seen(
    room: Room,
) -> None:
    with world(room, START) as one:
        one.put_plan("free", free(rollover="capped", rollover_max=70))
        one.open()
        one.tick()
        one.spend(60)
        one.at(utc(3, 9))  # The boundary was on 28 February.
        grants = one.grants()
        assert {n: (g.amount, g.expires_at) for n, g in grants.items()} == {
            "free~0": (100, utc(2, 28)),
            "free~1~1": (40, utc(3, 31)),
            "free~1": (100, utc(3, 31)),
        }
        (end,) = [e.event for e in one.events() if isinstance(e.event, GrantExpired)]
        assert end.amount == 40
        made = [e.event for e in one.events() if isinstance(e.event, CreditsGranted)]
        assert [e.source for e in made] == [
            Source("plan", "free"),
            Source("rollover", "free~0"),
            Source("plan", "free"),
        ]


def test_months_that_nobody_looked_at_end_as_if_nobody_had_spent_in_them(room: Room) -> None:
    with world(room, START) as one:
        one.put_plan("free", free(rollover="capped", rollover_max=250))
        one.open()
        one.tick()
        one.spend(100)
        one.at(utc(6, 15))  # April's and May's are over, and were never granted.
        assert one.amounts() == {
            "free~0": 100,
            "free~4~1": 50,
            "free~4~2": 100,
            "free~4~3": 100,
            "free~4": 100,
        }
        live = [g for g in one.grants().values() if g.status == "active"]
        assert sum(g.available for g in live) == 100 + 250
        assert {g.expires_at for g in live} == {utc(6, 30)}


def test_credits_without_an_end_are_granted_for_each_month_that_was_missed(room: Room) -> None:
    with world(room, START) as one:
        one.put_plan("free", free(rollover="all"))
        one.open()
        one.at(utc(5, 1))
        assert one.amounts() == {f"free~{n}": 100 for n in range(4)}


def test_there_is_no_free_period_while_a_paid_plan_is_had(room: Room) -> None:
    with world(room, START) as one:
        one.put_plan("free", free())
        one.put_plan("pro", PRO)
        one.open()
        one.tick()
        one.clock.now = utc(2, 10)
        one.subscribe("active")
        one.at(utc(3, 1))
        one.at(utc(4, 1))
        assert one.amounts() == {"free~0": 100}
        one.clock.now = utc(4, 20)
        one.subscribe("ended", "free", ended_at=utc(4, 17, 8))
        one.tick()
        grant = one.grants()["free~1"]
        # It begins where the paid plan ended, and that is its day from now on.
        assert (grant.effective_at, grant.expires_at) == (utc(4, 17, 8), utc(5, 17, 8))
        one.at(utc(5, 17, 8))
        assert one.grants()["free~2"].expires_at == utc(6, 17, 8)


@pytest.mark.parametrize("status", ["trialing", "active", "past_due", "paused"])
def test_a_plan_is_had_in_these_states(room: Room, status: str) -> None:
    with world(room, START) as one:
        one.put_plan("free", free())
        one.put_plan("pro", PRO)
        one.open()
        one.subscribe(status)
        one.tick()
        assert "free~0" not in one.amounts()


@pytest.mark.parametrize(
    ("status", "plan"),
    [
        ("incomplete", "pro"),
        ("upcoming", "pro"),
        ("ended", "free"),
        ("active", "free"),
        ("active", None),
    ],
)
def test_a_plan_is_not_had_in_these(room: Room, status: str, plan: str | None) -> None:
    with world(room, START) as one:
        one.put_plan("free", free())
        one.put_plan("pro", PRO)
        one.open()
        one.subscribe(status, plan)
        one.tick()
        assert one.amounts() == {"free~0": 100}


def test_a_paid_plan_that_came_and_went_within_a_free_period_makes_no_second_one(
    room: Room,
) -> None:
    with world(room, START) as one:
        one.put_plan("free", free())
        one.put_plan("pro", PRO)
        one.open()
        one.tick()
        for day in (5, 8, 11):
            one.clock.now = utc(2, day)
            one.subscribe("active")
            one.tick()
            one.clock.now = utc(2, day + 1)
            one.subscribe("ended", "free", ended_at=one.now)
            one.tick()
        assert one.amounts() == {"free~0": 100}
        one.at(utc(2, 28))
        assert one.grants()["free~1"].expires_at == utc(3, 31)


def test_a_plan_that_is_cancelled_ends_at_that_time_though_nothing_more_is_told(
    room: Room,
) -> None:
    with world(room, START) as one:
        one.put_plan("free", free())
        one.put_plan("pro", PRO)
        one.open()
        one.subscribe("active", cancel_at=utc(2, 14))
        one.at(utc(2, 14) - INSTANT)
        assert one.amounts() == {}
        one.at(utc(2, 14))
        assert one.grants()["free~0"].effective_at == utc(2, 14)


def test_a_free_plan_that_comes_later_begins_when_it_is_in_force(room: Room) -> None:
    with world(room, START) as one:
        one.open()
        one.tick()
        one.clock.now = utc(2, 3)
        one.put_plan("free", free(), effective_at=utc(2, 5))
        one.tick()
        assert one.amounts() == {}
        one.at(utc(2, 7))
        assert one.grants()["free~0"].effective_at == utc(2, 5)


def test_a_free_plan_that_is_taken_away_and_comes_back_goes_on_counting(room: Room) -> None:
    with world(room, START) as one:
        one.put_plan("free", free())
        one.open()
        one.tick()
        one.clock.now = utc(2, 3)
        one.put_plan("free", free(fallback=False))
        one.at(utc(3, 5))
        assert one.amounts() == {"free~0": 100}
        one.clock.now = utc(3, 9)
        one.put_plan("basic", free(credits=7, period="year"))
        one.tick()
        grant = one.grants()["free~1"]
        assert (grant.amount, grant.effective_at) == (7, utc(3, 9))
        assert grant.expires_at == datetime(2028, 3, 9, 22, 30, tzinfo=UTC)


def test_a_new_zone_rules_from_the_next_period_on_without_gap_or_overlap(room: Room) -> None:
    with world(room, START) as one:
        one.put_plan("free", free())
        one.open("America/Sao_Paulo")
        one.tick()
        one.open("Europe/Berlin")
        one.at(utc(2, 28))
        one.at(utc(4, 2))
        grants = one.grants()
        # 19:30 on the 31st in São Paulo; from then on 19:30 in Berlin.
        assert grants["free~0"].expires_at == grants["free~1"].effective_at == utc(2, 28)
        assert grants["free~1"].expires_at == grants["free~2"].effective_at
        assert grants["free~1"].expires_at == utc(3, 31, 17)


def test_the_trial_of_the_free_plan_is_granted_at_the_opening_and_never_again(room: Room) -> None:
    with world(room, START) as one:
        one.put_plan("free", free(trial_credits=5, trial_days=10))
        one.open()
        one.tick()
        one.at(utc(2, 28))
        grants = one.grants()
        assert set(grants) == {"free~0", "free~trial", "free~1"}
        assert grants["free~trial"].expires_at == START + 10 * DAY


def test_accounts_of_other_tenants_are_none_of_its_business(room: Room) -> None:
    with world(room, START) as one, world(room, START) as other:
        one.put_plan("free", free())
        one.open()
        other.open()
        one.tick()
        assert (one.amounts(), other.amounts()) == ({"free~0": 100}, {})


def test_the_next_refill_is_told_and_comes(room: Room) -> None:
    with world(room, START) as one:
        one.put_plan("free", free())
        one.open()
        one.tick()

        async def told() -> NextRefill | None:
            catalog = one.writer.catalog(one.tenant).result(30)
            async with await AsyncConnection.connect(room.urls.app_url) as connection:
                return await next_refill(connection, catalog, one.tenant, "ann")

        expected = NextRefill(plan="free", at=utc(2, 28), amount=100)
        assert asyncio.run(told()) == expected
        one.at(expected.at)
        assert one.grants()["free~1"].effective_at == expected.at
        one.subscribe("active")
        one.at(utc(3, 31))
        assert asyncio.run(told()) is None
