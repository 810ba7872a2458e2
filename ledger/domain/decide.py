"""What a command makes happen: decided on (state, command, time) alone. Changes nothing.

The checks run in this order, so that a request with several faults always gets the same answer:
the account exists, the thing named exists and is in a state that allows it, the fields make sense,
the price is known, the credits suffice.
"""

from __future__ import annotations

from datetime import datetime
from typing import assert_never

from ledger.domain import spending
from ledger.domain.account import ACTIVATES, RESERVATION_ENDS, Account
from ledger.domain.bounds import check_amount, check_count, check_debt, check_growth, check_metadata
from ledger.domain.burndown import burn_down, give_back
from ledger.domain.catalog import Catalog
from ledger.domain.commands import (
    AccountCommand,
    Adjust,
    ApplyPayment,
    Capture,
    CaptureUpTo,
    Deduct,
    Extend,
    GrantCredits,
    PutAccount,
    Refund,
    Release,
    Reserve,
    RevokeGrant,
    Settle,
)
from ledger.domain.errors import (
    AccountNotFound,
    GrantClosed,
    GrantExists,
    GrantNotFound,
    InsufficientCredits,
    InvalidCommand,
)
from ledger.domain.events import (
    AccountEvent,
    AccountOpened,
    AccountUpdated,
    BalanceAdjusted,
    CreditsGranted,
    Event,
    GrantActivated,
    GrantExpired,
    GrantRevoked,
    Regrant,
    ReservationExpired,
    operation_of,
)
from ledger.domain.evolve import evolve
from ledger.domain.payments import apply_payment
from ledger.domain.periods import is_zone
from ledger.domain.refunds import refund
from ledger.domain.values import (
    PRIORITY_DEFAULT,
    PRIORITY_MAX,
    derived_id,
)

NO_PRICES = Catalog()


def decide(
    account: Account,
    command: AccountCommand,
    now: datetime,
    *,
    key: str = "",
    prices: Catalog = NO_PRICES,
) -> tuple[AccountEvent, ...]:
    """Return what is due at `now`, then what `command` makes happen: its own event is the last.

    `key` is the command's idempotency key: what the command makes is named after it, unless it
    brings a name. `Settle`, and a `CaptureUpTo`, an `ApplyPayment` or a `PutAccount` that have
    nothing to add, may make nothing happen.
    Raises a LedgerError; then nothing of this happens, what is due included.
    """
    if not account.is_due(now):
        return _act(account, command, now, key, prices)
    account.begin()
    try:
        due = _pass_time(account, now)
        return (*due, *_act(account, command, now, key, prices))
    finally:
        account.roll_back()


def settle(account: Account, now: datetime) -> tuple[tuple[AccountEvent, ...], Account]:
    """Return what time has done up to `now`, and the account after that: another, if it is due."""
    if not account.is_due(now):
        return (), account
    account = account.fork()
    return tuple(_pass_time(account, now)), account


def is_by_time(event: Event) -> bool:
    """Tell whether time alone made `event` happen: `decide` puts such events before its own."""
    return isinstance(event, GrantActivated | GrantExpired | ReservationExpired)


def _pass_time(account: Account, now: datetime) -> list[AccountEvent]:
    events: list[AccountEvent] = []
    while account.is_due(now):
        deadline = account.next_deadline()
        assert deadline is not None
        event = _due(account, deadline[1], deadline[2])
        evolve(account, event)
        events.append(event)
    return events


def _due(account: Account, what: int, name: str) -> AccountEvent:
    if what == RESERVATION_ENDS:
        operation = account.open[name]
        return ReservationExpired(
            reservation=name,
            amount=operation.remaining,
            returns=give_back(account, operation.pinned),
            overdraft_returned=operation.overdraft,
        )
    grant = account.grants[name]
    if what == ACTIVATES:
        repaid = min(account.balance.debt, grant.amount)
        return GrantActivated(grant=name, amount=grant.amount, debt_repaid=repaid)
    return GrantExpired(grant=name, amount=grant.unspent, frozen=grant.status == "frozen")


def recalled_by(command: AccountCommand) -> str | None:
    """Return the id of the operation that deciding `command` must know, open or closed.

    Whoever decides must first put it into the account, if it exists and is not at hand.
    """
    match command:
        case Reserve() | Deduct():
            return command.id
        case Capture() | Release() | Extend():
            return command.reservation
        case CaptureUpTo():
            return command.operation
        case Refund():
            return operation_of(command.deduction)
        case _:
            return None


def asks_catalog(command: AccountCommand) -> bool:
    """Tell whether deciding `command` asks the tenant's prices, its overages or its policy."""
    match command:
        case Refund():
            return True
        case Capture():
            # The feature that says what becomes of too much may be that of its reservation.
            return command.charge.amount is None or command.overage is None
        case Deduct(charge=charge):
            says = command.overage is not None or charge.feature is None
            return charge.amount is None or not says
        case Reserve():
            return command.charge.amount is None
        case CaptureUpTo(charge=charge):
            return charge is not None and charge.amount is None
        case _:
            return False


def _act(
    account: Account, command: AccountCommand, now: datetime, key: str, prices: Catalog
) -> tuple[AccountEvent, ...]:
    if isinstance(command, PutAccount):
        return () if command.only_new and account.opened else (_put_account(account, command),)
    if not account.opened:
        if isinstance(command, Settle):
            return ()
        raise AccountNotFound
    match command:
        case Reserve():
            return (spending.reserve(account, command, now, key, prices),)
        case Capture():
            return (spending.capture(account, command, prices),)
        case CaptureUpTo():
            return spending.capture_up_to(account, command, now, prices)
        case Release():
            return (spending.release(account, command),)
        case Extend():
            return (spending.extend(account, command, now),)
        case Deduct():
            return (spending.deduct(account, command, key, prices),)
        case Refund():
            return (refund(account, command, now, key, prices.regrant_days),)
        case GrantCredits():
            return (_grant(account, command, now, key),)
        case RevokeGrant():
            return (_revoke(account, command),)
        case ApplyPayment():
            return apply_payment(account, command, now)
        case Adjust():
            return (_adjust(account, command, now, key),)
        case Settle():
            return ()
        case _:
            assert_never(command)


def _put_account(account: Account, command: PutAccount) -> AccountEvent:
    check_amount("overdraft_limit", command.overdraft_limit)
    check_metadata(command.metadata)
    if not is_zone(command.zone):
        raise InvalidCommand(field="zone", rule="must be a name of the IANA time zones")
    event = AccountUpdated if account.opened else AccountOpened
    return event(
        label=command.label,
        overdraft_limit=command.overdraft_limit,
        metadata=command.metadata,
        zone=command.zone,
    )


def _grant(account: Account, command: GrantCredits, now: datetime, key: str) -> CreditsGranted:
    name = command.id or derived_id("grt", key)
    if name in account.grants:
        raise GrantExists(grant=name)
    check_amount("amount", command.amount, lowest=1)
    check_amount("cost_basis", command.cost_basis)
    check_count("priority", command.priority, 0, PRIORITY_MAX)
    check_metadata(command.metadata)
    effective_at = command.effective_at or now
    if command.expires_at is not None and command.expires_at <= max(now, effective_at):
        raise InvalidCommand(
            field="expires_at", rule="must be in the future and after effective_at"
        )
    check_growth(account, command.amount)
    pending = effective_at > now
    return CreditsGranted(
        grant=name,
        amount=command.amount,
        kind=command.kind,
        priority=command.priority,
        scope=command.scope,
        effective_at=effective_at,
        expires_at=command.expires_at,
        cost_basis=command.cost_basis,
        source=command.source,
        metadata=command.metadata,
        pending=pending,
        debt_repaid=0 if pending else min(account.balance.debt, command.amount),
    )


def _revoke(account: Account, command: RevokeGrant) -> GrantRevoked:
    grant = account.grants.get(command.grant)
    if grant is None:
        raise GrantNotFound(grant=command.grant)
    ended = grant.status in {"expired", "revoked"}
    if grant.clawed_back or (ended and not command.clawback):
        raise GrantClosed(grant=grant.id, grant_status=grant.status)
    debt = grant.consumed - grant.clawed if command.clawback else 0
    check_debt(account.balance, debt)
    return GrantRevoked(
        grant=grant.id,
        amount=grant.unspent,
        pending=grant.status in {"pending", "frozen"},
        clawback=command.clawback,
        debt=debt,
    )


def _adjust(account: Account, command: Adjust, now: datetime, key: str) -> BalanceAdjusted:
    name = derived_id("adj", key)
    check_amount("amount", abs(command.amount))
    check_metadata(command.metadata)
    if command.amount == 0:
        raise InvalidCommand(field="amount", rule="must not be 0")
    if command.amount < 0:
        return _adjust_down(account, command, name)
    if command.expires_at is not None and command.expires_at <= now:
        raise InvalidCommand(field="expires_at", rule="must be in the future")
    check_growth(account, command.amount)
    grant = Regrant(
        grant=name,
        amount=command.amount,
        kind=command.kind,
        priority=PRIORITY_DEFAULT,
        effective_at=now,
        expires_at=command.expires_at,
        debt_repaid=min(account.balance.debt, command.amount),
    )
    return BalanceAdjusted(
        adjustment=name, amount=command.amount, grant=grant, metadata=command.metadata
    )


def _adjust_down(account: Account, command: Adjust, name: str) -> BalanceAdjusted:
    if command.expires_at is not None:
        raise InvalidCommand(field="expires_at", rule="goes with a positive amount only")
    asked = -command.amount
    draws, short = burn_down(account.payers(None, any_scope=True), asked)
    if short and command.overage != "debt":
        raise InsufficientCredits(
            required=asked, available=asked - short, shortfall=short, limit="balance"
        )
    check_debt(account.balance, short)
    return BalanceAdjusted(
        adjustment=name,
        amount=command.amount,
        draws=draws,
        debt=short,
        metadata=command.metadata,
    )
