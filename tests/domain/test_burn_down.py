"""Which grants pay first: one criterion at a time, all else being equal."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from ledger.domain.commands import Adjust
from ledger.domain.events import BalanceAdjusted, CreditsDeducted, CreditsReserved
from tests.domain.scenario import at, deduct, given, grant, release, reserve

CRITERIA: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the lower priority number": ({"priority": 1}, {"priority": 2}),
    "a scope before none": ({"scope": ("image",)}, {}),
    "the narrower scope": ({"scope": ("image",)}, {"scope": ("image", "text")}),
    "the earlier expiry": ({"expires_at": at(100)}, {"expires_at": at(200)}),
    "an expiry before none": ({"expires_at": at(100)}, {}),
    "promotional before paid": ({"kind": "promotional"}, {"kind": "paid"}),
    "the lower cost": ({"cost_basis": 1}, {"cost_basis": 2}),
    "no cost before some": ({}, {"cost_basis": 1}),
    "the earlier effect": ({"effective_at": at(-20)}, {"effective_at": at(-10)}),
}


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("older", ["first", "second"])
def test_the_criterion_decides_whatever_was_granted_first(criterion: str, older: str) -> None:
    first, second = CRITERIA[criterion]
    grants = [grant(10, "first", **first), grant(10, "second", **second)]
    given(*(grants if older == "first" else reversed(grants))).when(
        deduct(15, feature="image")
    ).then(CreditsDeducted, draws=[("first", 10), ("second", 5)])


def test_of_grants_alike_in_everything_the_older_pays_first() -> None:
    given(grant(10, "z"), grant(10, "a")).when(deduct(15)).then(
        CreditsDeducted, draws=[("z", 10), ("a", 5)]
    )


def test_the_order_of_the_criteria_is_priority_scope_expiry_kind_cost_effect_age() -> None:
    worst: dict[str, Any] = {
        "priority": 2,
        "scope": (),
        "expires_at": None,
        "kind": "paid",
        "cost_basis": 2,
        "effective_at": at(-1),
    }
    best: dict[str, Any] = {
        "priority": 1,
        "scope": ("image",),
        "expires_at": at(500),
        "kind": "promotional",
        "cost_basis": 1,
        "effective_at": at(-9),
    }
    # Each grant is better than the next in one criterion, and worse in all that come after it.
    criteria = list(best)
    grants = [
        grant(
            1,
            criterion,
            **{name: worst[name] for name in criteria[:place]},
            **{criterion: best[criterion]},
            **{name: worst[name] for name in criteria[place + 1 :]},
        )
        for place, criterion in enumerate(criteria)
    ]
    given(*reversed(grants)).when(deduct(6, feature="image")).then(
        CreditsDeducted, draws=[(criterion, 1) for criterion in criteria]
    )


@pytest.mark.parametrize("order", list(permutations(("a", "b", "c"))))
def test_the_order_of_arrival_does_not_matter_where_a_criterion_decides(order: list[str]) -> None:
    terms: dict[str, Any] = {"a": {"priority": 1}, "b": {"expires_at": at(50)}, "c": {}}
    given(*(grant(1, name, **terms[name]) for name in order)).when(reserve(3)).then(
        CreditsReserved, draws=[("a", 1), ("b", 1), ("c", 1)]
    )


def test_a_scoped_grant_pays_for_its_features_only() -> None:
    given(grant(10, "i", scope=("image",)), grant(10, "any")).when(
        deduct(15, feature="text", overage="debt")
    ).then(CreditsDeducted, draws=[("any", 10)], debt=5).leaves(available=10)


def test_a_scoped_grant_does_not_pay_for_what_names_no_feature() -> None:
    given(grant(10, "i", scope=("image",)), grant(1, "any")).when(deduct(1)).then(
        CreditsDeducted, draws=[("any", 1)]
    )


def test_a_correction_downwards_takes_from_any_scope_in_the_same_order() -> None:
    given(grant(5, "any"), grant(5, "i", scope=("image",))).when(Adjust(amount=-7)).then(
        BalanceAdjusted, draws=[("i", 5), ("any", 2)]
    ).leaves(available=3, revoked=7)


def test_an_emptied_grant_is_passed_over_until_credits_come_back_to_it() -> None:
    scenario = given(grant(5, "a", priority=1), grant(5, "b"), reserve(5, "r"))
    scenario.when(deduct(1, "d1")).then(CreditsDeducted, draws=[("b", 1)])
    scenario.do(release("r"))
    scenario.when(deduct(1, "d2")).then(CreditsDeducted, draws=[("a", 1)])
