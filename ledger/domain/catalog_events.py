"""What happened to a tenant's catalog: each event is a new version of one entry of it.

Amounts are micro-credits, times are UTC. The names these are stored under are in `events`.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from ledger.domain.entities import Overage, Rates
from ledger.domain.offers import Pack, Plan
from ledger.domain.values import Credits


class FeatureSet(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """A feature got a new version of its unit price (None: it has none) from now on."""

    feature: str
    version: int
    name: str
    unit: str = "unit"
    unit_price: Credits | None = None
    overage: Overage = "reject"
    """What becomes of too large a capture or deduction that does not say so itself."""


class RateCardSet(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """A feature got a new version of its token rates, by model, from now on."""

    feature: str
    version: int
    models: dict[str, Rates]


class RefundPolicySet(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """What a refund does with slices of expired grants: they lapse (None), or are granted anew."""

    version: int
    regrant_days: int | None = None


class PlanSet(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """A plan got a new version of its terms, in force from `effective_at` until the next one is.

    `retired`: it is sold no longer. Who has it keeps it, and payments for it still count.
    """

    plan: str
    version: int
    effective_at: datetime
    retired: bool = False
    terms: Plan


class PackSet(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """A pack got a new version of its terms, in force from `effective_at` until the next one is.

    `retired`: it is sold no longer. Payments for it that arrive all the same still count.
    """

    pack: str
    version: int
    effective_at: datetime
    retired: bool = False
    terms: Pack


class ReferralRewardSet(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """What a referral gives to who referred and to who was referred; 0 to both: nothing."""

    version: int
    effective_at: datetime
    referrer: Credits = 0
    referred: Credits = 0
    expires_days: int | None = None


CatalogEvent = FeatureSet | RateCardSet | RefundPolicySet | PlanSet | PackSet | ReferralRewardSet
