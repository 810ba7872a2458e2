"""What a call costs at the provider, and credits that are a markup on that."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from ledger.domain.commands import CaptureUpTo, Deduct, SetRateCard
from ledger.domain.costs import checked_rates, credits_on_cost, provider_cost
from ledger.domain.entities import Charge, CostPlus, Price, ProviderRates, Rates, Usage
from ledger.domain.errors import InvalidCommand
from ledger.domain.events import CreditsDeducted, RateCardSet, ReservationCaptured
from tests.domain.scenario import given, grant

DOLLARS = ProviderRates(2_500_000, 10_000_000, 1_250_000)
"""USD 2.50, 10 and 1.25."""
TERMS = CostPlus(factor=1_300_000, credits_per_usd=100_000_000)
"""30 percent, and 100 credits for a dollar."""
CARD = SetRateCard(
    feature="chat", models={"large": Rates(0, 0, 0, provider=DOLLARS, cost_plus=TERMS)}
)
READ = Rates(325_000_000, 1_300_000_000, 162_500_000, provider=DOLLARS, cost_plus=TERMS)
COUNT = st.integers(0, 10**9)


def tokens(*counts: int) -> Charge:
    return Charge(feature="chat", model="large", usage=Usage(*counts))


def test_the_card_shows_the_credits_that_the_markup_makes() -> None:
    given().when(CARD).then(RateCardSet, models={"large": READ})


def test_a_call_costs_the_providers_price_with_the_markup_and_the_event_shows_both() -> None:
    given(CARD, grant(10**9)).when(Deduct(charge=tokens(1_000, 100, 10))).then(
        CreditsDeducted,
        amount=456_625,
        price=Price(
            feature="chat",
            version=1,
            model="large",
            rates=READ,
            usage=Usage(1_000, 100, 10),
            provider_cost=3_513,  # 3 512.5, rounded up; the credits are of the exact cost.
            amount=456_625,
        ),
    )


def test_a_minimum_is_charged_on_a_markup_too() -> None:
    rates = Rates(0, 0, 0, 7, provider=DOLLARS, cost_plus=TERMS)
    card = SetRateCard(feature="chat", models={"large": rates})
    given(card, grant(99)).when(Deduct(charge=tokens(0))).then(CreditsDeducted, amount=7)


def test_the_cost_is_kept_beside_ordinary_rates_and_does_not_change_them() -> None:
    rates = Rates(3, 15, 1, provider=DOLLARS)
    card = SetRateCard(feature="chat", models={"large": rates})
    given(card, grant(99)).when(Deduct(charge=tokens(1_000_000))).then(
        CreditsDeducted,
        amount=3,
        price=Price(
            feature="chat",
            version=1,
            model="large",
            rates=rates,
            usage=Usage(1_000_000),
            provider_cost=2_500_000,
            amount=3,
        ),
    )


def test_a_later_card_does_not_change_what_was_reserved_at_an_earlier() -> None:
    dearer = SetRateCard(
        feature="chat",
        models={"large": Rates(0, 0, 0, provider=ProviderRates(9_000_000, 9, 9), cost_plus=TERMS)},
    )
    opened = CaptureUpTo(operation="r", charge=tokens(1_000))
    given(CARD, grant(10**9), opened, dearer).when(
        CaptureUpTo(operation="r", charge=tokens(3_000))
    ).then(ReservationCaptured, amount=650_000, captured=975_000)


@for_all(
    st.tuples(COUNT, COUNT, COUNT),
    st.tuples(COUNT, COUNT, COUNT),
    st.integers(1, 10**8),
    st.integers(1, 10**10),
)
def test_both_are_exact_but_for_one_rounding_up(
    prices: tuple[int, int, int], counts: tuple[int, int, int], factor: int, credits_per_usd: int
) -> None:
    rates, usage = ProviderRates(*prices), Usage(*counts)
    exact = Fraction(sum(a * b for a, b in zip(prices, counts, strict=True)), 10**6)
    assert provider_cost(rates, usage) == ceil(exact)
    dollars = exact / 10**6
    credited = dollars * Fraction(factor, 10**6) * Fraction(credits_per_usd, 10**6)
    terms = CostPlus(factor=factor, credits_per_usd=credits_per_usd)
    assert credits_on_cost(rates, terms, usage) == ceil(credited * 10**6)


@pytest.mark.parametrize(
    ("rates", "field"),
    [
        (Rates(1, 1, 1, cost_plus=TERMS), "models.large.cost_plus"),
        (
            Rates(0, 0, 0, provider=ProviderRates(1, -1, 1), cost_plus=TERMS),
            "models.large.provider.output_per_million",
        ),
        (
            Rates(0, 0, 0, provider=ProviderRates(2**53, 1, 1)),
            "models.large.provider.input_per_million",
        ),
        (
            Rates(0, 0, 0, provider=DOLLARS, cost_plus=CostPlus(factor=0, credits_per_usd=1)),
            "models.large.cost_plus.factor",
        ),
        (
            Rates(0, 0, 0, provider=DOLLARS, cost_plus=CostPlus(factor=1, credits_per_usd=-1)),
            "models.large.cost_plus.credits_per_usd",
        ),
        (
            Rates(
                0, 0, 0, provider=DOLLARS, cost_plus=CostPlus(factor=2**52, credits_per_usd=2**52)
            ),
            "models.large.cost_plus",
        ),
        (Rates(0, 0, 0, -1, provider=DOLLARS, cost_plus=TERMS), "models.large.minimum"),
    ],
)
def test_a_markup_that_makes_no_sense_names_its_field(rates: Rates, field: str) -> None:
    card = SetRateCard(feature="chat", models={"large": rates})
    given().when(card).refused(InvalidCommand, field=field)


def test_rates_without_a_markup_are_kept_as_they_are() -> None:
    assert checked_rates("large", Rates(1, 2, 3, 4)) == Rates(1, 2, 3, 4)
