"""How events change an account. Never refuses: the event has happened."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, assert_never

from msgspec.structs import replace

from ledger.domain.account import ACTIVATES, ENDING, GRANT_ENDS, RESERVATION_ENDS, Account
from ledger.domain.burndown import BUCKET_OF
from ledger.domain.entities import Draw, Grant, Return
from ledger.domain.events import (
    AccountEvent,
    AccountOpened,
    AccountUpdated,
    BalanceAdjusted,
    CreditsDeducted,
    CreditsGranted,
    CreditsRefunded,
    CreditsReserved,
    GrantActivated,
    GrantExpired,
    GrantRevoked,
    PaymentApplied,
    Regrant,
    ReservationCaptured,
    ReservationExpired,
    ReservationExtended,
    ReservationReleased,
    operation_of,
)
from ledger.domain.operations import OperationEvent, advance

Place = Literal["available", "pending", "reserved", "consumed", "expired", "revoked"]
"""Where credits of a grant lie: the name of the field that counts them there."""


def evolve(account: Account, event: AccountEvent) -> None:
    """Change `account` by one event."""
    account.version += 1
    match event:
        case CreditsReserved():
            _reserved(account, event)
        case ReservationCaptured():
            _captured(account, event)
        case CreditsDeducted():
            _deducted(account, event)
        case ReservationReleased() | ReservationExpired():
            _closed(account, event)
        case ReservationExtended():
            _extended(account, event)
        case CreditsRefunded():
            _refunded(account, event)
        case CreditsGranted():
            _granted(account, event)
        case GrantActivated():
            _activated(account, event)
        case GrantExpired():
            source: Place = "pending" if event.frozen else "available"
            _move(account, event.grant, event.amount, source, "expired", status="expired")
        case GrantRevoked():
            _revoked(account, event)
        case PaymentApplied():
            _applied(account, event)
        case BalanceAdjusted():
            _adjusted(account, event)
        case AccountOpened() | AccountUpdated():
            account.opened, account.label = True, event.label
            account.metadata = event.metadata
            account.balance.overdraft_limit = event.overdraft_limit
        case _:
            assert_never(event)
    deadline = account.next_deadline()
    account.balance.due_at = deadline[0] if deadline else None


def _move(
    account: Account, name: str, amount: int, source: Place, target: Place, **terms: Any
) -> None:
    """Move credits of a grant, and of the balance with it, and change the grant's `terms`."""
    grant, balance = account.grants[name], account.balance
    terms[source] = getattr(grant, source) - amount
    terms[target] = getattr(grant, target) + amount
    account.put_grant(replace(grant, **terms))
    setattr(balance, source, getattr(balance, source) - amount)
    setattr(balance, target, getattr(balance, target) + amount)


def _set_aside(account: Account, draws: Iterable[Draw]) -> None:
    for draw in draws:
        _move(account, draw.grant, draw.amount, "available", "reserved")


def _give_back(account: Account, returns: Iterable[Return], source: Place) -> None:
    for back in returns:
        grant = account.grants[back.grant]
        if back.to == "revoked" and (grant.owing or grant.clawed):
            # What was spent and comes back makes good what is owed first, then what is owing.
            clawed = min(grant.clawed, back.amount) if source == "consumed" else 0
            owing = max(0, grant.owing - (back.amount - clawed))
            made_good = grant.owing - owing + clawed
            terms = {
                "clawed": grant.clawed - clawed,
                "owing": owing,
                "taken": grant.taken + made_good,
            }
            _move(account, back.grant, back.amount, source, back.to, **terms)
        else:
            _move(account, back.grant, back.amount, source, back.to)


def _new_grant(account: Account, grant: Grant, debt_repaid: int) -> None:
    """Add a grant that is effective, of which `debt_repaid` is spent at once."""
    account.balance.granted += grant.amount
    _made_available(account, grant, debt_repaid)
    if grant.expires_at is not None:
        account.add_deadline(grant.expires_at, GRANT_ENDS, grant.id)


def _made_available(account: Account, grant: Grant, debt_repaid: int) -> None:
    available = grant.amount - debt_repaid
    account.put_grant(
        replace(grant, status="active", pending=0, available=available, consumed=debt_repaid)
    )
    balance = account.balance
    balance.available += available
    balance.consumed += debt_repaid
    balance.debt -= debt_repaid


def _granted(account: Account, event: CreditsGranted) -> None:
    grant = Grant(
        id=event.grant,
        amount=event.amount,
        kind=event.kind,
        priority=event.priority,
        scope=event.scope,
        effective_at=event.effective_at,
        expires_at=event.expires_at,
        cost_basis=event.cost_basis,
        sequence=account.version,
        status="pending" if event.pending else "active",
        pending=event.amount if event.pending else 0,
    )
    if not event.pending:
        _new_grant(account, grant, event.debt_repaid)
        return
    account.balance.granted += event.amount
    account.balance.pending += event.amount
    account.put_grant(grant)
    account.add_deadline(grant.effective_at, ACTIVATES, grant.id)
    if grant.expires_at is not None:
        account.add_deadline(grant.expires_at, GRANT_ENDS, grant.id)


def _activated(account: Account, event: GrantActivated) -> None:
    account.balance.pending -= event.amount
    _made_available(account, account.grants[event.grant], event.debt_repaid)


def _revoked(account: Account, event: GrantRevoked) -> None:
    account.balance.debt += event.debt
    terms: dict[str, Any] = {"status": "revoked", "clawed_back": event.clawback, "final": True}
    if event.clawback:
        grant = account.grants[event.grant]
        terms |= {"reversed": grant.amount, "owing": grant.reserved, "clawed": grant.consumed}
    source: Place = "pending" if event.pending else "available"
    _move(account, event.grant, event.amount, source, "revoked", **terms)


def _applied(account: Account, event: PaymentApplied) -> None:
    balance, before = account.balance, account.grants.get(event.grant)
    balance.granted += event.added
    balance.debt += event.debt - event.debt_repaid - event.debt_cancelled
    balance.consumed += event.debt_repaid
    balance.revoked += event.taken - event.restored
    after = Grant(
        id=event.grant,
        amount=event.amount,
        kind=event.kind,
        priority=event.priority,
        scope=event.scope,
        effective_at=event.effective_at,
        expires_at=event.expires_at,
        cost_basis=event.cost_basis,
        sequence=before.sequence if before else account.version,
        status=event.status,
        clawed_back=event.reversed == event.amount,
        available=before.available if before else 0,
        pending=before.pending if before else 0,
        reserved=before.reserved if before else 0,
        consumed=(before.consumed if before else 0) + event.debt_repaid,
        revoked=(before.revoked if before else 0) + event.taken - event.restored,
        expired=before.expired if before else 0,
        reversed=event.reversed,
        owing=event.owing,
        taken=(before.taken if before else 0) + event.taken - event.restored,
        clawed=(before.clawed if before else 0) + event.debt - _unclawed(event),
        final=before.final if before else False,
        revision=event.revision,
    )
    lay, lies = event.before, BUCKET_OF[event.status]
    after = replace(after, **{lay: getattr(after, lay) - event.unspent_before})
    after = replace(after, **{lies: getattr(after, lies) + event.unspent})
    setattr(balance, lay, getattr(balance, lay) - event.unspent_before)
    setattr(balance, lies, getattr(balance, lies) + event.unspent)
    if before is None:
        account.put_grant(after)
    else:
        account.put_terms(after)
    if event.expires_at is not None and event.status in ENDING:
        account.add_deadline(event.expires_at, GRANT_ENDS, event.grant)
    if event.regrant is not None:
        _regranted(account, event.regrant)


def _unclawed(event: PaymentApplied) -> int:
    return event.debt_cancelled + (event.regrant.amount if event.regrant else 0)


def _advance(account: Account, name: str, event: OperationEvent) -> None:
    """Change an operation that is at hand. A closed one need not be: it is recalled when needed."""
    operation = account.operation(name)
    if operation is not None:
        account.put_operation(advance(operation, event))


def _reserved(account: Account, event: CreditsReserved) -> None:
    _set_aside(account, event.draws)
    account.balance.overdraft_reserved += event.overdraft
    account.put_operation(advance(None, event))
    account.add_deadline(event.expires_at, RESERVATION_ENDS, event.reservation)


def _extended(account: Account, event: ReservationExtended) -> None:
    _set_aside(account, event.draws)
    account.balance.overdraft_reserved += event.overdraft
    moved = event.expires_at != account.open[event.reservation].expires_at
    _advance(account, event.reservation, event)
    if moved:
        account.add_deadline(event.expires_at, RESERVATION_ENDS, event.reservation)


def _captured(account: Account, event: ReservationCaptured) -> None:
    for draw in event.draws:
        _move(account, draw.grant, draw.amount, "reserved", "consumed")
    if event.clawed_back:
        _spent_what_was_owing(account, event.draws)
    for draw in event.extra:
        _move(account, draw.grant, draw.amount, "available", "consumed")
    _give_back(account, event.returns, "reserved")
    balance = account.balance
    balance.overdraft_reserved -= event.overdraft + event.overdraft_returned
    balance.debt += event.overdraft + event.debt + event.clawed_back
    _advance(account, event.reservation, event)


def _spent_what_was_owing(account: Account, draws: Iterable[Draw]) -> None:
    for name in {draw.grant for draw in draws}:
        grant = account.grants[name]
        spent = grant.owing - grant.reserved
        if spent > 0:
            clawed = grant.clawed + spent
            account.put_grant(replace(grant, owing=grant.reserved, clawed=clawed))


def _closed(account: Account, event: ReservationReleased | ReservationExpired) -> None:
    _give_back(account, event.returns, "reserved")
    account.balance.overdraft_reserved -= event.overdraft_returned
    _advance(account, event.reservation, event)


def _deducted(account: Account, event: CreditsDeducted) -> None:
    for draw in event.draws:
        _move(account, draw.grant, draw.amount, "available", "consumed")
    account.balance.debt += event.debt
    account.put_operation(advance(None, event))


def _refunded(account: Account, event: CreditsRefunded) -> None:
    _give_back(account, event.returns, "consumed")
    account.balance.debt -= event.debt_cancelled + event.clawback_cancelled
    for regrant in event.regrants:
        _regranted(account, regrant)
    _advance(account, operation_of(event.deduction), event)


def _adjusted(account: Account, event: BalanceAdjusted) -> None:
    for draw in event.draws:
        _move(account, draw.grant, draw.amount, "available", "revoked")
    account.balance.debt += event.debt
    if event.grant is not None:
        _regranted(account, event.grant)


def _regranted(account: Account, regrant: Regrant) -> None:
    grant = Grant(
        id=regrant.grant,
        amount=regrant.amount,
        kind=regrant.kind,
        priority=regrant.priority,
        scope=regrant.scope,
        effective_at=regrant.effective_at,
        expires_at=regrant.expires_at,
        cost_basis=regrant.cost_basis,
        sequence=account.version,
    )
    _new_grant(account, grant, regrant.debt_repaid)
