"""What payments do to an account: one grant each, which grows, freezes and shrinks as facts come.

Facts about a payment come in any order and again and again. Whoever has them says what they amount
to, all of them; an account only ever moves towards that, so that the same facts end the same way.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from ledger.domain.account import Account
from ledger.domain.bounds import check_amount, check_count, check_debt, check_growth
from ledger.domain.burndown import BUCKET_OF
from ledger.domain.commands import ApplyPayment
from ledger.domain.entities import Grant, GrantStatus
from ledger.domain.errors import GrantExists
from ledger.domain.events import PaymentApplied, Regrant
from ledger.domain.values import PRIORITY_DEFAULT, PRIORITY_MAX, derived_id


class _Reversal(Struct, frozen=True):
    """Where what is taken back comes from, or goes to if less is to be taken back than was."""

    taken: int = 0
    owing: int = 0
    debt: int = 0
    restored: int = 0
    unclawed: int = 0


def apply_payment(
    account: Account, command: ApplyPayment, now: datetime
) -> tuple[PaymentApplied, ...]:
    """Bring a payment's grant to what `command` says; nothing, if it is there or further.

    What is taken back comes first out of what is unspent, an expired grant's included; then out of
    what is set aside, once that is spent or comes back; what was spent becomes debt. If less is to
    be taken back than was, it goes the other way round.
    """
    before = account.grants.get(command.grant)
    if before is not None and not before.revision:
        raise GrantExists(grant=command.grant)
    _check(account, command, before)
    if before is not None and before.revision >= command.revision:
        return ()
    old = before or Grant(
        id=command.grant, amount=0, kind=command.kind, priority=0, effective_at=now, sequence=0
    )
    event = _applied(account, command, old, now)
    return (event,) if before is None or _changes(before, event) else ()


def _applied(account: Account, command: ApplyPayment, old: Grant, now: datetime) -> PaymentApplied:
    amount = max(command.amount, old.amount)
    # An operator took it back, for reasons of his own: no fact undoes that, and whatever is added
    # goes the same way.
    reversed_ = max(command.reversed, old.reversed) if old.final else command.reversed
    unspent_before = 0 if old.status == "revoked" else old.unspent + old.expired
    unspent = unspent_before + amount - old.amount
    back = _reverse(old, reversed_, unspent)
    check_debt(account.balance, back.debt)
    unspent += back.restored - back.taken
    status = _status(command, old, now, revoked=old.final or reversed_ == amount)
    cancelled = min(account.balance.debt, back.unclawed)
    newly = unspent if old.status == "frozen" else min(unspent, amount - old.amount + back.restored)
    repaid = min(account.balance.debt - cancelled, newly) if status == "active" else 0
    return PaymentApplied(
        grant=command.grant,
        revision=command.revision,
        amount=amount,
        reversed=reversed_,
        status=status,
        kind=command.kind,
        priority=command.priority,
        scope=command.scope,
        effective_at=old.effective_at,
        expires_at=command.expires_at,
        cost_basis=command.cost_basis,
        source=command.source,
        added=amount - old.amount,
        before=BUCKET_OF[old.status],
        unspent_before=unspent_before,
        unspent=unspent - repaid,
        taken=back.taken,
        debt=back.debt,
        debt_repaid=repaid,
        owing=back.owing,
        restored=back.restored,
        debt_cancelled=cancelled,
        regrant=_regrant(account, command, back.unclawed - cancelled, now),
    )


def _check(account: Account, command: ApplyPayment, before: Grant | None) -> None:
    check_amount("amount", command.amount, lowest=1)
    check_amount("cost_basis", command.cost_basis)
    check_count("reversed", command.reversed, 0, command.amount)
    check_count("priority", command.priority, 0, PRIORITY_MAX)
    check_count("revision", command.revision, 1, 2**53 - 1)
    more = command.amount - (before.amount if before is not None else 0)
    if more > 0:
        check_growth(account, more, grants=before is None)


def _reverse(old: Grant, reversed_: int, unspent: int) -> _Reversal:
    asked = reversed_ - old.reversed
    if asked < 0:
        return _restore(old, -asked)
    taken = unspent if old.final else min(asked, unspent)
    left = max(0, asked - taken)
    more = min(left, old.reserved - old.owing)
    return _Reversal(
        taken=taken,
        owing=old.owing + more,
        # What an operator had taken before is neither unspent nor spent: nobody owes it.
        debt=min(left - more, old.consumed - old.clawed),
    )


def _restore(old: Grant, less: int) -> _Reversal:
    """Take back less: what is owed or owing was taken last, and goes first."""
    unclawed = min(less, old.clawed)
    spared = min(less - unclawed, old.owing)
    return _Reversal(
        owing=old.owing - spared,
        restored=min(less - unclawed - spared, old.taken),
        unclawed=unclawed,
    )


def _regrant(account: Account, command: ApplyPayment, amount: int, now: datetime) -> Regrant | None:
    """Give back what a later grant had repaid of a debt that should not have been."""
    if not amount:
        return None
    check_growth(account, amount)
    return Regrant(
        grant=derived_id("grt", f"{command.grant}\0{command.revision}"),
        amount=amount,
        kind="paid",
        priority=PRIORITY_DEFAULT,
        effective_at=now,
    )


def _status(command: ApplyPayment, old: Grant, now: datetime, *, revoked: bool) -> GrantStatus:
    if revoked:
        return "revoked"
    ends_at = command.expires_at
    if old.status == "expired" or (ends_at is not None and ends_at <= now):
        return "expired"
    return "frozen" if command.frozen else "active"


def _changes(before: Grant, event: PaymentApplied) -> bool:
    return (
        event.added > 0
        or event.reversed != before.reversed
        or event.status != before.status
        or event.expires_at != before.expires_at
        or (event.kind, event.priority) != (before.kind, before.priority)
        or (event.scope, event.cost_basis) != (before.scope, before.cost_basis)
    )
