"""What the clock grants of paid plans: a trial once, and what was unspent, as far as it may go."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from ledger.domain.commands import Release, Reserve, RevokeGrant
from ledger.domain.entities import Charge, Source
from ledger.domain.events import CreditsGranted, PaymentApplied
from ledger.domain.offers import Plan
from ledger.domain.settlement import months_after
from ledger.domain.values import TTL_SECONDS_MAX
from tests.consumers.plans_room import World, world
from tests.consumers.room import Room

START = datetime(2027, 1, 31, 9, 0, tzinfo=UTC)
DAY, INSTANT = timedelta(days=1), timedelta(microseconds=1)


def pro(**terms: Any) -> Plan:
    return Plan(**{"name": "Pro", "credits": 100, **terms})


CAPPED = pro(rollover="capped", rollover_max=60)


def month(index: int) -> datetime:
    return months_after(START, index)


def begun(one: World, terms: Plan = CAPPED) -> str:
    one.put_plan("pro", terms)
    one.open()
    return one.pay(START, month(1), terms)


def piece(into: str, origin: datetime) -> str:
    return f"{into}~{int(origin.timestamp())}"


@pytest.mark.parametrize("months", [1, 12], ids=["month", "year"])
@pytest.mark.parametrize("rollover", ["none", "capped", "all"])
def test_a_year_of_a_paid_plan_carries_over_what_it_may(
    room: Room, months: int, rollover: str
) -> None:
    cap = 60 if rollover == "capped" else None
    terms = pro(rollover=rollover, rollover_max=cap, period="month" if months == 1 else "year")
    count = 13 if months == 1 else 3

    @settings(max_examples=4, deadline=None, database=None)
    @for_all(
        day=st.sampled_from((29, 30, 31)),
        spent=st.lists(st.integers(0, 100), min_size=count, max_size=count),
        paid_late=st.lists(st.sampled_from((0, 0, 5)), min_size=count, max_size=count),
    )
    def year(day: int, spent: list[int], paid_late: list[int]) -> None:
        start = datetime(2027, 1, day, 9, 0, tzinfo=UTC)
        bounds = [months_after(start, months * n) for n in range(count + 1)]
        with world(room, start) as one:
            one.put_plan("pro", terms)
            one.open()
            left = 0
            for index, (begins, ends) in enumerate(itertools.pairwise(bounds)):
                if index:
                    one.at(begins - INSTANT)
                one.at(begins + paid_late[index] * DAY)
                own = one.pay(begins, ends, terms)
                one.tick()
                one.tick()
                grants = one.grants()
                expires_at = None if rollover == "all" else ends
                over = [g for name, g in grants.items() if name.startswith(f"{own}~")]
                assert grants[own].expires_at == expires_at
                assert {g.expires_at for g in over} <= {expires_at}
                expected = min(left, 60) if rollover == "capped" else 0
                assert sum(g.available for g in over) == expected
                if spent[index]:
                    one.spend(spent[index])
                left = expected + 100 - spent[index]
            assert sum(g.consumed for g in one.grants().values()) == sum(spent)

    year()


def test_it_goes_over_once_the_next_period_is_paid_and_this_one_has_ended(room: Room) -> None:
    with world(room, START) as one:
        first = begun(one)
        one.spend(70)
        one.at(month(1) - DAY)
        second = one.pay(month(1), month(2), CAPPED)
        one.tick()
        assert set(one.amounts()) == {first, second}
        one.at(month(1) + 3 * DAY)
        grant = one.grants()[piece(second, month(1))]
        assert (grant.amount, grant.available, grant.expires_at) == (30, 30, month(2))
        told = one.events()[-1].event
        assert isinstance(told, PaymentApplied)
        assert told.source == Source("rollover", first)
        before = len(one.events())
        one.tick()
        assert len(one.events()) == before


def test_of_three_plans_three_times_the_cap_goes_over(room: Room) -> None:
    with world(room, START) as one:
        one.put_plan("pro", CAPPED)
        one.open()
        one.pay(START, month(1), CAPPED, quantity=3)
        one.spend(90)
        one.at(month(1))
        second = one.pay(month(1), month(2), CAPPED)
        one.tick()
        assert one.grants()[piece(second, month(1))].amount == 180
        one.at(month(2))
        third = one.pay(month(2), month(3), CAPPED)
        one.tick()
        over = [g.amount for name, g in one.grants().items() if name.startswith(f"{third}~")]
        assert sum(over) == 60


def test_nothing_goes_over_if_no_later_period_is_ever_paid(room: Room) -> None:
    with world(room, START) as one:
        first = begun(one)
        one.at(month(3))
        assert set(one.amounts()) == {first}


def test_another_subscription_is_no_later_period(room: Room) -> None:
    with world(room, START) as one:
        first = begun(one)
        one.clock.now = month(1)
        other = one.pay(month(1), month(2), CAPPED, subscription="other")
        one.tick()
        assert set(one.amounts()) == {first, other}


@pytest.mark.parametrize(("back", "left"), [(10, 60), (50, 50), (100, 0)])
def test_a_refund_that_comes_after_ends_as_if_it_had_come_before(
    room: Room, back: int, left: int
) -> None:
    """100 unspent; 60 may go over; of what is refunded, the unspent goes first."""
    with world(room, START) as one:
        begun(one)
        one.clock.now = month(1)
        second = one.pay(month(1), month(2), CAPPED)
        one.tick()
        assert one.grants()[piece(second, month(1))].available == 60
        one.pay(START, month(1), CAPPED, reversed_=back)
        one.tick()
        late = one.grants()[piece(second, month(1))]
        assert late.available == left
    with world(room, START) as one:
        begun(one)
        one.pay(START, month(1), CAPPED, reversed_=back)
        one.clock.now = month(1)
        second = one.pay(month(1), month(2), CAPPED)
        one.tick()
        early = one.grants().get(piece(second, month(1)))
        assert (0 if early is None else early.available) == left


def test_what_went_over_and_was_spent_before_the_refund_is_owed(room: Room) -> None:
    with world(room, START) as one:
        begun(one)
        one.clock.now = month(1)
        second = one.pay(month(1), month(2), CAPPED)
        one.tick()
        one.spend(60)  # The piece: it ends when the others do, and was first.
        spent = {name: g.consumed for name, g in one.grants().items()}
        one.pay(START, month(1), CAPPED, reversed_=100)
        one.tick()
        view = one.writer.view(one.tenant, one.account).result(30)
        assert view.balance.debt == spent[piece(second, month(1))]
        assert view.balance.available == sum(g.available for g in view.grants)


def test_what_lapsed_after_the_end_does_not_pay_for_a_refund(room: Room) -> None:
    terms = pro(rollover="capped", rollover_max=150)
    with world(room, START) as one:
        begun(one, terms)
        one.do(Reserve(id="job", charge=Charge(amount=40), ttl_seconds=TTL_SECONDS_MAX))
        one.clock.now = month(1)
        second = one.pay(month(1), month(2), terms)
        one.tick()
        name = piece(second, month(1))
        assert one.grants()[name].available == 60
        one.do(Release(reservation="job"))
        one.pay(START, month(1), terms, reversed_=10)
        one.tick()
        assert one.grants()[name].available == 50


def test_a_dispute_freezes_what_went_over_and_a_won_one_thaws_it(room: Room) -> None:
    with world(room, START) as one:
        begun(one)
        one.clock.now = month(1)
        second = one.pay(month(1), month(2), CAPPED)
        one.tick()
        name = piece(second, month(1))
        one.pay(START, month(1), CAPPED, frozen=True)
        one.tick()
        assert (one.grants()[name].status, one.grants()[name].available) == ("frozen", 0)
        one.pay(START, month(1), CAPPED)
        one.tick()
        assert (one.grants()[name].status, one.grants()[name].available) == ("active", 60)
        one.pay(START, month(1), CAPPED, reversed_=100)
        one.tick()
        assert one.grants()[name].status == "revoked"
        one.pay(START, month(1), CAPPED)
        one.tick()
        assert (one.grants()[name].status, one.grants()[name].available) == ("active", 60)


def test_a_refund_reaches_what_went_over_twice(room: Room) -> None:
    terms = pro(rollover="capped", rollover_max=150)
    with world(room, START) as one:
        begun(one, terms)
        one.clock.now = month(1)
        one.pay(month(1), month(2), terms)
        one.tick()
        one.clock.now = month(2)
        third = one.pay(month(2), month(3), terms)
        one.tick()
        assert one.grants()[piece(third, month(1))].available == 50
        assert one.grants()[piece(third, month(2))].available == 100
        one.pay(START, month(1), terms, reversed_=80)
        one.tick()
        assert one.grants()[piece(third, month(1))].available == 20
        assert one.grants()[piece(third, month(2))].available == 100


def test_a_period_that_is_told_of_late_comes_between(room: Room) -> None:
    def told(order: list[int]) -> dict[str, int]:
        with world(room, START) as one:
            one.put_plan("pro", CAPPED)
            one.open()
            one.clock.now = month(2)
            for index in order:
                one.pay(month(index), month(index + 1), CAPPED)
                one.tick()
            return {name: g.available for name, g in one.grants().items() if g.available}

    ends = [told(list(order)) for order in itertools.permutations(range(3))]
    assert ends == [ends[0]] * len(ends)
    assert sum(ends[0].values()) == 160


def test_periods_that_were_told_of_after_their_end_were_unspent(room: Room) -> None:
    with world(room, month(5)) as one:
        one.put_plan("pro", CAPPED, effective_at=START)
        one.open()
        for index in range(6):
            one.pay(month(index), month(index + 1), CAPPED)
        one.tick()
        live = [g for g in one.grants().values() if g.available]
        assert sum(g.available for g in live) == 160
        assert {g.expires_at for g in live} == {month(6)}


def test_a_crash_between_the_ledger_and_its_row_carries_nothing_over_twice(room: Room) -> None:
    with world(room, START) as one:
        begun(one)
        one.clock.now = month(1)
        one.pay(month(1), month(2), CAPPED)
        one.tick()
        before = one.amounts()
        one.spend(30)
        one.sql("UPDATE scrip.payments SET rolled_at = NULL WHERE tenant = %(tenant)s")
        one.tick()
        one.tick()
        assert one.amounts() == before
        assert sum(g.available for g in one.grants().values()) == 130


def test_what_an_operator_has_taken_back_does_not_come_again(room: Room) -> None:
    with world(room, START) as one:
        begun(one)
        one.clock.now = month(1)
        second = one.pay(month(1), month(2), CAPPED)
        one.tick()
        name = piece(second, month(1))
        one.do(RevokeGrant(grant=name))
        one.pay(START, month(1), CAPPED, reversed_=10)
        one.tick()
        assert one.grants()[name].available == 0


# -- trials ----------------------------------------------------------------------------------------


def test_a_trial_is_granted_once_an_account_whatever_it_tries(room: Room) -> None:
    with world(room, START) as one:
        one.put_plan("pro", pro(trial_credits=20, trial_days=14))
        one.put_plan("big", pro(name="Big", trial_credits=50, trial_days=7))
        one.open("Europe/Berlin")
        one.subscribe("active")
        one.tick()
        assert one.amounts() == {}
        one.subscribe("trialing", starts_at=START, subscription="second")
        one.tick()
        one.tick()
        assert {n: (g.amount, g.expires_at) for n, g in one.grants().items()} == {
            "paid~trial": (20, START + 14 * DAY)
        }
        told = one.events()[-1].event
        assert isinstance(told, CreditsGranted)
        assert told.source == Source("plan", "pro")
        one.subscribe("trialing", "big", starts_at=START, subscription="third")
        one.at(START + DAY)
        assert one.amounts() == {"paid~trial": 20}


def test_a_trial_that_is_over_before_its_account_is_known_grants_nothing(room: Room) -> None:
    with world(room, START) as one:
        one.put_plan("pro", pro(trial_credits=20, trial_days=14))
        one.open()
        one.subscribe("trialing", starts_at=START - 14 * DAY)
        one.tick()
        assert one.amounts() == {}
