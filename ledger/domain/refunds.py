"""Giving spent credits back: last drawn first, into the grants that paid."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec import Struct

from ledger.domain.account import Account
from ledger.domain.bounds import check_changes
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

    debt_left: int
    returns: list[Return] = []
    lapsed: dict[str, int] = {}
    """By expired grant, what a new grant shall give instead."""
    clawback_cancelled: int = 0
    taken: dict[str, int] = {}
    """By grant, how much of what had been taken back of it is now made good by what returns."""
    repaid: int = 0
    """What had been debt that later grants have repaid since: it comes back as a grant."""


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
    split = _Split(debt_left=account.balance.debt - debt_cancelled)
    for piece in slices:
        _return_slice(split, account.grants[piece.grant], piece.amount)
    debt_regranted = was_debt - debt_cancelled
    split.repaid += debt_regranted
    assert amount == total(split.returns) + debt_cancelled + debt_regranted
    return CreditsRefunded(
        refund=derived_id("rfd", key),
        deduction=deduction.id,
        amount=amount,
        returns=tuple(split.returns),
        debt_cancelled=debt_cancelled,
        debt_regranted=debt_regranted,
        clawback_cancelled=split.clawback_cancelled,
        regrants=_regrants(split, account, now, key, regrant_days),
        refunded=deduction.refunded + amount,
    )


def _find(account: Account, name: str) -> Deduction:
    operation = account.operation(operation_of(name))
    for deduction in operation.deductions if operation else ():
        if deduction.id == name:
            assert operation is not None
            check_changes(operation.changes)
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


def _return_slice(split: _Split, grant: Grant, amount: int) -> None:
    taken = split.taken.get(grant.id, 0)
    gone = min(amount, grant.clawed + grant.owing - taken)
    clawed = min(gone, max(0, grant.clawed - taken))
    if gone:
        split.taken[grant.id] = taken + gone
        split.returns.append(Return(grant.id, gone, "revoked"))
    if clawed:
        # A clawback had made debt of this slice. It was not spent after all, so it is not owed;
        # and where a later grant has repaid that debt already, the credits come back.
        cancelled = min(clawed, split.debt_left)
        split.debt_left -= cancelled
        split.clawback_cancelled += cancelled
        split.repaid += clawed - cancelled
    rest = amount - gone
    if rest:
        split.returns.append(Return(grant.id, rest, BUCKET_OF[grant.status]))
        if grant.status == "expired":
            split.lapsed[grant.id] = split.lapsed.get(grant.id, 0) + rest


def _regrants(
    split: _Split, account: Account, now: datetime, key: str, regrant_days: int | None
) -> tuple[Regrant, ...]:
    """Return the new grants, whose first use is to repay what debt there is."""
    regrants: list[Regrant] = []
    if regrant_days is not None:
        for name, amount in split.lapsed.items():
            old = account.grants[name]
            regrants.append(
                Regrant(
                    grant=derived_id("grt", f"{key}\0{len(regrants) + 1}"),
                    amount=amount,
                    kind=old.kind,
                    priority=old.priority,
                    scope=old.scope,
                    effective_at=now,
                    expires_at=now + timedelta(days=regrant_days),
                    cost_basis=old.cost_basis,
                    instead_of=name,
                    debt_repaid=_repay(split, amount),
                )
            )
    if split.repaid:
        regrants.append(
            Regrant(
                grant=derived_id("grt", f"{key}\0{len(regrants) + 1}"),
                amount=split.repaid,
                kind="paid",
                priority=PRIORITY_DEFAULT,
                effective_at=now,
                debt_repaid=_repay(split, split.repaid),
            )
        )
    return tuple(regrants)


def _repay(split: _Split, amount: int) -> int:
    repaid = min(split.debt_left, amount)
    split.debt_left -= repaid
    return repaid
