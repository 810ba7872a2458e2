"""What an account is made of: grants, operations with their deductions, prices, balances."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct

from ledger.domain.values import Credits, Quantity

GrantKind = Literal["paid", "promotional"]
GrantStatus = Literal["pending", "active", "frozen", "expired", "revoked"]
OperationStatus = Literal["open", "captured", "released", "expired"]
Overage = Literal["reject", "draw", "debt"]
Bucket = Literal["available", "pending", "expired", "revoked"]


class Draw(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What one grant pays or sets aside."""

    grant: str
    amount: Credits


class Return(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """What goes back into one grant, and where it lies from then on."""

    grant: str
    amount: Credits
    to: Bucket = "available"


class Source(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Where a grant comes from: a payment, a plan, an adjustment, a refund."""

    type: str
    id: str


class Usage(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """What a model call consumed. Cached input tokens are not counted among the input tokens."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0


class ProviderRates(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What a model costs at its provider: micro-USD for a million tokens of each kind."""

    input_per_million: int
    output_per_million: int
    cached_input_per_million: int


class CostPlus(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """Credits that are a markup on the provider's cost: USD times `factor` times credits a USD."""

    factor: int
    """In millionths: 1 300 000 is a markup of 30 percent."""
    credits_per_usd: Credits


class Rates(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """What one model costs: micro-credits for a million tokens of each kind; at least `minimum`.

    `provider` is known for some models. With `cost_plus` the price is computed from it, and the
    credits for a million tokens are those, rounded up.
    """

    input_per_million: Credits
    output_per_million: Credits
    cached_input_per_million: Credits
    minimum: Credits = 0
    provider: ProviderRates | None = None
    cost_plus: CostPlus | None = None


class Metered(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """How much of a feature was used: a quantity of its unit, or tokens."""

    quantity: Quantity = 0
    usage: Usage = Usage()

    def plus(self, other: Metered) -> Metered:
        """Return both together."""
        return Metered(
            self.quantity + other.quantity,
            Usage(
                self.usage.input_tokens + other.usage.input_tokens,
                self.usage.output_tokens + other.usage.output_tokens,
                self.usage.cached_input_tokens + other.usage.cached_input_tokens,
            ),
        )

    def beyond(self, other: Metered) -> Metered:
        """Return what this is more than `other`, kind by kind."""
        return Metered(
            max(0, self.quantity - other.quantity),
            Usage(
                max(0, self.usage.input_tokens - other.usage.input_tokens),
                max(0, self.usage.output_tokens - other.usage.output_tokens),
                max(0, self.usage.cached_input_tokens - other.usage.cached_input_tokens),
            ),
        )


class Price(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """How an amount came about: the price and its version, the quantities, the result.

    Either `unit_price` and `quantity`, or `model`, `rates`, `usage`. `amount` is rounded up, once.
    `provider_cost` is what the usage costs at the provider, in micro-USD, where that is known.
    """

    feature: str
    version: int
    amount: Credits
    unit_price: Credits | None = None
    quantity: Quantity | None = None
    model: str | None = None
    rates: Rates | None = None
    usage: Usage | None = None
    provider_cost: int | None = None

    @property
    def metered(self) -> Metered:
        """The quantities that this price was worked out from."""
        return Metered(self.quantity or 0, self.usage or Usage())


class Charge(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a command asks to be paid: an `amount`, a `quantity`, or a `usage` of a `model`.

    Exactly one of the three; where none is named, the command's own rule applies.
    """

    amount: Credits | None = None
    feature: str | None = None
    quantity: Quantity | None = None
    model: str | None = None
    usage: Usage | None = None


class Grant(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Credits given in one lot.

    amount = available + pending + reserved + consumed + expired + revoked.
    Only an active grant has anything available; what is unspent of a pending or frozen one is
    pending. `sequence` is the version of the account at which it was granted.

    Of a payment's grant, `reversed` is what was taken back of what it gave, because the money went
    back: first what was unspent, then `owing` of what is set aside (taken if it comes back, debt if
    it is spent), then what was spent: `clawed`, of which debt was made. `taken` is revoked for it.
    `revision` says how many facts about the payment were known; `final`, that an operator has
    revoked it: no fact gives any of it back.
    """

    id: str
    amount: Credits
    kind: GrantKind
    priority: int
    scope: tuple[str, ...] = ()
    effective_at: datetime
    expires_at: datetime | None = None
    cost_basis: int | None = None
    sequence: int
    status: GrantStatus = "active"
    clawed_back: bool = False
    available: Credits = 0
    pending: Credits = 0
    reserved: Credits = 0
    consumed: Credits = 0
    expired: Credits = 0
    revoked: Credits = 0
    reversed: Credits = 0
    taken: Credits = 0
    owing: Credits = 0
    clawed: Credits = 0
    revision: int = 0
    final: bool = False

    @property
    def unspent(self) -> int:
        """What could be spent, now or once it is effective or thawed."""
        return self.available + self.pending

    def covers(self, feature: str | None) -> bool:
        """Tell whether this grant may pay for `feature`. An unscoped grant pays for everything."""
        return not self.scope or feature in self.scope


class Deduction(Struct, frozen=True, omit_defaults=True, gc=False):
    """One spending: which grants paid, in the order they were drawn, and what became debt, last."""

    id: str
    amount: Credits
    draws: tuple[Draw, ...] = ()
    debt: Credits = 0
    refunded: Credits = 0


class Operation(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A reservation, or a direct deduction (born closed), with the deductions made under it.

    `pinned` are the slices still set aside, `overdraft` what is still set aside beyond the grants.
    `metered` is what its captures have counted, `changes` its events since the first.
    """

    id: str
    status: OperationStatus
    amount: Credits
    captured: Credits = 0
    pinned: tuple[Draw, ...] = ()
    overdraft: Credits = 0
    expires_at: datetime | None = None
    feature: str | None = None
    price: Price | None = None
    actor: str | None = None
    job: str | None = None
    metered: Metered = Metered()
    deductions: tuple[Deduction, ...] = ()
    changes: int = 0

    @property
    def remaining(self) -> int:
        """What is still set aside, in micro-credits."""
        return sum([draw.amount for draw in self.pinned]) + self.overdraft


class Balance(Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """Where an account's credits are.

    granted = available + pending + reserved + consumed + expired + revoked, with `debt` beside it.
    `overdraft_reserved` is set aside beyond the grants; `due_at` is when time changes this next.
    """

    granted: Credits = 0
    available: Credits = 0
    pending: Credits = 0
    reserved: Credits = 0
    consumed: Credits = 0
    expired: Credits = 0
    revoked: Credits = 0
    debt: Credits = 0
    overdraft_reserved: Credits = 0
    overdraft_limit: Credits = 0
    due_at: datetime | None = None

    def holds(self) -> bool:
        """Tell whether the identity is true and nothing is below zero."""
        parts = (
            self.available,
            self.pending,
            self.reserved,
            self.consumed,
            self.expired,
            self.revoked,
        )
        return (
            self.granted == sum(parts)
            and min(parts) >= 0
            and self.debt >= 0
            and self.overdraft_reserved >= 0
        )
