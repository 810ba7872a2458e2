"""What reads answer: entities as lists and pages show them, and sums."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from api.answers import (
    AccountOut,
    BalanceParts,
    Decimals,
    GrantOut,
    Position,
    PriceOut,
    ReservationOut,
    UsageOut,
)


class AccountEntry(AccountOut, kw_only=True):
    """An account, with its balance."""

    opened_at: datetime
    updated_at: datetime
    balance: BalanceParts


class AccountDetail(AccountEntry, kw_only=True):
    """An account, with its balance at a moment."""

    position: Position
    as_of: datetime


class GrantEntry(GrantOut, kw_only=True):
    """A grant, and who gave it."""

    clawed_back: bool
    granted_by: Annotated[str, Meta(examples=["key:key_4fTz"])]
    granted_at: datetime
    reason: str | None


class GrantDetail(GrantEntry, kw_only=True):
    """A grant at a moment."""

    position: Position
    as_of: datetime


class ReservationEntry(ReservationOut, kw_only=True):
    """A reservation, and when it was made."""

    created_at: datetime
    updated_at: datetime


class ReservationDetail(ReservationEntry, kw_only=True):
    """A reservation at a moment."""

    position: Position
    as_of: datetime


class BalanceAnswer(BalanceParts, kw_only=True):
    """An account's balance at a moment."""

    account: str
    position: Position
    as_of: datetime


class UsageEntry(Struct, kw_only=True):
    """One deduction: what was spent, on what, by whom. amount = what grants paid + debt."""

    deduction: str
    reservation: str | None
    amount: Decimals
    debt: Decimals
    refunded: Decimals
    feature: str | None
    model: str | None
    quantity: Decimals | None
    usage: UsageOut | None
    price: PriceOut | None
    provider_cost: Annotated[
        Decimals | None, Meta(description="What it cost at the provider, in USD; null: not known.")
    ]
    actor: str | None
    job: str | None
    metadata: dict[str, str]
    occurred_at: datetime | None
    recorded_at: datetime
    position: Position


class UsageSums(Struct, kw_only=True):
    """Sums over deductions."""

    amount: Decimals
    refunded: Decimals
    quantity: Decimals
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    count: Annotated[int, Meta(description="Deductions.")]


class UsageGroupOut(UsageSums, kw_only=True):
    """The sums of one hour or day (`start`), or of one feature, model or actor (`name`)."""

    start: datetime | None
    name: str | None


class UsageReport(Struct, kw_only=True):
    """Usage in groups, which add up to `total`. Groups without usage are left out."""

    group_by: Literal["hour", "day", "feature", "model", "actor"]
    time_zone: str
    data: list[UsageGroupOut]
    total: UsageSums
    position: Position
    as_of: datetime


class EventOut(Struct, kw_only=True):
    """One event of the ledger: who did what to which account, when and why."""

    position: Position
    account: Annotated[str | None, Meta(description="null: the tenant's catalog.")]
    version: Annotated[int, Meta(description="Place in the account's own events, from 1.")]
    name: Annotated[str, Meta(examples=["credits.reserved.v1"])]
    recorded_at: datetime
    occurred_at: datetime | None
    actor: Annotated[str, Meta(description="On whose authority.", examples=["key:key_4f…"])]
    reason: str | None
    key: Annotated[str | None, Meta(description="The Idempotency-Key of the command.")]
    data: Annotated[dict[str, Any], Meta(description="The event itself; see docs/events.md.")]
