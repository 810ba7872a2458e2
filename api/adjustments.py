"""Adjustments: an operator's corrections, with a reason."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from api.answers import AdjustmentAnswer
from api.fields import Metadata, Moment, Reason, SignedAmount, moment
from api.routes import ADMIN, WRITE_REFUSALS, Asked, Write
from ledger.domain.commands import Adjust
from ledger.domain.entities import GrantKind
from ledger.domain.errors import (
    AccountNotFound,
    InsufficientCredits,
    InvalidCommand,
    LimitReached,
)


class AdjustmentIn(Asked, frozen=True, kw_only=True):
    """How much to correct the balance by, up or down, and why."""

    amount: SignedAmount
    reason: Reason
    kind: Annotated[GrantKind, Meta(description="Of the new grant. Up only.")] = "promotional"
    expires_at: Annotated[Moment | None, Meta(description="Of the new grant. Up only.")] = None
    overage: Annotated[
        Literal["reject", "debt"],
        Meta(description="Down only: with `debt`, what the account has not got becomes debt."),
    ] = "reject"
    metadata: Metadata = {}

    def command(self, target: str | None) -> Adjust:
        """Return the command."""
        del target
        return Adjust(
            amount=self.amount.value,
            kind=self.kind,
            expires_at=moment(self.expires_at),
            overage=self.overage,
            metadata=self.metadata,
        )


CREATE_ADJUSTMENT = Write(
    method="POST",
    path="/v1/accounts/{account}/adjustments",
    name="create_adjustment",
    tag="adjustments",
    summary="Correct a balance, up or down",
    details="Up makes a grant; down takes from the grants in burn-down order.",
    roles=ADMIN,
    refusals=(AccountNotFound, InvalidCommand, LimitReached, InsufficientCredits, *WRITE_REFUSALS),
    op="adjust",
    body=AdjustmentIn,
    answer=AdjustmentAnswer,
    statuses=(201,),
)
