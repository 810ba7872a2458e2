"""What things cost."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from ledger.domain.catalog import Catalog, evolve_catalog
from ledger.domain.catalog_events import FeatureSet
from ledger.domain.commands import (
    Capture,
    CaptureUpTo,
    CatalogCommand,
    Deduct,
    Reserve,
    SetFeature,
    SetRateCard,
    SetRefundPolicy,
)
from ledger.domain.entities import Charge, Metered, Overage, Price, Rates, Usage
from ledger.domain.errors import (
    CaptureExceedsReservation,
    InsufficientCredits,
    InvalidCommand,
    PriceNotFound,
)
from ledger.domain.events import CreditsDeducted, CreditsReserved, ReservationCaptured
from ledger.domain.pricing import cost_of, rate
from tests.domain.scenario import Step, given, grant, reserve

MILLION = 1_000_000


def image(unit_price: int | None) -> SetFeature:
    return SetFeature(feature="image", name="Images", unit="image", unit_price=unit_price)


def owing(overage: Overage) -> SetFeature:
    return SetFeature(feature="image", name="Images", overage=overage)


def chat(*rates: int, model: str = "large") -> SetRateCard:
    return SetRateCard(feature="chat", models={model: Rates(*rates)})


def images(quantity: int) -> Charge:
    return Charge(feature="image", quantity=quantity)


def tokens(*counts: int, **charge: Any) -> Charge:
    return Charge(**{"feature": "chat", "model": "large", **charge}, usage=Usage(*counts))


def test_a_quantity_costs_its_unit_price_and_the_event_shows_the_arithmetic() -> None:
    given(image(40), image(50), grant(999)).when(Deduct(charge=images(2_500_000))).then(
        CreditsDeducted,
        amount=125,
        price=Price(feature="image", version=2, amount=125, unit_price=50, quantity=2_500_000),
    )


def test_tokens_cost_their_rates_and_the_event_shows_the_arithmetic() -> None:
    rates = Rates(3, 15, 1)
    given(chat(3, 15, 1), grant(999)).when(Deduct(charge=tokens(MILLION, 2 * MILLION))).then(
        CreditsDeducted,
        amount=33,
        price=Price(
            feature="chat",
            version=1,
            amount=33,
            model="large",
            rates=rates,
            usage=Usage(MILLION, 2 * MILLION),
        ),
    )


def test_a_usage_is_rounded_up_once_after_it_is_summed() -> None:
    # 0.4 of each kind are 1.2 together: one rounding makes 2, three would make 3.
    assert cost_of(Rates(4, 4, 4), Usage(100_000, 100_000, 100_000)) == 2


@pytest.mark.parametrize(
    ("quantity", "amount"), [(0, 0), (1, 1), (333_333, 1), (333_334, 2), (1_000_000, 3)]
)
def test_a_fraction_of_a_micro_credit_is_charged_as_a_whole_one(quantity: int, amount: int) -> None:
    given(image(3), grant(99)).when(Deduct(charge=images(quantity))).then(
        CreditsDeducted, amount=amount
    )


@for_all(st.lists(st.integers(0, 10**12), min_size=6, max_size=6))
def test_rounding_adds_less_than_one_micro_credit(numbers: list[int]) -> None:
    rates, usage = Rates(*numbers[:3]), Usage(*numbers[3:])
    exact = sum(price * count for price, count in zip(numbers[:3], numbers[3:], strict=True))
    assert 0 <= cost_of(rates, usage) * MILLION - exact < MILLION


def test_a_minimum_is_charged_also_for_no_tokens() -> None:
    given(chat(1, 1, 1, 7), grant(99)).when(Deduct(charge=tokens(0))).then(
        CreditsDeducted, amount=7
    )


# -- a missing price is never 0 --------------------------------------------------------------------


@pytest.mark.parametrize(
    "charge",
    [
        images(MILLION),
        tokens(1),
        tokens(1, model="unknown"),
        Charge(feature="priceless", quantity=1),
    ],
)
def test_a_missing_price_is_an_error(charge: Charge) -> None:
    steps: list[Step] = [
        image(None),
        SetRateCard(feature="chat", models={"small": Rates(1, 1, 1)}),
        grant(9),
    ]
    given(*steps).when(Deduct(charge=charge)).refused(PriceNotFound)


def test_an_explicit_price_of_0_is_allowed_at_a_balance_of_0() -> None:
    given(image(0)).when(Reserve(id="r", charge=images(MILLION))).then(
        CreditsReserved, amount=0
    ).when(Capture(reservation="r", charge=images(MILLION))).then(
        ReservationCaptured, amount=0, status="captured"
    )


def test_a_price_that_is_taken_away_is_missing() -> None:
    given(image(5), image(None), grant(9)).when(Deduct(charge=images(1))).refused(PriceNotFound)


# -- versions --------------------------------------------------------------------------------------


def test_a_capture_is_charged_at_the_price_its_reservation_was_made_at() -> None:
    given(image(5), grant(99), Reserve(id="r", charge=images(2 * MILLION)), image(7)).when(
        Capture(reservation="r", charge=Charge(quantity=MILLION))
    ).then(
        ReservationCaptured,
        amount=5,
        price=Price(feature="image", version=1, amount=5, unit_price=5, quantity=MILLION),
    )


def test_a_token_capture_is_charged_at_the_rates_its_reservation_was_made_at() -> None:
    reserved = Reserve(id="r", charge=tokens(MILLION))
    given(chat(5, 5, 5), grant(99), reserved, chat(7, 7, 7)).when(
        Capture(reservation="r", charge=Charge(usage=Usage(MILLION)))
    ).then(ReservationCaptured, amount=5, feature="chat")


def test_a_capture_of_another_kind_is_charged_at_todays_price() -> None:
    given(image(5), chat(2, 2, 2), grant(99), Reserve(id="r", charge=images(MILLION))).when(
        Capture(reservation="r", charge=tokens(MILLION))
    ).then(ReservationCaptured, amount=2, feature="chat")


def test_totals_count_what_each_capture_adds() -> None:
    def up_to(count: int, *, final: bool = False) -> CaptureUpTo:
        return CaptureUpTo(operation="r", charge=tokens(count), final=final)

    given(chat(2, 2, 2), grant(99), up_to(MILLION)).when(up_to(3 * MILLION, final=True)).then(
        ReservationCaptured,
        amount=4,
        captured=6,
        metered=Metered(0, Usage(2 * MILLION)),
    )


def test_free_work_is_recorded_when_it_ends() -> None:
    given(chat(0, 0, 0)).when(CaptureUpTo(operation="r", charge=tokens(9), final=True)).then(
        ReservationCaptured, amount=0, feature="chat", status="captured"
    )


def test_every_version_stays_readable() -> None:
    catalog = Catalog()
    for version, price in enumerate((5, None, 0), 1):
        evolve_catalog(
            catalog, FeatureSet(feature="image", version=version, name="x", unit_price=price)
        )
    assert [one.unit_price for one in catalog.features["image"]] == [5, None, 0]
    assert catalog.version == 3


# -- what makes no sense ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("charge", "field"),
    [
        (Charge(), "amount"),
        (Charge(amount=1, quantity=1), "amount"),
        (Charge(quantity=1), "feature"),
        (Charge(feature="chat", usage=Usage(1)), "model"),
        (Charge(amount=-1), "amount"),
        (Charge(amount=2**53), "amount"),
        (images(-1), "quantity"),
        (tokens(-1), "usage.input_tokens"),
        (tokens(0, 10**12 + 1), "usage.output_tokens"),
        (tokens(0, 0, -1), "usage.cached_input_tokens"),
        (images(2**53 - 1), "quantity"),
        (tokens(10**12), "usage"),
    ],
)
def test_a_charge_that_makes_no_sense_names_its_field(charge: Charge, field: str) -> None:
    scenario = given(image(10**12), chat(10**12, 1, 1), grant(99))
    scenario.when(Deduct(charge=charge)).refused(InvalidCommand, field=field)
    scenario.when(Reserve(charge=charge)).refused(InvalidCommand, field=field)


def test_a_capture_needs_no_feature_where_its_reservation_has_one() -> None:
    given(image(5), grant(99), reserve(50, feature="image")).when(
        Capture(reservation="r", charge=Charge(quantity=MILLION))
    ).then(ReservationCaptured, amount=5, feature="image")


@pytest.mark.parametrize(
    ("command", "field"),
    [
        (image(-1), "unit_price"),
        (chat(1, -1, 1), "models.large.output_per_million"),
        (chat(1, 1, 1, 2**53), "models.large.minimum"),
        (SetRateCard(feature="chat", models={}), "models"),
        (SetRefundPolicy(regrant_days=0), "regrant_days"),
        (SetRefundPolicy(regrant_days=36_501), "regrant_days"),
    ],
)
def test_a_catalog_entry_that_makes_no_sense_names_its_field(
    command: CatalogCommand, field: str
) -> None:
    given().when(command).refused(InvalidCommand, field=field)


def test_pricing_alone_tells_how_an_amount_comes_about() -> None:
    assert rate(Charge(amount=7), Catalog()) == (7, None)


# -- what becomes of too much ----------------------------------------------------------------------


def test_what_is_too_much_becomes_what_the_feature_says_unless_the_command_does() -> None:
    reserved = reserve(5, feature="image")
    beyond = Capture(reservation="r", charge=Charge(amount=12))
    given(owing("debt"), grant(10), reserved).when(beyond).then(ReservationCaptured, debt=2)
    given(owing("draw"), grant(20), reserved).when(beyond).then(
        ReservationCaptured, extra=[("g", 7)], debt=0
    )
    for asked, default in (("reject", "debt"), (None, "reject")):
        command = Capture(reservation="r", charge=Charge(amount=12), overage=asked)
        given(owing(default), grant(20), reserved).when(command).refused(CaptureExceedsReservation)
    given(grant(20), reserved).when(beyond).refused(CaptureExceedsReservation)


def test_it_is_the_newest_version_of_that_feature_which_says_it() -> None:
    spend = Deduct(charge=Charge(feature="image", amount=12))
    given(owing("debt"), grant(10)).when(spend).then(CreditsDeducted, debt=2)
    given(owing("debt"), owing("reject"), grant(10)).when(spend).refused(InsufficientCredits)
    other = Deduct(charge=Charge(feature="text", amount=12))
    given(owing("debt"), grant(10)).when(other).refused(InsufficientCredits)
    none = Deduct(charge=Charge(amount=12))
    given(owing("debt"), grant(10)).when(none).refused(InsufficientCredits)


def test_a_command_that_does_not_say_it_is_the_same_as_before_it_could_be_put() -> None:
    asked = Capture(reservation="r", charge=Charge(amount=1))
    assert (
        msgspec.json.encode(asked) == b'{"type":"Capture","reservation":"r","charge":{"amount":1}}'
    )
    stored = FeatureSet(feature="image", version=1, name="Image")
    assert msgspec.json.encode(stored) == b'{"feature":"image","version":1,"name":"Image"}'
