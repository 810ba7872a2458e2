"""What is sold: plans and packs, their versions in time, and which of them a payment is for."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from ledger.domain.catalog import (
    Catalog,
    decide_catalog,
    evolve_catalog,
    fallback_at,
    offer_of,
    pack_at,
    plan_at,
    referral_reward_at,
)
from ledger.domain.catalog_events import PackSet, PlanSet, ReferralRewardSet
from ledger.domain.commands import CatalogCommand, SetPack, SetPlan, SetReferralReward
from ledger.domain.errors import InvalidCommand
from ledger.domain.offers import Money, Pack, Plan, ProviderIds
from tests.domain.scenario import NOON, at, given

MOMENT = timedelta(microseconds=1)


def plan(
    key: str = "pro",
    *ids: str,
    effective_at: datetime | None = None,
    retired: bool = False,
    **terms: Any,
) -> SetPlan:
    given_terms = {"name": "Pro", "credits": 500, "providers": ProviderIds(stripe=ids), **terms}
    return SetPlan(plan=key, terms=Plan(**given_terms), effective_at=effective_at, retired=retired)


def pack(
    key: str = "small",
    *ids: str,
    effective_at: datetime | None = None,
    retired: bool = False,
    **terms: Any,
) -> SetPack:
    given_terms = {"name": "Small", "credits": 50, "providers": ProviderIds(stripe=ids), **terms}
    return SetPack(pack=key, terms=Pack(**given_terms), effective_at=effective_at, retired=retired)


def reward(referrer: int = 2, referred: int = 1, **terms: Any) -> SetReferralReward:
    return SetReferralReward(referrer=referrer, referred=referred, **terms)


# -- versions in time ------------------------------------------------------------------------------


def test_a_version_is_in_force_from_its_time_until_that_of_the_next() -> None:
    catalog = given(plan(credits=1), 60, plan(credits=2), 60, plan(credits=3)).catalog
    assert plan_at(catalog, "pro", NOON - MOMENT) is None
    for when, amount in ((0, 1), (60, 2), (120, 3), (10**6, 3)):
        version = plan_at(catalog, "pro", at(when))
        assert version is not None
        assert version.terms.credits == amount
    last_moment_of_first = plan_at(catalog, "pro", at(60) - MOMENT)
    assert last_moment_of_first is not None
    assert last_moment_of_first.version == 1
    assert plan_at(catalog, "none", NOON) is None


def test_a_version_may_be_in_force_only_later_or_since_long_ago() -> None:
    catalog = given(
        pack(credits=1, effective_at=at(-3600)), pack(credits=2, effective_at=at(3600))
    ).catalog
    for when, amount in ((-3600, 1), (0, 1), (3600, 2)):
        version = pack_at(catalog, "small", at(when))
        assert version is not None
        assert version.terms.credits == amount


@pytest.mark.parametrize("later", [plan(effective_at=at(10)), plan()])
def test_a_version_is_never_in_force_before_the_one_before_it(later: SetPlan) -> None:
    given(plan(effective_at=at(11))).when(later).refused(
        InvalidCommand,
        field="effective_at",
        rule="must not be before that of the version before it, which is 2026-03-01T12:00:11Z",
    )


def test_of_two_versions_of_one_moment_the_last_is_in_force() -> None:
    catalog = given(plan(credits=1), plan(credits=2)).catalog
    version = plan_at(catalog, "pro", NOON)
    assert version is not None
    assert version.version == 2


def test_the_event_says_from_when_and_all_the_terms() -> None:
    given(plan()).when(plan(price=Money(1900, "EUR"), retired=True)).then(
        PlanSet,
        plan="pro",
        version=2,
        effective_at=NOON,
        retired=True,
        terms=Plan(name="Pro", price=Money(1900, "EUR"), credits=500),
    )
    given().when(pack(bonus=5, effective_at=at(9))).then(
        PackSet,
        pack="small",
        version=1,
        effective_at=at(9),
        terms=Pack(name="Small", credits=50, bonus=5),
    )
    given().when(reward(expires_days=9)).then(
        ReferralRewardSet, version=1, effective_at=NOON, referrer=2, referred=1, expires_days=9
    )


def test_a_referral_gives_what_is_in_force_then() -> None:
    catalog = given(reward(2, 1), 60, reward(0, 0)).catalog
    assert referral_reward_at(catalog, NOON - MOMENT) is None
    first, second = (referral_reward_at(catalog, at(when)) for when in (59, 60))
    assert first is not None
    assert second is not None
    assert (first.referrer, first.referred) == (2, 1)
    assert (second.referrer, second.referred) == (0, 0)


# -- what a payment is for -------------------------------------------------------------------------


def sold(catalog: Catalog, price: str, seconds: int) -> tuple[str, int] | None:
    """Return what is paid for under a price at a time: its key and version."""
    offer = offer_of(catalog, "stripe", price, at(seconds))
    if offer is None:
        return None
    return (offer.plan if isinstance(offer, PlanSet) else offer.pack), offer.version


def test_a_price_leads_to_what_was_sold_under_it_then() -> None:
    catalog = given(plan("pro", "old"), pack("small", "pack"), 60, plan("pro", "new")).catalog
    assert sold(catalog, "old", 59) == ("pro", 1)
    assert sold(catalog, "old", 60) is None
    assert sold(catalog, "new", 59) is None
    assert sold(catalog, "new", 60) == ("pro", 2)
    assert sold(catalog, "pack", 60) == ("small", 1)
    assert sold(catalog, "unheard of", 60) is None
    assert offer_of(catalog, "clerk", "new", at(60)) is None


def test_what_is_paid_for_a_retired_offer_still_counts() -> None:
    catalog = given(plan("pro", "p"), 60, plan("pro", "p", retired=True)).catalog
    assert sold(catalog, "p", 99) == ("pro", 2)


@pytest.mark.parametrize(
    ("taken", "asked", "of"),
    [
        (plan("pro", "p"), plan("team", "p"), "plan pro"),
        (plan("pro", "p"), pack("small", "p"), "plan pro"),
        (pack("small", "p"), plan("pro", "p"), "pack small"),
        (pack("small", "p", retired=True), pack("big", "p"), "pack small"),
        # The one is in force later than the other begins.
        (plan("pro", "p", effective_at=at(99)), plan("team", "p"), "plan pro"),
        (plan("pro", "p"), plan("team", "p", effective_at=at(99)), "plan pro"),
        # Of the same key, but not the same offer.
        (plan("same", "p"), pack("same", "p"), "plan same"),
    ],
)
def test_a_price_is_of_one_offer_at_a_time(
    taken: CatalogCommand, asked: CatalogCommand, of: str
) -> None:
    given(taken).when(asked).refused(
        InvalidCommand, field="providers.stripe", rule=f"must not hold p, which is of {of}"
    )


def test_a_price_may_go_from_one_offer_to_another() -> None:
    scenario = given(plan("pro", "p"), 60, plan("pro"), plan("team", "p"))
    assert sold(scenario.catalog, "p", 59) == ("pro", 1)
    assert sold(scenario.catalog, "p", 60) == ("team", 1)
    scenario.when(plan("early", "p", effective_at=at(30))).refused(InvalidCommand)
    later = given(plan("pro", "p"), plan("pro", effective_at=at(60)))
    later.when(plan("team", "p", effective_at=at(59))).refused(InvalidCommand)
    later.when(plan("team", "p", effective_at=at(60))).then(PlanSet, version=1)


def test_the_same_id_at_another_provider_is_another_id() -> None:
    given(plan("pro", "p")).when(plan("team", providers=ProviderIds(clerk=("p",)))).then(PlanSet)


def test_there_is_one_plan_to_fall_back_to_at_a_time() -> None:
    free = plan("free", fallback=True)
    scenario = given(free, plan("pro", price=Money(1, "EUR")))
    scenario.when(free).then(PlanSet, version=2)
    scenario.when(plan("basic", fallback=True)).refused(
        InvalidCommand, field="fallback", rule="must be true on one plan only, and is on plan free"
    )
    scenario.when(plan("free", effective_at=at(60))).then(PlanSet)
    scenario.when(plan("basic", fallback=True)).refused(InvalidCommand, field="fallback")
    scenario.when(plan("basic", fallback=True, effective_at=at(60))).then(PlanSet)
    for when, key in ((59, "free"), (60, "basic")):
        found = fallback_at(scenario.catalog, at(when))
        assert found is not None
        assert found.plan == key
    assert fallback_at(scenario.catalog, NOON - MOMENT) is None


KEYS = ("a", "b", "c")
IDS = ("x", "y")
PUTS = st.lists(
    st.tuples(
        st.sampled_from((plan, pack)),
        st.sampled_from(KEYS),
        st.sets(st.sampled_from(IDS)),
        st.integers(0, 6),
        st.booleans(),
    ),
    max_size=14,
)


@for_all(PUTS)
def test_whatever_is_put_no_moment_has_two_sellers_of_a_price_or_two_fallbacks(
    puts: list[tuple[Any, str, set[str], int, bool]],
) -> None:
    """Compared with a table of every second: what is refused would have broken it, and only that.

    The table is made anew each time, by laying the versions over one another.
    """
    catalog = Catalog()
    accepted: list[tuple[Any, str, set[str], int, bool]] = []
    for put in puts:
        kind, key, ids, seconds, fallback = put
        terms = {"fallback": True} if fallback and kind is plan else {}
        command = kind(key, *sorted(ids), effective_at=at(seconds), **terms)
        before = [one for one in accepted if one[:2] == (kind, key)]
        in_order = not before or seconds >= before[-1][3]
        may = in_order and _is_sound([*accepted, put])
        try:
            event = decide_catalog(catalog, command, NOON)
        except InvalidCommand:
            assert not may, (accepted, put)
            continue
        assert may, (accepted, put)
        evolve_catalog(catalog, event)
        accepted.append(put)


def _is_sound(puts: list[tuple[Any, str, set[str], int, bool]]) -> bool:
    for second in range(8):
        now = {(kind, key): (kind, *rest) for kind, key, *rest in puts if rest[1] <= second}
        sellers = [one for _, ids, _, _ in now.values() for one in ids]
        fallbacks = [kind for kind, _, _, fallback in now.values() if fallback and kind is plan]
        if len(set(sellers)) < len(sellers) or len(fallbacks) > 1:
            return False
    return True


# -- what makes no sense ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "field"),
    [
        (plan("a b"), "plan"),
        (plan(name=""), "name"),
        (plan(name="x" * 256), "name"),
        (plan(price=Money(0, "EUR")), "price.amount"),
        (plan(price=Money(2**53, "EUR")), "price.amount"),
        (plan(price=Money(1, "eur")), "price.currency"),
        (plan(price=Money(1, "EURO")), "price.currency"),
        (plan(price=Money(1, "EUR\n")), "price.currency"),
        (plan(credits=0), "credits"),
        (plan(credits=-1), "credits"),
        (plan(credits=2**53), "credits"),
        (plan(rollover="capped"), "rollover_max"),
        (plan(rollover="all", rollover_max=1), "rollover_max"),
        (plan(rollover="capped", rollover_max=0), "rollover_max"),
        (plan(priority=-1), "priority"),
        (plan(priority=1001), "priority"),
        (plan(checkout_url="http://example.com"), "checkout_url"),
        (plan(checkout_url="https://"), "checkout_url"),
        (plan(checkout_url="javascript:alert(1)"), "checkout_url"),
        (plan(checkout_url="https://example.com/a b"), "checkout_url"),
        (plan(checkout_url="https://example.com/\n"), "checkout_url"),
        (plan(checkout_url="https://me@example.com/"), "checkout_url"),
        (plan(checkout_url="https://example.com/" + "x" * 2_000), "checkout_url"),
        (plan(trial_credits=1), "trial_days"),
        (plan(trial_days=1), "trial_days"),
        (plan(trial_credits=-1, trial_days=1), "trial_credits"),
        (plan(trial_credits=1, trial_days=731), "trial_days"),
        (plan(fallback=True, price=Money(1, "EUR")), "fallback"),
        (plan(fallback=True, retired=True), "fallback"),
        (plan("pro", "p", "p"), "providers.stripe"),
        (plan("pro", ""), "providers.stripe"),
        (plan("pro", "a b"), "providers.stripe"),
        (plan("pro", "x" * 256), "providers.stripe"),
        (plan(providers=ProviderIds(clerk=("é",))), "providers.clerk"),
        (plan("pro", *map(str, range(101))), "providers.stripe"),
        (pack("~"), "pack"),
        (pack(name=""), "name"),
        (pack(price=Money(-1, "EUR")), "price.amount"),
        (pack(credits=0), "credits"),
        (pack(bonus=-1), "bonus"),
        (pack(expires_days=0), "expires_days"),
        (pack(expires_days=36_501), "expires_days"),
        (pack(priority=1001), "priority"),
        (pack(providers=ProviderIds(asaas=("",))), "providers.asaas"),
        (reward(-1), "referrer"),
        (reward(1, 2**53), "referred"),
        (reward(expires_days=0), "expires_days"),
    ],
)
def test_an_offer_that_makes_no_sense_names_its_field(command: CatalogCommand, field: str) -> None:
    given().when(command).refused(InvalidCommand, field=field)
