"""Deductions: spend in one step, and give spent credits back."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from api.answers import DeductionAnswer, RefundAnswer
from api.charges import Charged
from api.fields import Amount, Metadata, Reason, Text, millionths
from api.reservations import AtLeast, NewId
from api.routes import SPENDERS, WRITE_REFUSALS, Asked, Write
from ledger.domain.commands import Deduct, Refund
from ledger.domain.entities import Overage
from ledger.domain.errors import (
    AccountNotFound,
    DeductionNotFound,
    InsufficientCredits,
    InvalidCommand,
    LimitReached,
    OperationExists,
    PriceNotFound,
    RefundExceedsDeduction,
)


class DeductionIn(Charged, frozen=True, kw_only=True):
    """What to spend: an `amount`, or what a `quantity` or a `usage` of a feature costs."""

    id: NewId = None
    at_least: AtLeast = UNSET
    overage: Annotated[
        Overage | None,
        Meta(
            description="With `debt`, what the account has not got becomes debt."
            " Null: as the feature says."
        ),
    ] = None
    actor: Text | None = None
    job: Text | None = None
    metadata: Metadata = {}

    def command(self, target: str | None) -> Deduct:
        """Return the command."""
        del target
        return Deduct(
            id=self.id,
            charge=self.charge,
            at_least=millionths(self.at_least),
            overage=self.overage,
            actor=self.actor,
            job=self.job,
            metadata=self.metadata,
        )


class RefundIn(Asked, frozen=True, kw_only=True):
    """How much to give back, and why. Without an amount, all that is left."""

    amount: Amount | UnsetType = UNSET
    reason: Reason

    def command(self, target: str | None) -> Refund:
        """Return the command."""
        assert target is not None
        return Refund(deduction=target, amount=millionths(self.amount))


CREATE_DEDUCTION = Write(
    method="POST",
    path="/v1/accounts/{account}/deductions",
    name="create_deduction",
    tag="deductions",
    summary="Spend in one step",
    roles=SPENDERS,
    refusals=(
        AccountNotFound,
        OperationExists,
        InvalidCommand,
        PriceNotFound,
        InsufficientCredits,
        *WRITE_REFUSALS,
    ),
    op="deduct",
    body=DeductionIn,
    answer=DeductionAnswer,
    statuses=(201,),
)
CREATE_REFUND = Write(
    method="POST",
    path="/v1/accounts/{account}/deductions/{deduction}/refunds",
    name="create_refund",
    tag="deductions",
    summary="Give spent credits back, into the grants that paid",
    details="`deduction` is the id of a direct deduction, or the `deduction` that a capture"
    " answered. Refunds of one deduction never exceed it.",
    roles=SPENDERS,
    refusals=(
        AccountNotFound,
        DeductionNotFound,
        RefundExceedsDeduction,
        LimitReached,
        *WRITE_REFUSALS,
    ),
    op="refund",
    target="deduction",
    body=RefundIn,
    answer=RefundAnswer,
    statuses=(201,),
)
