"""How an operation's own events change it. An account holds open ones; closed ones are recalled."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeGuard, assert_never

from msgspec.structs import replace

from ledger.domain.entities import Deduction, Metered, Operation
from ledger.domain.events import (
    CreditsDeducted,
    CreditsRefunded,
    CreditsReserved,
    Event,
    ReservationCaptured,
    ReservationExpired,
    ReservationExtended,
    ReservationReleased,
)

OperationEvent = (
    CreditsReserved
    | ReservationExtended
    | ReservationCaptured
    | ReservationReleased
    | ReservationExpired
    | CreditsDeducted
    | CreditsRefunded
)


def is_operation_event(event: Event) -> TypeGuard[OperationEvent]:
    """Tell whether `event` is about a reservation or a deduction."""
    return isinstance(event, OperationEvent)


def recall(events: Iterable[OperationEvent]) -> Operation | None:
    """Return the operation that its own events tell of, in order; None if there are none."""
    operation: Operation | None = None
    for event in events:
        operation = advance(operation, event)
    return operation


def advance(operation: Operation | None, event: OperationEvent) -> Operation:
    """Return the operation after `event`."""
    match event:
        case CreditsReserved():
            return Operation(
                id=event.reservation,
                status="open",
                amount=event.amount,
                pinned=event.draws,
                overdraft=event.overdraft,
                expires_at=event.expires_at,
                feature=event.feature,
                price=event.price,
                actor=event.actor,
                job=event.job,
            )
        case CreditsDeducted():
            return _deducted(event)
    assert operation is not None
    changes = operation.changes + 1
    match event:
        case ReservationCaptured():
            return _captured(operation, event, changes)
        case ReservationExtended():
            return replace(
                operation,
                amount=event.reserved,
                pinned=event.pinned,
                overdraft=operation.overdraft + event.overdraft,
                expires_at=event.expires_at,
                changes=changes,
            )
        case ReservationReleased():
            return replace(operation, status=event.status, pinned=(), overdraft=0, changes=changes)
        case ReservationExpired():
            return replace(operation, status="expired", pinned=(), overdraft=0, changes=changes)
        case CreditsRefunded():
            deductions = tuple(
                replace(one, refunded=event.refunded) if one.id == event.deduction else one
                for one in operation.deductions
            )
            return replace(operation, deductions=deductions, changes=changes)
        case _:
            assert_never(event)


def _deducted(event: CreditsDeducted) -> Operation:
    deduction = Deduction(event.deduction, event.amount, event.draws, event.debt)
    return Operation(
        id=event.deduction,
        status="captured",
        amount=event.amount,
        captured=event.amount,
        feature=event.feature,
        price=event.price,
        actor=event.actor,
        job=event.job,
        metered=event.price.metered if event.price else Metered(),
        deductions=(deduction,),
    )


def _captured(operation: Operation, event: ReservationCaptured, changes: int) -> Operation:
    deduction = Deduction(
        event.deduction, event.amount, event.draws + event.extra, event.overdraft + event.debt
    )
    counted = event.metered or (event.price.metered if event.price else None)
    return replace(
        operation,
        status=event.status,
        captured=event.captured,
        pinned=event.pinned,
        overdraft=event.overdraft_pinned,
        metered=operation.metered.plus(counted) if counted else operation.metered,
        deductions=(*operation.deductions, deduction),
        changes=changes,
    )
