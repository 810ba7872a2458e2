"""Giving spent credits back: last drawn first, into the grants that paid."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec import Struct

from ledger.domain.account import Account
from ledger.domain.burndown import BUCKET_OF, total
from ledger.domain.commands import Refund
from ledger.domain.entities import Deduction, Draw, Grant, Return
from ledger.domain.errors import (
    DeductionNotFound,
    InvalidCommand,
    RefundExceedsDeduction,
)
from ledger.domain.events import CreditsRefunded, Regrant, operation_of
from ledger.domain.values import PRIORITY_DEFAULT, derived_id


class _Split(Struct):
    """How the slices of a refund end up, while it is being decided."""

    returns: list[Return]
    debt_left: int
    clawback_cancelled: int = 0
    regranted: int = 0
    regrant_lives: bool = True
    """Whether the new grant gets a stated life; credits that repaid a debt come back without end."""
    promotional_only: bool = True


def refund(
    account: Account, command: Refund, now: datetime, key: str, regrant_days: int | None
) -> CreditsRefunded:
    """Give back all or part of a deduction. The sum of its refunds never exceeds it."""
    deduction = _find(account, command.deduction)
    refundable = deduction.amount - deduction.refunded
    amount = refundable if command.amount is None else command.amount
    if amount > refundable or refundable == 0:
        raise RefundExceedsDeduction(deduction=deduction.id, asked=amount, refundable=refundable)
    if amount <= 0:
        raise InvalidCommand(field="amount", rule="must be more than 0")
    slices, was_debt = _last_drawn(deduction, amount)
    debt_cancelled = min(was_debt, account.balance.debt)
    split = _Split(returns=[], debt_left=account.balance.debt - debt_cancelled)
    for piece in slices:
        _return_slice(split, account.grants[piece.grant], piece.amount, regrant_days)
    debt_regranted = was_debt - debt_cancelled
    if debt_regranted:
        split.regranted += debt_regranted
        split.regrant_lives = split.promotional_only = False
    assert amount == total(split.returns) + debt_cancelled + debt_regranted
    return CreditsRefunded(
        refund=derived_id("rfd", key),
        deduction=deduction.id,
        amount=amount,
        returns=tuple(split.returns),
        debt_cancelled=debt_cancelled,
        debt_regranted=debt_regranted,
        clawback_cancelled=split.clawback_cancelled,
        regrant=_regrant(split, now, key, regrant_days),
        refunded=deduction.refunded + amount,
    )


def _find(account: Account, name: str) -> Deduction:
    operation = account.operations.get(operation_of(name))
    for deduction in operation.deductions if operation else ():
        if deduction.id == name:
            return deduction
    raise DeductionNotFound(deduction=name)


def _last_drawn(deduction: Deduction, amount: int) -> tuple[list[Draw], int]:
    """Return the slices that make up the next `amount` to refund, last drawn first, and its debt.

    What became debt was drawn last of all. What was refunded before is passed over.
    """
    passed = deduction.refunded
    was_debt = min(amount, max(0, deduction.debt - passed))
    passed -= min(passed, deduction.debt)
    amount -= was_debt
    slices = []
    for draw in reversed(deduction.draws):
        skipped = min(passed, draw.amount)
        passed -= skipped
        part = min(amount, draw.amount - skipped)
        amount -= part
        if part:
            slices.append(Draw(draw.grant, part))
    assert amount == 0
    return slices, was_debt


def _return_slice(split: _Split, grant: Grant, amount: int, regrant_days: int | None) -> None:
    split.returns.append(Return(grant.id, amount, BUCKET_OF[grant.status]))
    if grant.clawed_back:
        # The clawback had made debt of this slice. It was not spent after all, so it is not owed;
        # and where a later grant has repaid that debt already, the credits come back.
        cancelled = min(amount, split.debt_left)
        split.debt_left -= cancelled
        split.clawback_cancelled += cancelled
        if amount > cancelled:
            split.regranted += amount - cancelled
            split.regrant_lives = split.promotional_only = False
    elif grant.status == "expired" and regrant_days is not None:
        split.regranted += amount
        split.promotional_only = split.promotional_only and grant.kind == "promotional"


def _regrant(split: _Split, now: datetime, key: str, regrant_days: int | None) -> Regrant | None:
    if split.regranted == 0:
        return None
    life = timedelta(days=regrant_days or 0)
    return Regrant(
        grant=derived_id("grt", key),
        amount=split.regranted,
        kind="promotional" if split.promotional_only else "paid",
        priority=PRIORITY_DEFAULT,
        effective_at=now,
        expires_at=now + life if split.regrant_lives else None,
        debt_repaid=min(split.debt_left, split.regranted),
    )
