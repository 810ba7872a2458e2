"""What a plan grants at each boundary, and what goes over: no credit is made or lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from ledger.domain.account import Account
from ledger.domain.commands import AccountCommand, GrantCredits, PutAccount, Settle
from ledger.domain.decide import decide
from ledger.domain.entities import Grant, Source
from ledger.domain.errors import GrantExists, LedgerError
from ledger.domain.events import Event, GrantExpired
from ledger.domain.evolve import evolve
from ledger.domain.offers import Period, Plan
from ledger.domain.periods import Schedule, Span, days_after
from ledger.domain.rollover import Ended, carried, is_of_period, refill, trial
from tests.domain.scenario import capture, deduct, release, reserve
from tests.domain.targets import check_books

RULE = "plan:pro"
HOUR = timedelta(hours=1)
ZONES = (
    "Pacific/Apia",
    "Asia/Kathmandu",
    "America/Sao_Paulo",
    "Europe/Berlin",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
)
ROLLOVERS = ({"rollover": "none"}, {"rollover": "capped"}, {"rollover": "all"})
SPAN = Span(3, datetime(2026, 4, 30, tzinfo=UTC), datetime(2026, 5, 31, tzinfo=UTC))


def plan(**terms: Any) -> Plan:
    return Plan(**{"name": "Pro", "credits": 100, **terms})


def ended(unspent: int, grant: str = f"{RULE}~2", **terms: Any) -> Ended:
    return Ended(**{"grant": grant, "unspent": unspent, "kind": "paid", "priority": 100, **terms})


def amounts(grants: tuple[GrantCredits, ...]) -> list[tuple[str | None, int]]:
    return [(one.id, one.amount) for one in grants]


class Year:
    """An account with one plan, under a clock that is moved; and what happened."""

    def __init__(self, terms: Plan, schedule: Schedule) -> None:
        """Open the account when the plan begins."""
        self.plan, self.schedule = terms, schedule
        self.account, self.events, self.keys = Account(), list[Event](), 0
        self.last: int | None = None
        self.do(PutAccount(), schedule.begins)

    def do(self, command: AccountCommand, now: datetime) -> None:
        """Let the ledger decide, and check the books after every event."""
        self.keys += 1
        for event in decide(self.account, command, now, key=str(self.keys)):
            evolve(self.account, event)
            self.events.append(event)
            check_books(self.account)

    def attempt(self, command: AccountCommand, now: datetime) -> None:
        """Do what may be refused."""
        try:
            self.do(command, now)
        except LedgerError:
            self.do(Settle(), now)

    def refill(self, now: datetime) -> list[GrantCredits]:
        """Grant what is due, as the one who keeps the clock does."""
        granted: list[GrantCredits] = []
        for span in self.schedule.due(self.last, now):
            granted += self._refill(span, now if now < span.end else span.start)
            self.last = span.number
        return granted

    def _refill(self, span: Span, now: datetime) -> tuple[GrantCredits, ...]:
        self.do(Settle(), now)
        grants = refill(RULE, self.plan, span, self.unspent(span.number - 1))
        for one in grants:
            self.do(one, now)
        for one in grants:
            with pytest.raises(GrantExists):
                self.do(one, now)
        assert grants == refill(RULE, self.plan, span, self.unspent(span.number - 1))
        return grants

    def unspent(self, index: int) -> list[Ended]:
        """Return what the events say was unspent at the end of a period, the oldest grant first."""
        grants = self.account.grants
        found = [
            Ended.of(grants[one.grant], one.amount)
            for one in self.events
            if isinstance(one, GrantExpired) and is_of_period(one.grant, RULE, index)
        ]
        return sorted(found, key=lambda one: grants[one.grant].sequence)

    def of_period(self, index: int) -> list[Grant]:
        return [one for one in self.account.grants.values() if is_of_period(one.id, RULE, index)]


# -- what one boundary grants ----------------------------------------------------------------------


def test_without_rollover_the_credits_end_with_their_period() -> None:
    assert refill(RULE, plan(kind="promotional", priority=7), SPAN, [ended(40)]) == (
        GrantCredits(
            id="plan:pro~3",
            amount=100,
            kind="promotional",
            priority=7,
            effective_at=SPAN.start,
            expires_at=SPAN.end,
            source=Source("plan", RULE),
        ),
    )


def test_what_goes_over_is_a_grant_of_its_own_that_names_its_parent() -> None:
    terms = plan(rollover="capped", rollover_max=30)
    rolled, own = refill(RULE, terms, SPAN, [ended(40, kind="promotional", cost_basis=5)])
    assert rolled == GrantCredits(
        id="plan:pro~3~1",
        amount=30,
        kind="promotional",
        effective_at=SPAN.start,
        expires_at=SPAN.end,
        cost_basis=5,
        source=Source("rollover", "plan:pro~2"),
    )
    assert (own.id, own.amount, own.expires_at) == ("plan:pro~3", 100, SPAN.end)


def test_with_rollover_of_all_credits_have_no_end_and_nothing_is_granted_twice() -> None:
    (own,) = refill(RULE, plan(rollover="all"), SPAN, [ended(40)])
    assert (own.amount, own.expires_at) == (100, None)


@pytest.mark.parametrize(
    ("cap", "expected"),
    [
        (0, []),
        (1, [("new", 1)]),
        (10, [("new", 10)]),
        (11, [("old", 1), ("new", 10)]),
        (15, [("old", 5), ("new", 10)]),
        (16, [("oldest", 1), ("old", 5), ("new", 10)]),
        (99, [("oldest", 7), ("old", 5), ("new", 10)]),
        (None, [("oldest", 7), ("old", 5), ("new", 10)]),
    ],
)
def test_the_cap_is_on_all_that_goes_over_and_the_newest_goes_first(
    cap: int | None, expected: list[tuple[str, int]]
) -> None:
    unspent = [ended(7, "oldest"), ended(0, "spent"), ended(5, "old"), ended(10, "new")]
    found = carried(plan(rollover="capped", rollover_max=cap), unspent)
    assert [(parent.grant, amount) for parent, amount in found] == expected


def test_what_goes_over_is_said_by_the_plan_that_ended_and_its_life_by_the_next() -> None:
    capped, to_all = plan(rollover="capped", rollover_max=30), plan(rollover="all")
    assert amounts(refill(RULE, plan(), SPAN, [ended(40)], ended_plan=capped)) == [
        ("plan:pro~3~1", 30),
        ("plan:pro~3", 100),
    ]
    assert amounts(refill(RULE, capped, SPAN, [ended(40)], ended_plan=plan())) == [
        ("plan:pro~3", 100)
    ]
    rolled = refill(RULE, to_all, SPAN, [ended(40)], ended_plan=capped)[0]
    assert (rolled.amount, rolled.expires_at) == (30, None)


def test_a_plan_without_credits_grants_only_what_goes_over() -> None:
    terms = plan(credits=0, rollover="capped", rollover_max=30)
    assert amounts(refill(RULE, terms, SPAN, [ended(40)])) == [("plan:pro~3~1", 30)]
    assert refill(RULE, terms, SPAN) == ()


@for_all(st.lists(st.tuples(st.sampled_from(("a", "b:1", "a~1")), st.integers(0, 40)), max_size=6))
def test_no_two_boundaries_grant_the_same_id(places: list[tuple[str, int]]) -> None:
    terms, unspent = plan(rollover="capped", rollover_max=30), [ended(9, "x"), ended(9, "y")]
    rules = {(rule.replace("~", "-"), index) for rule, index in places}
    ids = [
        one.id
        for rule, index in rules
        for one in refill(rule, terms, SPAN._replace(number=index), unspent)
    ]
    assert len(set(ids)) == len(ids) == 3 * len(rules)


# -- a year, with whatever is spent ----------------------------------------------------------------

SPENDING = st.lists(
    st.tuples(
        st.floats(0, 0.999), st.sampled_from(("deduct", "reserve", "close")), st.integers(1, 120)
    ),
    max_size=4,
)


@pytest.mark.parametrize("unit", ["month", "year"])
@pytest.mark.parametrize("terms", ROLLOVERS, ids=lambda terms: terms["rollover"])
@for_all(
    day=st.sampled_from((29, 30, 31)),
    zone=st.sampled_from(ZONES),
    cap=st.sampled_from((0, 30, 250, None)),
    spending=st.lists(SPENDING, min_size=13, max_size=13),
    late=st.lists(st.sampled_from((0, 0, 0, 1, 30, 500)), min_size=13, max_size=13),
)
def test_a_year_makes_and_loses_nothing(
    terms: dict[str, Any],
    unit: Period,
    *,
    day: int,
    zone: str,
    cap: int | None,
    spending: list[list[tuple[float, str, int]]],
    late: list[int],
) -> None:
    anchor = datetime(2027, 1, day, 3, 30, tzinfo=UTC)
    schedule = Schedule(anchor=anchor, zone=zone, unit=unit)
    year = Year(plan(period=unit, rollover_max=cap, **terms), schedule)
    for index in range(13 if unit == "month" else 3):
        number, start, end = schedule.period(index)
        refilled = start + late[index] * HOUR
        moves = sorted(
            (start + part * (end - start), what, sum_) for part, what, sum_ in spending[index]
        )
        done = False
        for place, (when, what, amount) in enumerate(moves):
            if when >= refilled and not done:
                done = bool(check_boundary(year, year.refill(refilled), index))
            name = f"{number}-{place}"
            if what == "deduct":
                year.attempt(deduct(amount, name), when)
            elif what == "reserve":
                year.attempt(reserve(amount, name, ttl_seconds=amount * 20_000), when)
            else:
                for held in sorted(year.account.open)[:1]:
                    year.attempt(capture(1, held) if amount % 2 else release(held), when)
        if not done:
            check_boundary(year, year.refill(refilled), index)
        year.do(Settle(), end - timedelta(microseconds=1))
        assert all(one.status != "expired" for one in year.of_period(index))
    check_the_whole(year)


def check_boundary(year: Year, granted: list[GrantCredits], index: int) -> list[GrantCredits]:
    """Assert that the period got its credits and what may go over: grants and ends exact."""
    number, start, end = year.schedule.period(index)
    expires_at = None if year.plan.rollover == "all" else end
    assert granted[-1].amount == year.plan.credits
    assert {(one.effective_at, one.expires_at) for one in granted} == {(start, expires_at)}
    unspent = {one.grant: one.unspent for one in year.unspent(number - 1)}
    rolled = [one for one in granted if one.source and one.source.type == "rollover"]
    assert len(rolled) == len(granted) - 1
    cap = {"none": 0, "all": 0, "capped": year.plan.rollover_max}[year.plan.rollover]
    total = sum(unspent.values())
    assert sum(one.amount for one in rolled) == (total if cap is None else min(cap, total))
    assert all(one.source and one.amount <= unspent[one.source.id] for one in rolled)
    return granted


def check_the_whole(year: Year) -> None:
    """Assert that each credit of the plan was used, expired for good, or is still there."""
    balance, grants = year.account.balance, year.account.grants.values()
    rolled = sum(one.amount for one in grants if one.id.count("~") == 2)
    periods = (year.last or 0) + 1
    assert sum(one.amount for one in grants) == periods * year.plan.credits + rolled
    remaining = balance.available + balance.reserved
    assert balance.granted == balance.consumed + balance.expired + remaining
    assert periods * year.plan.credits == balance.consumed + balance.expired - rolled + remaining
    assert rolled <= balance.expired
    if year.plan.rollover == "all":
        assert balance.expired == 0


@pytest.mark.parametrize("terms", ROLLOVERS, ids=lambda terms: terms["rollover"])
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("day", [29, 30, 31])
def test_a_year_without_a_clock_ends_like_one_with_twelve_refills(
    terms: dict[str, Any], zone: str, day: int
) -> None:
    schedule = Schedule(anchor=datetime(2027, 1, day, 23, 59, tzinfo=UTC), zone=zone, unit="month")
    kept, stopped = (Year(plan(rollover_max=250, **terms), schedule) for _ in range(2))
    for one in (kept, stopped):
        one.refill(schedule.begins)
        one.do(deduct(70), schedule.begins + HOUR)
    for index in range(1, 13):
        kept.refill(schedule.period(index).start)
    now = schedule.period(12).start + HOUR
    stopped.refill(now)
    for one in (kept, stopped):
        one.do(Settle(), now)
    assert kept.account.snapshot() == stopped.account.snapshot()
    left = {"none": 100, "capped": 350, "all": 1_230}[kept.plan.rollover]
    assert kept.account.balance.available == left


def test_what_is_let_go_after_the_boundary_does_not_go_over_however_late_the_refill() -> None:
    schedule = Schedule(anchor=datetime(2027, 1, 31, tzinfo=UTC), zone="UTC", unit="month")
    boundary = schedule.period(1).start
    for late in (timedelta(0), 5 * HOUR):
        year = Year(plan(rollover="capped", rollover_max=None), schedule)
        year.refill(schedule.begins)
        year.do(reserve(60, ttl_seconds=2_500_000), boundary - HOUR)
        if late:
            year.do(release(), boundary + HOUR)
        granted = year.refill(boundary + late)
        assert amounts(tuple(granted)) == [("plan:pro~1~1", 40), ("plan:pro~1", 100)]


def test_credits_can_be_spent_up_to_the_boundary_and_go_over_from_it() -> None:
    schedule = Schedule(anchor=datetime(2027, 1, 31, tzinfo=UTC), zone="UTC", unit="month")
    boundary = schedule.period(1).start
    for offset, over in ((-1, 30), (0, 100), (1, 100)):
        year = Year(plan(rollover="capped", rollover_max=None), schedule)
        year.refill(schedule.begins)
        year.attempt(deduct(70), boundary + timedelta(microseconds=offset))
        granted = year.refill(boundary + timedelta(microseconds=1))
        assert amounts(tuple(granted))[0] == ("plan:pro~1~1", over)


def test_what_went_over_is_spent_before_the_credits_of_the_period() -> None:
    schedule = Schedule(anchor=datetime(2027, 1, 31, tzinfo=UTC), zone="UTC", unit="month")
    year = Year(plan(rollover="capped", rollover_max=30), schedule)
    year.refill(schedule.begins)
    year.refill(schedule.period(1).start)
    year.do(deduct(40), schedule.period(1).start)
    assert [(one.id, one.available) for one in year.of_period(1)] == [
        ("plan:pro~1~1", 0),
        ("plan:pro~1", 90),
    ]


# -- trials ----------------------------------------------------------------------------------------


def test_a_trial_grants_once_and_ends_at_the_same_time_of_day() -> None:
    anchor = datetime(2026, 3, 20, 22, 30, tzinfo=UTC)
    found = trial(RULE, plan(trial_credits=25, trial_days=14), anchor, "Europe/Berlin")
    assert found == GrantCredits(
        id="plan:pro~trial",
        amount=25,
        kind="promotional",
        effective_at=anchor,
        expires_at=datetime(2026, 4, 3, 21, 30, tzinfo=UTC),  # 23:30, by summer time.
        source=Source("plan", RULE),
    )
    assert found.expires_at == days_after(anchor, "Europe/Berlin", 14)
    assert not is_of_period("plan:pro~trial", RULE, 0)


@pytest.mark.parametrize("terms", [{}, {"trial_credits": 5}, {"trial_days": 5}])
def test_a_plan_without_a_trial_grants_none(terms: dict[str, Any]) -> None:
    assert trial(RULE, plan(**terms), SPAN.start, "UTC") is None
