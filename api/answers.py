"""What answers look like. Amounts are decimal strings, times RFC 3339 in UTC, positions strings.

What an entity has always stands there, null if it is empty; what an answer cannot know is left out.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from ledger.domain.entities import GrantKind, GrantStatus, OperationStatus, Overage

Decimals = Annotated[str, Meta(pattern=r"^-?[0-9]+(\.[0-9]{1,6})?$", examples=["12.5"])]
Position = Annotated[
    str,
    Meta(
        pattern="^[0-9]+$",
        examples=["1042"],
        description="Place in the whole ledger. Give it to a read to see at least this much.",
    ),
]
Cursor = Annotated[
    str | None,
    Meta(description="Give it as `cursor` to read on; null at the end. Opaque."),
]


class BalanceParts(Struct, kw_only=True):
    """Where the credits are.

    granted = available + pending + reserved + consumed + expired + revoked, with `debt` beside it.
    """

    granted: Decimals
    available: Decimals
    pending: Decimals
    reserved: Decimals
    consumed: Decimals
    expired: Decimals
    revoked: Decimals
    debt: Annotated[Decimals, Meta(description="Owed: later grants repay it first.")]
    overdraft_reserved: Annotated[Decimals, Meta(description="Set aside beyond the grants.")]
    overdraft_limit: Decimals


class Slice(Struct):
    """What one grant pays, or gets back."""

    grant: str
    amount: Decimals


class ReturnSlice(Struct):
    """What goes back into one grant, and where it lies from then on."""

    grant: str
    amount: Decimals
    to: Literal["available", "pending", "expired", "revoked"]


class UsageOut(Struct):
    """What a model call consumed."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int


class ProviderRatesOut(Struct):
    """What the provider takes for a million tokens of each kind, in USD."""

    input_per_million: Decimals
    output_per_million: Decimals
    cached_input_per_million: Decimals


class CostPlusOut(Struct):
    """A markup on the provider's cost: USD times `factor` times `credits_per_usd`."""

    factor: Decimals
    credits_per_usd: Decimals


class RatesOut(Struct):
    """Credits for a million tokens of each kind, and what a call costs at least.

    With `cost_plus` a call is priced by the provider's rates; the credits are those, rounded up.
    """

    input_per_million: Decimals
    output_per_million: Decimals
    cached_input_per_million: Decimals
    minimum: Decimals
    provider: ProviderRatesOut | UnsetType = UNSET
    cost_plus: CostPlusOut | UnsetType = UNSET


class PriceOut(Struct, kw_only=True):
    """How an amount came about: the price, its version, the quantities. Rounded up, once."""

    feature: str
    version: int
    amount: Decimals
    unit_price: Decimals | UnsetType = UNSET
    quantity: Decimals | UnsetType = UNSET
    model: str | UnsetType = UNSET
    rates: RatesOut | UnsetType = UNSET
    usage: UsageOut | UnsetType = UNSET
    provider_cost: Annotated[
        Decimals | UnsetType, Meta(description="What the usage costs at the provider, in USD.")
    ] = UNSET


class SourceOut(Struct):
    """Where a grant comes from."""

    type: str
    id: str


class AccountOut(Struct, kw_only=True):
    """An account's properties."""

    id: str
    label: str | None
    overdraft_limit: Decimals
    metadata: dict[str, str]


class AccountAnswer(AccountOut, kw_only=True):
    """An account, put."""

    position: Position
    balance: BalanceParts
    zone: Annotated[
        str | UnsetType,
        Meta(description="IANA time zone; left out: UTC.", examples=["Europe/Berlin"]),
    ] = UNSET


class GrantOut(Struct, kw_only=True):
    """Credits given in one lot.

    amount = available + pending + reserved + consumed + expired + revoked.
    """

    id: str
    account: str
    amount: Decimals
    available: Decimals
    pending: Decimals
    reserved: Decimals
    consumed: Decimals
    expired: Decimals
    revoked: Decimals
    status: GrantStatus
    kind: GrantKind
    priority: int
    scope: list[str]
    effective_at: datetime
    expires_at: datetime | None
    cost_basis: Decimals | None
    source: SourceOut | None
    metadata: dict[str, str]


class GrantAnswer(GrantOut, kw_only=True):
    """A grant, given."""

    reason: str | None
    position: Position
    balance: BalanceParts


class RevocationAnswer(Struct, kw_only=True):
    """A grant, taken back: `amount` was unspent; after a clawback, `debt` is what was spent."""

    grant: str
    account: str
    amount: Decimals
    clawback: bool
    debt: Decimals
    reason: str | None
    position: Position
    balance: BalanceParts


class ReservationState(Struct, kw_only=True):
    """Where a reservation stands. remaining = draws + overdraft: what is still set aside."""

    id: str
    account: str
    status: OperationStatus
    amount: Decimals
    captured: Decimals
    remaining: Decimals
    expires_at: datetime | None
    draws: list[Slice]
    overdraft: Decimals


class ReservationOut(ReservationState, kw_only=True):
    """A reservation."""

    feature: str | None
    price: PriceOut | None
    actor: str | None
    job: str | None
    metadata: dict[str, str]


class ReservationAnswer(ReservationOut, kw_only=True):
    """A reservation, made."""

    position: Position
    balance: BalanceParts


class ReservationChange(ReservationState, kw_only=True):
    """A reservation, released or extended."""

    position: Position
    balance: BalanceParts


class CaptureAnswer(Struct, kw_only=True):
    """Some of a reservation, spent. amount = draws + debt. `deduction` can be refunded."""

    deduction: str
    amount: Decimals
    draws: list[Slice]
    debt: Decimals
    price: PriceOut | None
    reservation: ReservationState
    position: Position
    balance: BalanceParts


class DeductionAnswer(Struct, kw_only=True):
    """Credits, spent in one step. amount = draws + debt."""

    id: str
    account: str
    amount: Decimals
    refunded: Decimals
    draws: list[Slice]
    debt: Decimals
    feature: str | None
    price: PriceOut | None
    actor: str | None
    job: str | None
    metadata: dict[str, str]
    position: Position
    balance: BalanceParts


class NewGrant(Struct, kw_only=True):
    """A grant that a refund or an adjustment made. `debt_repaid` of it went to the debt at once.

    `instead_of` is the expired grant that it stands for.
    """

    id: str
    amount: Decimals
    kind: GrantKind
    scope: list[str]
    expires_at: datetime | None
    instead_of: str | None
    debt_repaid: Decimals


class RefundAnswer(Struct, kw_only=True):
    """Spent credits, given back. `refunded` is the sum of the deduction's refunds so far.

    `returns` go into the grants that paid; `debt_cancelled` is owed no longer; `grants` are made
    where neither can take the credits.
    """

    id: str
    account: str
    deduction: str
    amount: Decimals
    refunded: Decimals
    returns: list[ReturnSlice]
    debt_cancelled: Decimals
    grants: list[NewGrant]
    reason: str | None
    position: Position
    balance: BalanceParts


class AdjustmentAnswer(Struct, kw_only=True):
    """A correction. Up, it makes a `grant`; down, it takes `draws`, and `debt` is owed."""

    id: str
    account: str
    amount: Decimals
    draws: list[Slice]
    debt: Decimals
    grant: NewGrant | None
    reason: str | None
    metadata: dict[str, str]
    position: Position
    balance: BalanceParts


class FeatureOut(Struct, kw_only=True):
    """One version of a feature, and what one unit of it costs (null: it has no unit price)."""

    feature: str
    version: int
    name: str
    unit: str
    unit_price: Decimals | None
    overage: Annotated[Overage | UnsetType, Meta(description="Absent: `reject`.")] = UNSET


class FeatureAnswer(FeatureOut, kw_only=True):
    """A feature, put."""

    position: Position


class RateCardOut(Struct, kw_only=True):
    """One version of a feature's token rates, by model."""

    feature: str
    version: int
    models: dict[str, RatesOut]


class RateCardAnswer(RateCardOut, kw_only=True):
    """A rate card, put."""

    position: Position


class RefundPolicyOut(Struct, kw_only=True):
    """What a refund does with slices of expired grants.

    They lapse (null), or come back as a grant for so many days.
    """

    version: int
    regrant_days: int | None


class RefundPolicyAnswer(RefundPolicyOut, kw_only=True):
    """A refund policy, put."""

    position: Position


class QuoteAnswer(Struct, kw_only=True):
    """What a charge costs now. Advisory: only a reservation holds a price."""

    amount: Decimals
    price: PriceOut | None


class BatchItem(Struct, kw_only=True):
    """What became of one command: the status and the body that it would have got alone."""

    status: int
    body: dict[str, Any]
