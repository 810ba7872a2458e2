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
from ledger.domain.events import PaymentApplied
from ledger.domain.values import PRIORITY_MAX


class _Reversal(Struct, frozen=True):
    """Where what is taken back comes from."""

    taken: int
    owing: int
    debt: int


def apply_payment(
    account: Account, command: ApplyPayment, now: datetime
) -> tuple[PaymentApplied, ...]:
    """Bring a payment's grant to what `command` says; nothing, if it is there or further.

    What is taken back comes first out of what is unspent, an expired grant's included; then out of
    what is set aside, once that is spent or comes back; what was spent becomes debt.
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
    amount = max(command.amount, old.amount)
    reversed_ = max(command.reversed, old.reversed)
    # An operator took it back, for reasons of his own: whatever is added goes the same way.
    revoked = old.status == "revoked" and old.reversed < old.amount
    unspent_before = 0 if old.status == "revoked" else old.unspent + old.expired
    unspent = unspent_before + amount - old.amount
    back = _reverse(old, reversed_, unspent, everything=revoked)
    check_debt(account.balance, back.debt)
    unspent -= back.taken
    status = _status(command, old, now, revoked=revoked or reversed_ == amount)
    newly = unspent if old.status == "frozen" else min(unspent, amount - old.amount)
    repaid = min(account.balance.debt, newly) if status == "active" else 0
    event = PaymentApplied(
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
    )
    return (event,) if before is None or _changes(before, event) else ()


def _check(account: Account, command: ApplyPayment, before: Grant | None) -> None:
    check_amount("amount", command.amount, lowest=1)
    check_amount("cost_basis", command.cost_basis)
    check_count("reversed", command.reversed, 0, command.amount)
    check_count("priority", command.priority, 0, PRIORITY_MAX)
    check_count("revision", command.revision, 1, 2**53 - 1)
    more = command.amount - (before.amount if before is not None else 0)
    if more > 0:
        check_growth(account, more, grants=before is None)


def _reverse(old: Grant, reversed_: int, unspent: int, *, everything: bool) -> _Reversal:
    asked = reversed_ - old.reversed
    taken = unspent if everything else min(asked, unspent)
    left = max(0, asked - taken)
    more = min(left, old.reserved - old.owing)
    return _Reversal(
        taken=taken,
        owing=old.owing + more,
        # What an operator had taken before is neither unspent nor spent: nobody owes it.
        debt=min(left - more, old.consumed - old.clawed),
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
        or event.reversed > before.reversed
        or event.status != before.status
        or event.expires_at != before.expires_at
        or (event.kind, event.priority) != (before.kind, before.priority)
        or (event.scope, event.cost_basis) != (before.scope, before.cost_basis)
    )
