"""Every refusal that the rules know is provoked, with the facts it promises."""

from __future__ import annotations

import ast
from inspect import getmembers, getsource, isclass
from pkgutil import iter_modules
from typing import Any

import pytest

import ledger.domain
from ledger.domain import account, bounds, errors, events, spending, values
from ledger.domain.commands import (
    Adjust,
    CaptureUpTo,
    Command,
    Deduct,
    Extend,
    PutAccount,
    Reserve,
    RevokeGrant,
    Settle,
)
from ledger.domain.entities import Charge
from ledger.domain.errors import LedgerError
from tests.domain.scenario import (
    Scenario,
    Step,
    capture,
    deduct,
    extend,
    given,
    grant,
    refund,
    release,
    reserve,
)

OPEN: list[Step] = [grant(10), reserve(5)]
PROVOKED: list[tuple[list[Step], Command, type[LedgerError]]] = [
    ([], reserve(1), errors.InsufficientCredits),
    ([grant(1)], grant(1), errors.GrantExists),
    (OPEN, reserve(1), errors.OperationExists),
    (OPEN, deduct(1, "r"), errors.OperationExists),
    ([grant(9), deduct(1)], reserve(1, "d"), errors.OperationExists),
    ([], capture(1), errors.ReservationNotFound),
    ([], release(), errors.ReservationNotFound),
    ([], extend(amount=1), errors.ReservationNotFound),
    ([], refund(), errors.DeductionNotFound),
    ([*OPEN, release()], release(), errors.ReservationClosed),
    ([grant(9), deduct(1)], capture(1, "d"), errors.ReservationClosed),
    ([*OPEN, 600], release(), errors.ReservationExpiredAlready),
    (OPEN, capture(6), errors.CaptureExceedsReservation),
    ([grant(9), deduct(1)], refund(amount=2), errors.RefundExceedsDeduction),
    ([], RevokeGrant(grant="g"), errors.GrantNotFound),
    (
        [grant(1), RevokeGrant(grant="g")],
        RevokeGrant(grant="g"),
        errors.GrantClosed,
    ),
    ([], deduct(2**53), errors.InvalidCommand),
    ([], Deduct(charge=Charge(feature="x", quantity=1)), errors.PriceNotFound),
]


@pytest.mark.parametrize(("steps", "command", "kind"), PROVOKED)
def test_it_is_refused_and_nothing_has_changed(
    steps: list[Step], command: Command, kind: type[LedgerError]
) -> None:
    scenario = given(*steps)
    before = scenario.account.snapshot()
    scenario.when(command).refused(kind)
    assert scenario.account.snapshot() == before


@pytest.mark.parametrize("command", [reserve(1), grant(1), capture(1), CaptureUpTo(operation="r")])
def test_an_account_that_nobody_has_opened_is_not_found(command: Command) -> None:
    Scenario().when(command).refused(errors.AccountNotFound)


def test_settling_an_account_that_nobody_has_opened_does_nothing() -> None:
    Scenario().when(Settle()).nothing()


def test_an_account_has_so_many_grants_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "GRANTS_MAX", 2)
    given(grant(1, "a"), grant(1, "b")).when(grant(1)).refused(
        errors.LimitReached, limit="grants", max=2
    )


def test_an_account_is_granted_so_much_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "TOTAL_MAX", 10)
    scenario = given(grant(6))
    for more in (grant(5, "g2"), Adjust(amount=5)):
        scenario.when(more).refused(errors.LimitReached, limit="granted", max=10)


def test_an_account_has_so_many_open_reservations_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spending, "OPEN_RESERVATIONS_MAX", 1)
    scenario = given(*OPEN)
    for more in (reserve(1, "r2"), CaptureUpTo(operation="r3")):
        scenario.when(more).refused(errors.LimitReached, limit="open_reservations", max=1)
    scenario.do(release())
    scenario.when(reserve(1, "r2")).leaves(reserved=1)


@pytest.mark.parametrize(
    ("command", "field"),
    [
        (grant(0, "g2"), "amount"),
        (grant(-5, "g2"), "amount"),
        (grant(2**53, "g2"), "amount"),
        (grant(1, "g2", priority=-1), "priority"),
        (grant(1, "g2", cost_basis=-1), "cost_basis"),
        (PutAccount(overdraft_limit=-1), "overdraft_limit"),
        (Reserve(charge=Charge(amount=1), ttl_seconds=0), "ttl_seconds"),
        (Reserve(charge=Charge(amount=1), ttl_seconds=values.TTL_SECONDS_MAX + 1), "ttl_seconds"),
        (Reserve(charge=Charge(amount=1), at_least=-1), "at_least"),
        (Deduct(charge=Charge(amount=1), at_least=-1), "at_least"),
        (CaptureUpTo(operation="new", ttl_seconds=0), "ttl_seconds"),
        (Extend(reservation="r", amount=-1), "amount"),
        (Extend(reservation="r", amount=2**53 - 1), "amount"),
        (Extend(reservation="r", ttl_seconds=-1), "ttl_seconds"),
        (capture(-1), "amount"),
    ],
)
def test_no_number_out_of_bounds_passes_whatever_asked(command: Command, field: str) -> None:
    given(*OPEN).when(command).refused(errors.InvalidCommand, field=field)


@pytest.mark.parametrize("zone", ["", "Mars/Base", "europe\0berlin", "../UTC", "Europe"])
def test_a_zone_must_be_one_whose_clock_is_known(zone: str) -> None:
    given(*OPEN).when(PutAccount(zone=zone)).refused(errors.InvalidCommand, field="zone")


def test_a_request_with_two_faults_gets_the_first_answer_of_the_documented_order() -> None:
    free: Any = Charge(feature="x", quantity=1)
    scenario = given(*OPEN, release())
    scenario.when(capture(-1)).refused(errors.ReservationClosed)
    scenario.when(Deduct(charge=Charge(feature="x", quantity=-1))).refused(errors.InvalidCommand)
    scenario.when(Deduct(id="r", charge=free)).refused(errors.OperationExists)


def test_every_refusal_that_the_rules_raise_is_provoked_here() -> None:
    raised = set()
    for module in iter_modules(ledger.domain.__path__, "ledger.domain."):
        source = getsource(__import__(module.name, fromlist=["_"]))
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Raise) and node.exc is not None:
                called = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
                raised.add(ast.unparse(called))
    known = {kind.__name__ for _, _, kind in PROVOKED} | {"AccountNotFound", "LimitReached"}
    assert raised - {"ValueError"} == known


def test_codes_are_unique_and_every_refusal_explains_itself() -> None:
    kinds = [
        kind
        for _, kind in getmembers(errors, isclass)
        if issubclass(kind, LedgerError) and kind is not LedgerError
    ]
    assert len({kind.code for kind in kinds}) == len(kinds)
    for kind in kinds:
        detail = kind(field="amount", rule="must be there").detail
        assert detail
        assert 400 <= kind.status < 600
        assert kind.retryable == (kind.status == 503)
    assert account.CLOSED_KEPT > 0


def test_an_operation_may_be_changed_so_often_and_can_be_closed_all_the_same() -> None:
    scenario = given(grant(9), reserve(9))
    for _ in range(values.CHANGES_MAX):
        scenario.do(extend(ttl_seconds=values.TTL_SECONDS_DEFAULT))
    scenario.when(extend(ttl_seconds=values.TTL_SECONDS_DEFAULT)).refused(
        errors.LimitReached, limit="changes"
    )
    scenario.when(capture(1, final=False)).refused(errors.LimitReached, limit="changes")
    scenario.when(capture(1)).then(events.ReservationCaptured, status="captured")
    scenario.when(refund("r~1")).refused(errors.LimitReached, limit="changes")


def test_a_reservation_pins_so_many_slices_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "SLICES_MAX", 2)
    scenario = given(*(grant(1, name) for name in "abcd"), reserve(2), grant(9, "large"))
    scenario.when(reserve(3, "r2")).refused(errors.LimitReached, limit="slices", max=2)
    scenario.when(extend(amount=1)).refused(errors.LimitReached, limit="slices", max=2)
    scenario.when(extend(ttl_seconds=values.TTL_SECONDS_DEFAULT)).leaves(reserved=2)
    scenario.when(reserve(2, "r2")).leaves(reserved=4)
    scenario.when(capture(5, overage="debt")).leaves(consumed=5, reserved=2)


def test_metadata_has_a_size() -> None:
    large = {"note": "x" * values.METADATA_CHARACTERS_MAX}
    given().when(grant(1, metadata=large)).refused(errors.InvalidCommand, field="metadata")
