"""What a command asks to be paid, in a body: an amount, a quantity, or the tokens of a model."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from api.fields import Amount, Millionths, Name, Text, millionths
from api.routes import Asked
from ledger.domain.entities import Charge, Usage
from ledger.domain.values import TOKENS_MAX

Tokens = Annotated[int, Meta(ge=0, le=TOKENS_MAX)]


class UsageIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model call consumed. Cached input tokens are not counted among the input tokens."""

    input_tokens: Tokens = 0
    output_tokens: Tokens = 0
    cached_input_tokens: Tokens = 0


class Charged(Asked, frozen=True, kw_only=True):
    """A body with exactly one of `amount`, `quantity` (of a `feature`), `usage` (of a `model`)."""

    amount: Amount | UnsetType = UNSET
    feature: Name | UnsetType = UNSET
    quantity: Millionths | UnsetType = UNSET
    model: Text | UnsetType = UNSET
    usage: UsageIn | UnsetType = UNSET

    @property
    def charge(self) -> Charge:
        """The charge, as the ledger takes it."""
        return Charge(
            amount=millionths(self.amount),
            feature=None if isinstance(self.feature, UnsetType) else self.feature,
            quantity=millionths(self.quantity),
            model=None if isinstance(self.model, UnsetType) else self.model,
            usage=None if isinstance(self.usage, UnsetType) else _usage(self.usage),
        )


def _usage(given: UsageIn) -> Usage:
    return Usage(given.input_tokens, given.output_tokens, given.cached_input_tokens)
