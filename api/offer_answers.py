"""What plans, packs and the referral reward look like in answers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from api.answers import Decimals, Position
from ledger.domain.entities import GrantKind
from ledger.domain.offers import Period, Rollover

EffectiveAt = Annotated[
    datetime, Meta(description="From when this version is in force, until the next one is.")
]
Retired = Annotated[
    bool, Meta(description="Sold no longer. What is paid for it all the same still counts.")
]


class MoneyOut(Struct):
    """A price, in the currency's smallest unit."""

    amount: int
    currency: str


class ProviderIdsOut(Struct):
    """Under which ids payment providers sell this."""

    stripe: list[str]
    clerk: list[str]
    asaas: list[str]


class PlanOut(Struct, kw_only=True):
    """One version of a plan: credits every period."""

    plan: str
    version: int
    effective_at: EffectiveAt
    retired: Retired
    name: str
    price: MoneyOut | None
    credits: Decimals
    period: Period
    rollover: Rollover
    rollover_max: Decimals | None
    kind: GrantKind
    priority: int
    trial_credits: Decimals
    trial_days: int
    checkout_url: str | None
    fallback: bool
    providers: ProviderIdsOut


class PlanAnswer(PlanOut, kw_only=True):
    """A plan, put."""

    position: Position


class PackOut(Struct, kw_only=True):
    """One version of a pack: credits once, for one payment."""

    pack: str
    version: int
    effective_at: EffectiveAt
    retired: Retired
    name: str
    price: MoneyOut | None
    credits: Decimals
    bonus: Decimals
    expires_days: int | None
    priority: int
    providers: ProviderIdsOut


class PackAnswer(PackOut, kw_only=True):
    """A pack, put."""

    position: Position


class ReferralRewardOut(Struct, kw_only=True):
    """What a referral gives to who referred and to who was referred.

    Before the first is put it is version 0, and nothing.
    """

    version: int
    effective_at: datetime | None
    referrer: Decimals
    referred: Decimals
    expires_days: int | None


class ReferralRewardAnswer(ReferralRewardOut, kw_only=True):
    """A referral reward, put."""

    position: Position
