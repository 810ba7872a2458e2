"""Giving spent credits back."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ledger.domain.commands import RevokeGrant, SetRefundPolicy
from ledger.domain.errors import DeductionNotFound, InvalidCommand, RefundExceedsDeduction
from ledger.domain.events import CreditsRefunded, Regrant
from tests.domain.scenario import (
    Result,
    at,
    capture,
    deduct,
    given,
    grant,
    refund,
    release,
    reserve,
)

DAY = 86_400


def regrants(result: Result) -> list[Regrant]:
    """Return the new grants that a refund has made."""
    assert isinstance(result.event, CreditsRefunded)
    return list(result.event.regrants)


def test_a_refund_without_an_amount_gives_everything_back() -> None:
    given(grant(10), deduct(7)).when(refund()).then(
        CreditsRefunded, amount=7, returns=[("g", 7, "available")], refunded=7
    ).leaves(available=10, consumed=0)


def test_what_was_drawn_last_comes_back_first() -> None:
    scenario = given(grant(5, "a", priority=1), grant(5, "b", priority=2), deduct(8))
    scenario.when(refund(amount=4)).then(
        CreditsRefunded, returns=[("b", 3, "available"), ("a", 1, "available")]
    )
    scenario.when(refund()).then(CreditsRefunded, returns=[("a", 4, "available")], refunded=8)


def test_what_became_debt_comes_back_before_any_grant() -> None:
    given(grant(5), deduct(8, overage="debt")).when(refund(amount=4)).then(
        CreditsRefunded, debt_cancelled=3, returns=[("g", 1, "available")]
    ).leaves(available=1, debt=0)


def test_each_partial_capture_is_refunded_by_itself() -> None:
    scenario = given(grant(10), reserve(10), capture(3, final=False), capture(4))
    scenario.when(refund("r~1")).then(CreditsRefunded, amount=3)
    scenario.when(refund("r~2", 5)).refused(RefundExceedsDeduction, asked=5, refundable=4)


def test_refunds_never_exceed_their_deduction() -> None:
    scenario = given(grant(10), deduct(7), refund(amount=3), refund(amount=3))
    scenario.when(refund(amount=2)).refused(RefundExceedsDeduction, asked=2, refundable=1)
    scenario.when(refund()).then(CreditsRefunded, amount=1)
    scenario.when(refund()).refused(RefundExceedsDeduction, refundable=0)


@pytest.mark.parametrize("amount", [0, -1])
def test_a_refund_of_nothing_is_refused(amount: int) -> None:
    given(grant(10), deduct(7)).when(refund(amount=amount)).refused(InvalidCommand, field="amount")


@pytest.mark.parametrize("name", ["r", "missing", "r~2", "missing~1"])
def test_only_what_was_spent_is_refunded(name: str) -> None:
    given(grant(10), reserve(5), capture(3)).when(refund(name)).refused(DeductionNotFound)


def test_a_slice_of_an_expired_grant_lapses_unless_the_tenant_says_otherwise() -> None:
    given(grant(10, expires_at=at(60)), deduct(7), 60).when(refund()).then(
        CreditsRefunded, returns=[("g", 7, "expired")], regrants=[]
    ).leaves(available=0, expired=10)


def test_a_slice_of_an_expired_grant_can_be_granted_again_on_the_same_terms() -> None:
    promotion = grant(
        10,
        kind="promotional",
        priority=7,
        scope=("image",),
        cost_basis=3,
        expires_at=at(60),
    )
    steps = (SetRefundPolicy(regrant_days=2), promotion, deduct(7, feature="image"), 60)
    result = given(*steps).when(refund())
    result.then(CreditsRefunded, returns=[("g", 7, "expired")]).leaves(available=7, granted=17)
    (new,) = regrants(result)
    assert (new.kind, new.priority, new.scope, new.cost_basis) == ("promotional", 7, ("image",), 3)
    assert (new.instead_of, new.expires_at) == ("g", at(60) + timedelta(days=2))
    result.when(2 * DAY).leaves(available=0, expired=17)


def test_each_expired_grant_is_granted_again_by_itself() -> None:
    terms = {"expires_at": at(60)}
    scenario = given(
        SetRefundPolicy(regrant_days=1),
        grant(5, "a", scope=("image",), **terms),
        grant(5, "b", **terms),
        deduct(10, feature="image"),
        60,
    )
    new = regrants(scenario.when(refund()))
    assert [(one.instead_of, one.amount, one.scope) for one in new] == [
        ("b", 5, ()),
        ("a", 5, ("image",)),
    ]


def test_what_is_granted_again_repays_the_debt_first() -> None:
    steps = (SetRefundPolicy(regrant_days=1), grant(10, expires_at=at(60)), deduct(10), 60)
    given(*steps, deduct(4, "d2", overage="debt")).when(refund()).leaves(debt=0, available=6)


def test_a_slice_of_a_grant_that_is_still_there_goes_back_even_after_a_release() -> None:
    given(grant(10), reserve(10), capture(4, final=False), release()).when(refund("r~1")).leaves(
        available=10
    )


def test_debt_that_a_later_grant_has_repaid_comes_back_as_a_grant() -> None:
    result = given(deduct(5, overage="debt"), grant(8)).when(refund())
    result.then(CreditsRefunded, debt_cancelled=0, debt_regranted=5).leaves(available=8)
    (new,) = regrants(result)
    assert (new.kind, new.expires_at, new.instead_of) == ("paid", None, None)


def test_a_refund_into_a_clawed_back_grant_cancels_the_debt_it_made() -> None:
    given(grant(10), deduct(6), RevokeGrant(grant="g", clawback=True)).when(refund()).then(
        CreditsRefunded, returns=[("g", 6, "revoked")], clawback_cancelled=6
    ).leaves(debt=0, revoked=10)


def test_a_refund_of_a_clawed_back_slice_whose_debt_was_repaid_comes_back_as_a_grant() -> None:
    clawback = RevokeGrant(grant="g", clawback=True)
    given(grant(10), deduct(6), clawback, grant(9, "g2")).when(refund()).then(
        CreditsRefunded, clawback_cancelled=0
    ).leaves(debt=0, available=9)


def test_a_refund_into_a_revoked_grant_stays_revoked() -> None:
    given(grant(10), deduct(6), RevokeGrant(grant="g")).when(refund()).then(
        CreditsRefunded, returns=[("g", 6, "revoked")], clawback_cancelled=0
    ).leaves(available=0, debt=0)
