"""Setting credits aside, spending them, and giving back the rest."""

from __future__ import annotations

import pytest

from ledger.domain.commands import Capture, CaptureUpTo, Reserve
from ledger.domain.entities import Charge, Overage
from ledger.domain.errors import (
    CaptureExceedsReservation,
    InsufficientCredits,
    InvalidCommand,
    ReservationClosed,
    ReservationExpiredAlready,
)
from ledger.domain.events import (
    CreditsReserved,
    ReservationCaptured,
    ReservationExtended,
    ReservationReleased,
)
from tests.domain.scenario import at, capture, deduct, extend, given, grant, release, reserve


def test_a_reservation_beyond_what_is_available_is_refused() -> None:
    given(grant(100), reserve(80)).when(reserve(21, "r2")).refused(
        InsufficientCredits, required=21, available=20, shortfall=1
    )


def test_at_least_takes_what_there_is() -> None:
    given(grant(10)).when(reserve(30, at_least=10)).then(CreditsReserved, amount=10)


def test_at_least_is_the_least() -> None:
    given(grant(10)).when(reserve(30, at_least=11)).refused(InsufficientCredits, available=10)


def test_at_least_does_not_lower_what_can_be_had() -> None:
    given(grant(50)).when(reserve(30, at_least=1)).then(CreditsReserved, amount=30)


def test_a_final_capture_gives_the_rest_back() -> None:
    given(grant(10), reserve(10)).when(capture(4)).then(
        ReservationCaptured,
        draws=[("g", 4)],
        returns=[("g", 6, "available")],
        status="captured",
    ).leaves(available=6, reserved=0, consumed=4)


def test_partial_captures_add_up_and_the_last_closes() -> None:
    scenario = given(grant(10), reserve(10), capture(3, final=False), capture(3, final=False))
    scenario.when(capture(1)).then(
        ReservationCaptured, deduction="r~3", captured=7, returns=[("g", 3, "available")]
    ).leaves(available=3, consumed=7)


def test_a_capture_of_nothing_releases_everything() -> None:
    given(grant(10), reserve(10)).when(capture(0)).then(
        ReservationCaptured, amount=0, returns=[("g", 10, "available")]
    )


def test_a_capture_takes_the_slices_in_the_order_they_were_drawn() -> None:
    given(grant(5, "a", priority=1), grant(5, "b"), reserve(8)).when(capture(6)).then(
        ReservationCaptured, draws=[("a", 5), ("b", 1)], returns=[("b", 2, "available")]
    )


@pytest.mark.parametrize("close", [capture(1), release()])
def test_a_closed_reservation_is_closed_for_ever(close: Capture) -> None:
    scenario = given(grant(10), reserve(5), close)
    for again in (capture(0), release(), extend(amount=1), capture(1, overage="debt")):
        scenario.when(again).refused(ReservationClosed)


# -- overage ---------------------------------------------------------------------------------------


def test_reject_refuses_more_than_is_reserved_even_where_more_is_available() -> None:
    given(grant(10), reserve(5)).when(capture(6)).refused(
        CaptureExceedsReservation, asked=6, remaining=5
    )


def test_draw_takes_the_excess_from_what_is_available() -> None:
    given(grant(10), reserve(5)).when(capture(9, overage="draw")).then(
        ReservationCaptured, draws=[("g", 5)], extra=[("g", 4)], debt=0
    ).leaves(available=1)


def test_draw_refuses_when_what_is_available_does_not_suffice() -> None:
    given(grant(10), reserve(5)).when(capture(11, overage="draw")).refused(
        InsufficientCredits, required=6, available=5, shortfall=1
    )


def test_debt_charges_finished_work_whatever_is_available() -> None:
    given(grant(10), reserve(5)).when(capture(12, overage="debt")).then(
        ReservationCaptured, extra=[("g", 5)], debt=2
    ).leaves(available=0, debt=2)


def test_the_excess_is_drawn_from_grants_for_the_reservations_feature() -> None:
    given(grant(5, "image", scope=("image",)), grant(5, "any"), reserve(5, feature="image")).when(
        capture(12, overage="debt")
    ).then(ReservationCaptured, draws=[("image", 5)], extra=[("any", 5)], debt=2)


# -- time ------------------------------------------------------------------------------------------


def test_a_pinned_slice_is_captured_although_its_grant_has_expired() -> None:
    given(grant(10, expires_at=at(60)), reserve(6, ttl_seconds=600), 60).when(capture(6)).then(
        ReservationCaptured, draws=[("g", 6)]
    ).grant("g", status="expired", consumed=6, expired=4)


def test_a_pinned_slice_expires_when_it_is_released_after_its_grant() -> None:
    given(grant(10, expires_at=at(60)), reserve(6, ttl_seconds=600), 60).when(release()).then(
        ReservationReleased, returns=[("g", 6, "expired")]
    ).leaves(available=0, expired=10)


def test_what_a_reservation_holds_is_free_at_its_deadline_to_the_microsecond() -> None:
    scenario = given(grant(10), reserve(10, ttl_seconds=60), 59)
    scenario.when(deduct(1)).refused(InsufficientCredits)
    scenario.do(1)
    scenario.when(deduct(10)).leaves(available=0, consumed=10)


def test_a_reservation_that_ends_with_its_grant_gives_back_before_the_grant_expires() -> None:
    given(grant(10, expires_at=at(60)), reserve(6, ttl_seconds=60)).when(60).leaves(
        expired=10, reserved=0
    )


def test_a_late_capture_is_refused_unless_it_says_how() -> None:
    given(grant(10), reserve(5, ttl_seconds=60), 60).when(capture(5)).refused(
        ReservationExpiredAlready, expired_at=at(60)
    )


@pytest.mark.parametrize(("overage", "debt"), [("draw", 0), ("debt", 0)])
def test_a_late_capture_takes_from_what_is_available(overage: Overage, debt: int) -> None:
    given(grant(10), reserve(5, ttl_seconds=60), 60).when(capture(5, overage=overage)).then(
        ReservationCaptured, draws=[], extra=[("g", 5)], debt=debt, status="captured"
    )


def test_a_late_capture_that_draws_is_refused_when_the_credits_are_gone() -> None:
    given(grant(10), reserve(5, ttl_seconds=60), 60, deduct(8)).when(
        capture(5, overage="draw")
    ).refused(InsufficientCredits, required=5, available=2)


def test_a_late_capture_as_debt_always_succeeds() -> None:
    given(grant(10), reserve(5, ttl_seconds=60), 60, deduct(8)).when(
        capture(5, overage="debt")
    ).leaves(available=0, debt=3)


def test_a_late_capture_of_nothing_closes() -> None:
    given(grant(10), reserve(5, ttl_seconds=60), 60).when(capture(0)).then(
        ReservationCaptured, amount=0, status="captured"
    ).when(capture(0)).refused(ReservationClosed)


def test_late_partial_captures_go_on_until_the_final_one() -> None:
    scenario = given(grant(10), reserve(5, ttl_seconds=60), 60)
    scenario.when(capture(2, final=False, overage="draw")).then(
        ReservationCaptured, status="expired"
    )
    scenario.when(capture(2, overage="draw")).then(ReservationCaptured, status="captured")
    scenario.when(capture(1, overage="debt")).refused(ReservationClosed)


def test_an_expired_reservation_can_be_neither_released_nor_extended() -> None:
    scenario = given(grant(10), reserve(5, ttl_seconds=60), 60)
    scenario.when(release()).refused(ReservationExpiredAlready)
    scenario.when(extend(amount=1)).refused(ReservationExpiredAlready)


# -- extending -------------------------------------------------------------------------------------


def test_extending_sets_more_aside() -> None:
    given(grant(5, "a", priority=1), grant(5, "b"), reserve(4)).when(extend(amount=3)).then(
        ReservationExtended,
        draws=[("a", 1), ("b", 2)],
        pinned=[("a", 5), ("b", 2)],
        reserved=7,
        expires_at=at(600),
    ).leaves(reserved=7)


def test_extending_again_and_again_makes_no_event_longer() -> None:
    """A stream that was extended every second wrote each time all slices there had ever been."""
    steps = [extend(amount=1)] * 5
    given(grant(9, "a"), reserve(1), *steps).when(extend(amount=1)).then(
        ReservationExtended, draws=[("a", 1)], pinned=[("a", 7)]
    )


def test_extending_moves_the_deadline_from_now() -> None:
    given(grant(5), reserve(4, ttl_seconds=60), 30).when(extend(ttl_seconds=60)).then(
        ReservationExtended, amount=0, expires_at=at(90)
    ).when(59).leaves(reserved=4).when(1).leaves(reserved=0)


def test_extending_does_not_move_the_deadline_to_an_earlier_time() -> None:
    given(grant(5), reserve(4, ttl_seconds=60)).when(extend(ttl_seconds=59)).refused(
        InvalidCommand, field="ttl_seconds"
    )


def test_extending_says_what_it_extends() -> None:
    given(grant(5), reserve(4)).when(extend()).refused(InvalidCommand, field="amount")


def test_extending_is_refused_without_the_credits() -> None:
    given(grant(5), reserve(4)).when(extend(amount=2)).refused(
        InsufficientCredits, required=2, available=1
    )


# -- totals, as messages report them ---------------------------------------------------------------


def up_to(total: int | None, *, final: bool = False) -> CaptureUpTo:
    charge = None if total is None else Charge(amount=total)
    return CaptureUpTo(operation="r", charge=charge, final=final)


def test_the_largest_total_wins_in_any_order_and_any_repetition() -> None:
    for totals in ([3, 5, 5, 1], [5, 3, 1, 5], [1, 3, 5, 3]):
        scenario = given(grant(10), reserve(6))
        for total in totals:
            scenario.do(up_to(total))
        scenario.when(up_to(5, final=True)).leaves(consumed=5, available=5, reserved=0)


def test_a_total_that_is_reached_already_makes_nothing_happen() -> None:
    given(grant(10), reserve(6), up_to(5)).when(up_to(4)).nothing()


def test_a_total_for_an_unknown_operation_opens_it() -> None:
    given(grant(10)).when(up_to(3)).then(
        ReservationCaptured, reservation="r", extra=[("g", 3)], status="open"
    ).when(up_to(3, final=True)).then(ReservationReleased, status="captured", captured=3)


def test_a_late_total_is_charged_after_the_operation_is_closed() -> None:
    given(grant(10), reserve(6), release()).when(up_to(4)).then(
        ReservationCaptured, extra=[("g", 4)], status="captured"
    ).when(up_to(4, final=True)).nothing()


def test_an_operation_that_failed_without_spending_is_released() -> None:
    given(grant(10), reserve(6)).when(up_to(None, final=True)).then(
        ReservationReleased, status="released", amount=6
    ).leaves(available=10)


def test_a_total_beyond_the_reservation_becomes_debt() -> None:
    given(grant(5), reserve(5)).when(up_to(8, final=True)).then(
        ReservationCaptured, draws=[("g", 5)], debt=3
    )


def test_a_reservation_is_named_after_its_key_unless_it_has_a_name() -> None:
    scenario = given(grant(10))
    one = scenario.do(Reserve(charge=Charge(amount=1)))
    other = scenario.do(Reserve(charge=Charge(amount=1)))
    assert isinstance(one, CreditsReserved)
    assert isinstance(other, CreditsReserved)
    assert one.reservation != other.reservation
