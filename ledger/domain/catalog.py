"""What a tenant sells and what it costs: every version ever put, and the rules for putting one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar, assert_never

from msgspec import Struct, field

from ledger.domain.bounds import check_amount, check_count, check_name
from ledger.domain.catalog_events import (
    CatalogEvent,
    FeatureSet,
    PackSet,
    PlanSet,
    RateCardSet,
    ReferralRewardSet,
    RefundPolicySet,
)
from ledger.domain.commands import (
    CatalogCommand,
    SetFeature,
    SetPack,
    SetPlan,
    SetRateCard,
    SetReferralReward,
    SetRefundPolicy,
)
from ledger.domain.costs import checked_rates
from ledger.domain.entities import Overage
from ledger.domain.errors import InvalidCommand
from ledger.domain.offering import Offer, check_only_fallback, check_only_seller, in_force
from ledger.domain.offers import Provider, check_pack, check_plan
from ledger.domain.values import EXPIRES_DAYS_MAX, REGRANT_DAYS_MAX

Dated = TypeVar("Dated", PlanSet, PackSet, ReferralRewardSet)


class Catalog(Struct):
    """A tenant's catalog, folded from its events. Versions count from 1."""

    version: int = 0
    features: dict[str, list[FeatureSet]] = field(default_factory=dict)
    rate_cards: dict[str, list[RateCardSet]] = field(default_factory=dict)
    refund_policies: list[RefundPolicySet] = field(default_factory=list)
    plans: dict[str, list[PlanSet]] = field(default_factory=dict)
    packs: dict[str, list[PackSet]] = field(default_factory=dict)
    referral_rewards: list[ReferralRewardSet] = field(default_factory=list)

    @property
    def regrant_days(self) -> int | None:
        """How long a refund's new grant lives where the old one has expired; None: it lapses."""
        return self.refund_policies[-1].regrant_days if self.refund_policies else None

    def copy(self) -> Catalog:
        """Return a catalog that does not change when this one does."""
        return Catalog(
            self.version,
            {name: versions.copy() for name, versions in self.features.items()},
            {name: versions.copy() for name, versions in self.rate_cards.items()},
            self.refund_policies.copy(),
            {name: versions.copy() for name, versions in self.plans.items()},
            {name: versions.copy() for name, versions in self.packs.items()},
            self.referral_rewards.copy(),
        )


def plan_at(catalog: Catalog, key: str, when: datetime) -> PlanSet | None:
    """Return the version of a plan that is in force at `when`, retired or not; None if none is."""
    return in_force(catalog.plans.get(key, ()), when)


def pack_at(catalog: Catalog, key: str, when: datetime) -> PackSet | None:
    """Return the version of a pack that is in force at `when`, retired or not; None if none is."""
    return in_force(catalog.packs.get(key, ()), when)


def fallback_at(catalog: Catalog, when: datetime) -> PlanSet | None:
    """Return the plan that an account is on at `when` if it is on no other: at most one is."""
    found = (plan_at(catalog, key, when) for key in catalog.plans)
    return next((plan for plan in found if plan is not None and plan.terms.fallback), None)


def referral_reward_at(catalog: Catalog, when: datetime) -> ReferralRewardSet | None:
    """Return what a referral gives at `when`; None if nothing was ever said."""
    return in_force(catalog.referral_rewards, when)


def offer_of(
    catalog: Catalog, provider: Provider, provider_id: str, when: datetime
) -> Offer | None:
    """Return what is paid for under a provider's id at `when`: by the versions in force then.

    At most one is. A retired one counts too: only the shop sells it no longer.
    """
    found: list[Offer | None] = [plan_at(catalog, key, when) for key in catalog.plans]
    found += [pack_at(catalog, key, when) for key in catalog.packs]
    for offer in found:
        if offer is not None and provider_id in offer.terms.providers.of(provider):
            return offer
    return None


def first_offer_of(catalog: Catalog, provider: Provider, provider_id: str) -> Offer | None:
    """Return the first version that ever sold anything under a provider's id; None if none did.

    For a payment from before that: providers tell times in seconds, or even days, and what is sold
    may be put into the catalog after the first payment.
    """
    versions: list[Offer] = [one for plans in catalog.plans.values() for one in plans]
    versions += [one for packs in catalog.packs.values() for one in packs]
    sold = [one for one in versions if provider_id in one.terms.providers.of(provider)]
    return min(sold, key=lambda one: one.effective_at, default=None)


def overage_of(catalog: Catalog, feature: str | None) -> Overage:
    """Return what becomes of what is too much for a feature, where the command does not say so."""
    versions = () if feature is None else catalog.features.get(feature, ())
    return versions[-1].overage if versions else "reject"


def decide_catalog(catalog: Catalog, command: CatalogCommand, now: datetime) -> CatalogEvent:
    """Return the new version that `command` makes at `now`."""
    match command:
        case SetFeature():
            check_amount("unit_price", command.unit_price)
            return FeatureSet(
                feature=command.feature,
                version=len(catalog.features.get(command.feature, ())) + 1,
                name=command.name,
                unit=command.unit,
                unit_price=command.unit_price,
                overage=command.overage,
            )
        case SetRateCard():
            return _rate_card(catalog, command)
        case SetRefundPolicy():
            check_count("regrant_days", command.regrant_days, 1, REGRANT_DAYS_MAX)
            return RefundPolicySet(
                version=len(catalog.refund_policies) + 1, regrant_days=command.regrant_days
            )
        case SetPlan():
            return _plan(catalog, command, now)
        case SetPack():
            return _pack(catalog, command, now)
        case SetReferralReward():
            return _referral_reward(catalog, command, now)
        case _:
            assert_never(command)


def _rate_card(catalog: Catalog, command: SetRateCard) -> RateCardSet:
    if not command.models:
        raise InvalidCommand(field="models", rule="must name at least one model")
    return RateCardSet(
        feature=command.feature,
        version=len(catalog.rate_cards.get(command.feature, ())) + 1,
        models={model: checked_rates(model, rates) for model, rates in command.models.items()},
    )


def _plan(catalog: Catalog, command: SetPlan, now: datetime) -> PlanSet:
    check_name("plan", command.plan)
    check_plan(command.terms, retired=command.retired)
    versions = catalog.plans.get(command.plan, [])
    plan = PlanSet(
        plan=command.plan,
        version=len(versions) + 1,
        effective_at=_effective_at(versions, command.effective_at, now),
        retired=command.retired,
        terms=command.terms,
    )
    check_only_fallback(plan, catalog.plans)
    check_only_seller(plan, catalog.plans, catalog.packs)
    return plan


def _pack(catalog: Catalog, command: SetPack, now: datetime) -> PackSet:
    check_name("pack", command.pack)
    check_pack(command.terms)
    versions = catalog.packs.get(command.pack, [])
    pack = PackSet(
        pack=command.pack,
        version=len(versions) + 1,
        effective_at=_effective_at(versions, command.effective_at, now),
        retired=command.retired,
        terms=command.terms,
    )
    check_only_seller(pack, catalog.plans, catalog.packs)
    return pack


def _referral_reward(
    catalog: Catalog, command: SetReferralReward, now: datetime
) -> ReferralRewardSet:
    check_amount("referrer", command.referrer)
    check_amount("referred", command.referred)
    check_count("expires_days", command.expires_days, 1, EXPIRES_DAYS_MAX)
    versions = catalog.referral_rewards
    return ReferralRewardSet(
        version=len(versions) + 1,
        effective_at=_effective_at(versions, command.effective_at, now),
        referrer=command.referrer,
        referred=command.referred,
        expires_days=command.expires_days,
    )


def _effective_at(versions: Sequence[Dated], asked: datetime | None, now: datetime) -> datetime:
    """Return from when a new version is in force. What is put first is never in force last."""
    effective_at = asked or now
    if versions and effective_at < versions[-1].effective_at:
        before = versions[-1].effective_at.isoformat().replace("+00:00", "Z")
        raise InvalidCommand(
            field="effective_at",
            rule=f"must not be before that of the version before it, which is {before}",
        )
    return effective_at


def evolve_catalog(catalog: Catalog, event: CatalogEvent) -> None:
    """Change `catalog` by one event."""
    catalog.version += 1
    match event:
        case FeatureSet():
            catalog.features.setdefault(event.feature, []).append(event)
        case RateCardSet():
            catalog.rate_cards.setdefault(event.feature, []).append(event)
        case RefundPolicySet():
            catalog.refund_policies.append(event)
        case PlanSet():
            catalog.plans.setdefault(event.plan, []).append(event)
        case PackSet():
            catalog.packs.setdefault(event.pack, []).append(event)
        case ReferralRewardSet():
            catalog.referral_rewards.append(event)
        case _:
            assert_never(event)
