"""Reserving and spending: what may be set aside, what a capture takes, what goes back."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache

from msgspec.structs import replace

from ledger.domain.account import Account
from ledger.domain.bounds import (
    check_amount,
    check_changes,
    check_count,
    check_debt,
    check_metadata,
    check_slices,
)
from ledger.domain.burndown import burn_down, give_back, joined, owed_if_spent, take
from ledger.domain.catalog import Catalog, overage_of
from ledger.domain.commands import (
    Capture,
    CaptureUpTo,
    Deduct,
    Extend,
    Release,
    Reserve,
)
from ledger.domain.entities import Draw, Metered, Operation, OperationStatus, Overage, Price
from ledger.domain.errors import (
    CaptureExceedsReservation,
    InsufficientCredits,
    InvalidCommand,
    LimitReached,
    OperationExists,
    ReservationClosed,
    ReservationExpiredAlready,
    ReservationNotFound,
)
from ledger.domain.events import (
    AccountEvent,
    CreditsDeducted,
    CreditsReserved,
    ReservationCaptured,
    ReservationExtended,
    ReservationReleased,
)
from ledger.domain.operations import advance
from ledger.domain.pricing import rate
from ledger.domain.values import (
    CREDITS_MAX,
    OPEN_RESERVATIONS_MAX,
    TTL_SECONDS_MAX,
    derived_id,
)


def reserve(
    account: Account, command: Reserve, now: datetime, key: str, prices: Catalog
) -> CreditsReserved:
    """Set credits aside until a deadline, out of the grants, then of the overdraft."""
    name = _new_name(account, command.id, "rsv", key)
    _may_open(account)
    check_amount("at_least", command.at_least)
    check_metadata(command.metadata)
    check_count("ttl_seconds", command.ttl_seconds, 1, TTL_SECONDS_MAX)
    asked, price = rate(command.charge, prices)
    feature = price.feature if price else command.charge.feature
    draws, short = burn_down(account.payers(feature), asked)
    overdraft, short = _on_overdraft(account, short)
    if short:
        _accept_less(command.at_least, asked, short)
    check_slices(len(draws))
    return CreditsReserved(
        reservation=name,
        amount=asked - short,
        draws=draws,
        overdraft=overdraft,
        expires_at=now + _lasting(command.ttl_seconds),
        feature=feature,
        price=price,
        actor=command.actor,
        job=command.job,
        metadata=command.metadata,
    )


def deduct(account: Account, command: Deduct, key: str, prices: Catalog) -> CreditsDeducted:
    """Spend in one step, out of the grants, then of the overdraft, then as the overage says."""
    name = _new_name(account, command.id, "ded", key)
    check_amount("at_least", command.at_least)
    check_metadata(command.metadata)
    asked, price = rate(command.charge, prices)
    feature = price.feature if price else command.charge.feature
    draws, short = burn_down(account.payers(feature), asked)
    debt = short
    if short and (command.overage or overage_of(prices, feature)) != "debt":
        debt, short = _on_overdraft(account, short)
        if short:
            _accept_less(command.at_least, asked, short)
    else:
        short = 0
    check_debt(account.balance, debt)
    return CreditsDeducted(
        deduction=name,
        amount=asked - short,
        draws=draws,
        debt=debt,
        feature=feature,
        price=price,
        actor=command.actor,
        job=command.job,
        metadata=command.metadata,
    )


def capture(account: Account, command: Capture, prices: Catalog) -> ReservationCaptured:
    """Spend some or all of a reservation; also after it has expired, if the overage says how."""
    operation = account.operation(command.reservation)
    if operation is None:
        raise ReservationNotFound(reservation=command.reservation)
    late = operation.status == "expired"
    if operation.status != "open" and not late:
        raise ReservationClosed(reservation=operation.id, reservation_status=operation.status)
    amount, price = rate(command.charge, prices, operation.price, operation.feature)
    excess = amount - operation.remaining
    overage = command.overage
    if overage is None:
        overage = overage_of(prices, price.feature if price else operation.feature)
    if excess > 0 and overage == "reject":
        if late:
            raise ReservationExpiredAlready(
                reservation=operation.id, expired_at=operation.expires_at
            )
        raise CaptureExceedsReservation(
            reservation=operation.id, asked=amount, remaining=operation.remaining
        )
    status: OperationStatus = "captured" if command.final else operation.status
    return _captured(account, operation, amount, price, overage=overage, status=status)


def capture_up_to(
    account: Account, command: CaptureUpTo, now: datetime, prices: Catalog
) -> tuple[AccountEvent, ...]:
    """Bring what an operation has spent up to a total. Nothing, if it is there and closed."""
    operation = account.operation(command.operation)
    due, price = 0, None
    if command.charge is not None:
        known = (operation.price, operation.feature) if operation else (None, None)
        due, price = rate(command.charge, prices, *known)
    opened: tuple[AccountEvent, ...] = ()
    if operation is None:
        event = _open_empty(account, command, price, now)
        operation, opened = advance(None, event), (event,)
    amount = max(0, due - operation.captured)
    closing = command.final and operation.status in {"open", "expired"}
    counts = price is not None and not operation.deductions
    # What was used is counted also where it costs no more: below a minimum, or free.
    more = price is not None and price.metered.beyond(operation.metered) != Metered()
    if amount or more or (closing and counts):
        return (*opened, _captured_up_to(account, operation, amount, price, final=command.final))
    if closing:
        status: OperationStatus = "captured" if operation.captured else "released"
        return (*opened, replace(_released(account, operation), status=status))
    return opened


def _captured_up_to(
    account: Account, operation: Operation, amount: int, price: Price | None, *, final: bool
) -> ReservationCaptured:
    closed = final or operation.status in {"captured", "released"}
    status: OperationStatus = "captured" if closed else operation.status
    event = _captured(account, operation, amount, price, overage="debt", status=status)
    if price is None or not operation.deductions:
        return event
    return replace(event, metered=price.metered.beyond(operation.metered))


def release(account: Account, command: Release) -> ReservationReleased:
    """Give back what a reservation still holds."""
    return _released(account, _open_operation(account, command.reservation))


def extend(account: Account, command: Extend, now: datetime) -> ReservationExtended:
    """Set more aside, or for longer."""
    operation = _open_operation(account, command.reservation)
    assert operation.expires_at is not None
    if command.amount is None and command.ttl_seconds is None:
        raise InvalidCommand(field="amount", rule="or ttl_seconds must be given")
    check_changes(operation.changes)
    check_amount("amount", command.amount)
    check_count("ttl_seconds", command.ttl_seconds, 1, TTL_SECONDS_MAX)
    expires_at = operation.expires_at
    if command.ttl_seconds is not None:
        expires_at = now + _lasting(command.ttl_seconds)
        if expires_at < operation.expires_at:
            raise InvalidCommand(
                field="ttl_seconds", rule="must not move the deadline to an earlier time"
            )
    more = command.amount or 0
    if operation.amount + more > CREDITS_MAX:
        raise InvalidCommand(field="amount", rule="makes the reservation larger than it may be")
    draws, short = burn_down(account.payers(operation.feature), more)
    overdraft, short = _on_overdraft(account, short)
    if short:
        _accept_less(None, more, short)
    pinned = joined(operation.pinned, draws)
    if draws:
        check_slices(len(pinned))
    return ReservationExtended(
        reservation=operation.id,
        amount=more,
        draws=draws,
        overdraft=overdraft,
        expires_at=expires_at,
        reserved=operation.amount + more,
        captured=operation.captured,
        pinned=pinned,
        overdraft_pinned=operation.overdraft + overdraft,
    )


@lru_cache
def _lasting(seconds: int) -> timedelta:
    return timedelta(seconds=seconds)


def _may_open(account: Account) -> None:
    if account.open_count >= OPEN_RESERVATIONS_MAX:
        raise LimitReached(limit="open_reservations", max=OPEN_RESERVATIONS_MAX)


def _new_name(account: Account, asked: str | None, kind: str, key: str) -> str:
    name = asked or derived_id(kind, key)
    known = account.operation(name)
    if known is not None:
        raise OperationExists(id=name, operation_status=known.status)
    return name


def _open_operation(account: Account, name: str) -> Operation:
    operation = account.operation(name)
    if operation is None:
        raise ReservationNotFound(reservation=name)
    if operation.status == "expired":
        raise ReservationExpiredAlready(reservation=name, expired_at=operation.expires_at)
    if operation.status != "open":
        raise ReservationClosed(reservation=name, reservation_status=operation.status)
    return operation


def _on_overdraft(account: Account, short: int) -> tuple[int, int]:
    """Return how much of a shortfall the overdraft covers, and what is short then."""
    covered = min(short, account.overdraft_room()) if short else 0
    return covered, short - covered


def _accept_less(at_least: int | None, asked: int, short: int) -> None:
    """Refuse a shortfall unless what there is reaches `at_least`."""
    if at_least is None or asked - short < at_least:
        raise InsufficientCredits(
            required=asked, available=asked - short, shortfall=short, limit="balance"
        )


def _open_empty(
    account: Account, command: CaptureUpTo, price: Price | None, now: datetime
) -> CreditsReserved:
    """Open an operation that holds nothing. Its price version is that of all its captures."""
    _may_open(account)
    check_count("ttl_seconds", command.ttl_seconds, 1, TTL_SECONDS_MAX)
    asked = command.charge.feature if command.charge else None
    return CreditsReserved(
        reservation=command.operation,
        amount=0,
        expires_at=now + _lasting(command.ttl_seconds),
        feature=price.feature if price else asked,
        price=price,
        actor=command.actor,
        job=command.job,
    )


def _released(account: Account, operation: Operation) -> ReservationReleased:
    assert operation.expires_at is not None, "a direct deduction is never open"
    return ReservationReleased(
        reservation=operation.id,
        amount=operation.remaining,
        returns=give_back(account, operation.pinned),
        overdraft_returned=operation.overdraft,
        reserved=operation.amount,
        captured=operation.captured,
        expires_at=operation.expires_at,
    )


def _captured(
    account: Account,
    operation: Operation,
    amount: int,
    price: Price | None,
    *,
    overage: Overage,
    status: OperationStatus,
) -> ReservationCaptured:
    draws, rest, beyond = take(operation.pinned, amount)
    overdraft = min(beyond, operation.overdraft)
    extra, debt = _drawn_now(account, operation, beyond - overdraft, overage)
    clawed_back = owed_if_spent(account, draws)
    owed = debt + overdraft + clawed_back
    check_debt(account.balance, owed)
    closed = status != "open"
    if operation.status != "open" or not closed:
        check_changes(operation.changes)
    event = ReservationCaptured(
        reservation=operation.id,
        deduction=f"{operation.id}~{len(operation.deductions) + 1}",
        amount=amount,
        draws=draws,
        returns=give_back(account, rest, draws) if closed else (),
        overdraft_returned=operation.overdraft - overdraft if closed else 0,
        status=status,
        reserved=operation.amount,
        captured=operation.captured + amount,
        expires_at=operation.expires_at,
        feature=price.feature if price else operation.feature,
        price=price,
        actor=operation.actor,
        job=operation.job,
    )
    # CPython makes a dictionary for a call with more than 15 names: it would cost five times this.
    if extra or owed:
        event = replace(event, extra=extra, overdraft=overdraft, debt=debt, clawed_back=clawed_back)
    if closed:
        return event
    return replace(event, pinned=rest, overdraft_pinned=operation.overdraft - overdraft)


def _drawn_now(
    account: Account, operation: Operation, excess: int, overage: Overage
) -> tuple[tuple[Draw, ...], int]:
    """Return what pays for a capture beyond its reservation: grants, and what becomes debt."""
    if excess == 0:
        return (), 0
    assert overage != "reject"
    extra, short = burn_down(account.payers(operation.feature), excess)
    if short and overage == "draw":
        on_overdraft, short = _on_overdraft(account, short)
        if short:
            _accept_less(None, excess, short)
        return extra, on_overdraft
    return extra, short
