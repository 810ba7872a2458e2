"""Debt, clawbacks, overdrafts and corrections."""

from __future__ import annotations

import pytest

from ledger.domain.commands import Adjust, GrantCredits, PutAccount, RevokeGrant
from ledger.domain.errors import (
    GrantClosed,
    GrantNotFound,
    InsufficientCredits,
    InvalidCommand,
    LimitReached,
)
from ledger.domain.events import (
    BalanceAdjusted,
    CreditsDeducted,
    CreditsGranted,
    CreditsReserved,
    GrantRevoked,
    ReservationCaptured,
    ReservationReleased,
)
from ledger.domain.values import CREDITS_MAX, TOTAL_MAX
from tests.domain.scenario import (
    at,
    capture,
    deduct,
    extend,
    given,
    grant,
    overdraft,
    refund,
    release,
    reserve,
)

CLAWBACK = RevokeGrant(grant="g", clawback=True)
REVOKE = RevokeGrant(grant="g")


def test_later_grants_repay_the_debt_first() -> None:
    given(deduct(30, overage="debt")).when(grant(20)).then(CreditsGranted, debt_repaid=20).leaves(
        debt=10, available=0, consumed=20
    ).when(grant(20, "g2")).then(CreditsGranted, debt_repaid=10).leaves(debt=0, available=10)


def test_a_pending_grant_repays_the_debt_when_it_becomes_effective() -> None:
    given(deduct(30, overage="debt"), grant(50, effective_at=at(60))).when(59).leaves(
        debt=30, pending=50, available=0
    ).when(1).leaves(debt=0, pending=0, available=20, consumed=30)


def test_a_scoped_grant_repays_debt_of_any_feature() -> None:
    given(deduct(30, feature="text", overage="debt")).when(grant(50, scope=("image",))).leaves(
        debt=0, available=20
    )


# -- clawback --------------------------------------------------------------------------------------


def test_a_revoked_grant_keeps_what_was_spent() -> None:
    given(grant(10), deduct(4)).when(REVOKE).then(GrantRevoked, amount=6, debt=0).leaves(
        revoked=6, consumed=4, debt=0
    )


def test_a_clawback_makes_debt_of_what_was_spent() -> None:
    given(grant(10), deduct(4)).when(CLAWBACK).then(GrantRevoked, amount=6, debt=4).leaves(
        revoked=6, consumed=4, debt=4
    )


def test_a_clawed_back_slice_that_is_set_aside_becomes_debt_once_it_is_spent() -> None:
    given(grant(10), reserve(6), CLAWBACK).when(capture(4)).then(
        ReservationCaptured, draws=[("g", 4)], clawed_back=4, returns=[("g", 2, "revoked")]
    ).leaves(debt=4, available=0, revoked=6)


def test_a_clawed_back_slice_that_is_released_is_not_owed() -> None:
    given(grant(10), reserve(6), CLAWBACK).when(release()).then(
        ReservationReleased, returns=[("g", 6, "revoked")]
    ).leaves(debt=0, revoked=10)


def test_a_clawback_brings_back_the_debt_that_the_grant_had_repaid() -> None:
    given(deduct(6, overage="debt"), grant(10)).when(CLAWBACK).leaves(debt=6, revoked=4)


def test_a_clawback_of_an_expired_grant_makes_debt_of_what_was_spent() -> None:
    given(grant(10, expires_at=at(60)), deduct(4), 60).when(CLAWBACK).then(
        GrantRevoked, amount=0, debt=4
    ).leaves(debt=4, expired=6)


def test_a_grant_that_was_only_revoked_can_still_be_clawed_back() -> None:
    given(grant(10), deduct(4), REVOKE).when(CLAWBACK).then(GrantRevoked, amount=0, debt=4)


def test_a_clawback_of_a_pending_grant_takes_all_of_it() -> None:
    given(grant(10, effective_at=at(60))).when(CLAWBACK).then(
        GrantRevoked, amount=10, pending=True, debt=0
    ).when(60).leaves(revoked=10, available=0, pending=0)


def test_a_clawback_after_a_refund_does_not_make_debt_of_what_was_refunded() -> None:
    given(grant(10), deduct(6), refund(amount=2)).when(CLAWBACK).leaves(debt=4, revoked=6)


@pytest.mark.parametrize("again", [REVOKE, CLAWBACK])
def test_a_grant_is_clawed_back_once(again: RevokeGrant) -> None:
    given(grant(10), CLAWBACK).when(again).refused(GrantClosed, grant_status="revoked")


def test_an_expired_grant_has_nothing_to_revoke() -> None:
    given(grant(10, expires_at=at(60)), 60).when(REVOKE).refused(
        GrantClosed, grant_status="expired"
    )


def test_only_a_grant_that_exists_is_revoked() -> None:
    given().when(REVOKE).refused(GrantNotFound, grant="g")


# -- overdraft -------------------------------------------------------------------------------------


def test_without_an_overdraft_nothing_is_spent_beyond_the_grants() -> None:
    given(grant(5)).when(deduct(6)).refused(InsufficientCredits, available=5)


def test_a_deduction_goes_into_the_overdraft_as_debt() -> None:
    given(overdraft(10), grant(5)).when(deduct(12)).then(CreditsDeducted, debt=7).leaves(debt=7)


def test_the_overdraft_is_a_limit() -> None:
    given(overdraft(10), grant(5)).when(deduct(16)).refused(
        InsufficientCredits, required=16, available=15, shortfall=1
    )


def test_a_reservation_sets_the_overdraft_aside_and_a_capture_owes_it() -> None:
    given(overdraft(10), grant(5)).when(reserve(12)).then(CreditsReserved, overdraft=7).leaves(
        reserved=5, overdraft_reserved=7, debt=0
    ).when(capture(8)).then(ReservationCaptured, overdraft=3, overdraft_returned=4).leaves(
        debt=3, overdraft_reserved=0
    )


def test_an_overdraft_that_is_set_aside_is_not_there_twice() -> None:
    given(overdraft(10), reserve(7)).when(reserve(4, "r2")).refused(
        InsufficientCredits, available=3
    )


def test_an_extension_may_use_the_overdraft() -> None:
    given(overdraft(10), grant(5), reserve(5)).when(extend(amount=4)).leaves(overdraft_reserved=4)


def test_an_expired_reservation_gives_the_overdraft_back() -> None:
    given(overdraft(10), reserve(7, ttl_seconds=60)).when(60).leaves(overdraft_reserved=0)


def test_a_lower_overdraft_limit_takes_nothing_back_but_allows_nothing_more() -> None:
    given(overdraft(10), deduct(8)).when(PutAccount(overdraft_limit=5)).leaves(debt=8).when(
        deduct(1, "d2")
    ).refused(InsufficientCredits, available=0)


# -- adjustments -----------------------------------------------------------------------------------


def test_an_adjustment_upwards_is_a_grant_and_repays_the_debt() -> None:
    given(deduct(3, overage="debt")).when(Adjust(amount=10)).then(
        BalanceAdjusted, amount=10, draws=[]
    ).leaves(debt=0, available=7, granted=10)


def test_an_adjustment_downwards_revokes_in_burn_down_order() -> None:
    given(grant(5), grant(5, "promo", kind="promotional")).when(Adjust(amount=-6)).then(
        BalanceAdjusted, draws=[("promo", 5), ("g", 1)], debt=0
    ).leaves(available=4, revoked=6)


@pytest.mark.parametrize("overage", ["reject", "draw"])
def test_an_adjustment_below_what_is_available_is_refused(overage: str) -> None:
    given(grant(5)).when(Adjust(amount=-6, overage=overage)).refused(  # type: ignore[arg-type]
        InsufficientCredits, required=6, shortfall=1
    )


def test_an_adjustment_below_what_is_available_can_be_owed() -> None:
    given(grant(5)).when(Adjust(amount=-6, overage="debt")).leaves(debt=1, revoked=5)


@pytest.mark.parametrize(
    ("adjustment", "field"),
    [
        (Adjust(amount=0), "amount"),
        (Adjust(amount=2**53), "amount"),
        (Adjust(amount=-1, expires_at=at(60)), "expires_at"),
        (Adjust(amount=1, expires_at=at(0)), "expires_at"),
    ],
)
def test_an_adjustment_that_makes_no_sense_is_refused(adjustment: Adjust, field: str) -> None:
    given(grant(5)).when(adjustment).refused(InvalidCommand, field=field)


# -- grants ----------------------------------------------------------------------------------------


def test_a_grant_is_effective_from_its_time_on_and_expired_at_its_end() -> None:
    result = given().when(grant(10, effective_at=at(60), expires_at=at(120)))
    result.then(CreditsGranted, pending=True)
    for seconds, available, expired in ((59, 0, 0), (1, 10, 0), (59, 10, 0), (1, 0, 10)):
        result.when(seconds).leaves(available=available, expired=expired)


def test_a_whole_life_that_passed_unobserved_is_settled_at_once() -> None:
    given(grant(10, effective_at=at(60), expires_at=at(120)), deduct(4, overage="debt")).when(
        999
    ).leaves(debt=0, consumed=4, expired=6, pending=0)


@pytest.mark.parametrize(
    "times",
    [
        {"expires_at": at(0)},
        {"expires_at": at(-1)},
        {"effective_at": at(60), "expires_at": at(60)},
        {"effective_at": at(-60), "expires_at": at(-30)},
    ],
)
def test_a_grant_ends_after_it_begins_and_in_the_future(times: dict[str, object]) -> None:
    given().when(GrantCredits(amount=1, kind="paid", **times)).refused(  # type: ignore[arg-type]
        InvalidCommand, field="expires_at"
    )


def test_a_debt_stays_within_what_sums_can_hold() -> None:
    largest = [
        deduct(CREDITS_MAX, f"d{number}", overage="debt")
        for number in range(TOTAL_MAX // CREDITS_MAX + 1)
    ]
    given(*largest[:-1]).when(largest[-1]).refused(LimitReached, limit="debt")
