"""Alerts: what a person has to put right. They stand in the tenant's stream and change nothing."""

from __future__ import annotations

import msgspec
import pytest

from ledger.domain.commands import (
    Deduct,
    RaiseAlert,
    SetFeature,
    SetPack,
    SetPlan,
    SetRateCard,
    SetReferralReward,
    SetRefundPolicy,
)
from ledger.domain.entities import Charge, Rates
from ledger.domain.errors import InvalidCommand
from ledger.domain.events import CreditsDeducted
from ledger.domain.offers import Pack, Plan
from ledger.domain.tenant_events import AlertRaised
from ledger.domain.values import MICRO
from tests.domain.scenario import Step, given, grant

UNKNOWN = RaiseAlert(code="unknown_price", subject="stripe:session:cs_1", price="price_9")
CATALOG: list[Step] = [
    SetFeature(feature="image", name="Images", unit_price=3),
    SetRateCard(feature="chat", models={"large": Rates(1, 2, 1)}),
    SetRefundPolicy(regrant_days=30),
    SetPlan(plan="pro", terms=Plan(name="Pro", credits=9)),
    SetPack(pack="ten", terms=Pack(name="Ten", credits=10)),
    SetReferralReward(referrer=5, referred=5),
]


def test_an_alert_says_what_it_was_told() -> None:
    given().when(UNKNOWN).then(
        AlertRaised, code="unknown_price", subject="stripe:session:cs_1", price="price_9", detail=""
    )
    in_words = msgspec.structs.replace(UNKNOWN, price="", detail="Nobody sells this.")
    given().when(in_words).then(AlertRaised, price="", detail="Nobody sells this.")


def test_an_alert_changes_nothing_but_the_place_of_what_comes_next() -> None:
    quiet, alerted = given(*CATALOG), given(*CATALOG, UNKNOWN)
    assert alerted.catalog.version == quiet.catalog.version + 1
    alerted.catalog.version -= 1
    assert alerted.catalog == quiet.catalog
    assert alerted.account.snapshot() == quiet.account.snapshot()


def test_versions_of_entries_do_not_count_alerts() -> None:
    scenario = given(*CATALOG, UNKNOWN, SetFeature(feature="image", name="Images", unit_price=4))
    assert [version.version for version in scenario.catalog.features["image"]] == [1, 2]
    scenario.do(grant(9))
    charge = Charge(feature="image", quantity=MICRO)
    scenario.when(Deduct(charge=charge)).then(CreditsDeducted, amount=4)


def test_what_a_later_version_finds_can_be_raised_too() -> None:
    given().when(RaiseAlert(code="sold_out", subject="a")).then(AlertRaised, code="sold_out")


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("code", ""),
        ("code", "two words"),
        ("code", "x" * 129),
        ("subject", ""),
        ("subject", "x" * 256),
        ("subject", "stripe:\0"),
        ("price", "x" * 256),
        ("price", "\ud800"),
        ("detail", "x" * 256),
        ("detail", "half of a \udc00"),
    ],
)
def test_an_alert_that_could_not_be_stored_names_its_field(field: str, text: str) -> None:
    command = msgspec.structs.replace(UNKNOWN, **{field: text})
    given().when(command).refused(InvalidCommand, field=field)


@pytest.mark.parametrize("text", ["x" * 255, "asaas:payment:a&b", "Preço não é o do catálogo\n"])
def test_texts_of_providers_are_taken_as_they_are(text: str) -> None:
    command = RaiseAlert(code="unknown_price", subject=text, price=text, detail=text)
    given().when(command).then(AlertRaised, subject=text, price=text, detail=text)
