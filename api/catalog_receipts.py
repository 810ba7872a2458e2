"""Versions of the catalog's entries as answers: those of a write, and of every read after it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, assert_never

from msgspec import UNSET, Struct
from msgspec.structs import astuple

from api import answers, offer_answers
from ledger.domain.catalog_events import (
    CatalogEvent,
    FeatureSet,
    PackSet,
    PlanSet,
    RateCardSet,
    ReferralRewardSet,
    RefundPolicySet,
)
from ledger.domain.entities import Rates
from ledger.domain.offers import Money, ProviderIds
from ledger.domain.values import format_decimal

decimal: Final = lru_cache(maxsize=4_096)(format_decimal)
"""Amounts and prices as decimals: each answer has the same few several times. Not for balances."""


def catalog_answer(position: int, event: CatalogEvent) -> Struct:
    """Return the answer to the command that put this version."""
    at = str(position)
    match event:
        case FeatureSet():
            return answers.FeatureAnswer(**feature_members(event), position=at)
        case RateCardSet():
            return answers.RateCardAnswer(**rate_card_members(event), position=at)
        case RefundPolicySet():
            return answers.RefundPolicyAnswer(
                version=event.version, regrant_days=event.regrant_days, position=at
            )
        case PlanSet():
            return offer_answers.PlanAnswer(**plan_members(event), position=at)
        case PackSet():
            return offer_answers.PackAnswer(**pack_members(event), position=at)
        case ReferralRewardSet():
            return offer_answers.ReferralRewardAnswer(**reward_members(event), position=at)
        case _:
            assert_never(event)


def rates_out(rates: Rates) -> answers.RatesOut:
    """Return the rates of one model."""
    out = answers.RatesOut(
        input_per_million=decimal(rates.input_per_million),
        output_per_million=decimal(rates.output_per_million),
        cached_input_per_million=decimal(rates.cached_input_per_million),
        minimum=decimal(rates.minimum),
    )
    if rates.provider is not None:
        out.provider = answers.ProviderRatesOut(*map(decimal, astuple(rates.provider)))
    if rates.cost_plus is not None:
        out.cost_plus = answers.CostPlusOut(*map(decimal, astuple(rates.cost_plus)))
    return out


def feature_members(event: FeatureSet) -> dict[str, Any]:
    """Return one version of a feature."""
    price = event.unit_price
    return {
        "feature": event.feature,
        "version": event.version,
        "name": event.name,
        "unit": event.unit,
        "unit_price": None if price is None else decimal(price),
        # Answers from before it could be put stay as they were.
        "overage": UNSET if event.overage == "reject" else event.overage,
    }


def rate_card_members(event: RateCardSet) -> dict[str, Any]:
    """Return one version of a rate card."""
    models = {model: rates_out(rates) for model, rates in event.models.items()}
    return {"feature": event.feature, "version": event.version, "models": models}


def plan_members(event: PlanSet) -> dict[str, Any]:
    """Return one version of a plan."""
    terms = event.terms
    return {
        "plan": event.plan,
        "version": event.version,
        "effective_at": event.effective_at,
        "retired": event.retired,
        "name": terms.name,
        "price": _money_out(terms.price),
        "credits": decimal(terms.credits),
        "period": terms.period,
        "rollover": terms.rollover,
        "rollover_max": None if terms.rollover_max is None else decimal(terms.rollover_max),
        "kind": terms.kind,
        "priority": terms.priority,
        "trial_credits": decimal(terms.trial_credits),
        "trial_days": terms.trial_days,
        "checkout_url": terms.checkout_url,
        "fallback": terms.fallback,
        "providers": _providers_out(terms.providers),
    }


def pack_members(event: PackSet) -> dict[str, Any]:
    """Return one version of a pack."""
    terms = event.terms
    return {
        "pack": event.pack,
        "version": event.version,
        "effective_at": event.effective_at,
        "retired": event.retired,
        "name": terms.name,
        "price": _money_out(terms.price),
        "credits": decimal(terms.credits),
        "bonus": decimal(terms.bonus),
        "expires_days": terms.expires_days,
        "priority": terms.priority,
        "providers": _providers_out(terms.providers),
    }


def reward_members(event: ReferralRewardSet) -> dict[str, Any]:
    """Return one version of the referral reward."""
    return {
        "version": event.version,
        "effective_at": event.effective_at,
        "referrer": decimal(event.referrer),
        "referred": decimal(event.referred),
        "expires_days": event.expires_days,
    }


def _money_out(price: Money | None) -> offer_answers.MoneyOut | None:
    return None if price is None else offer_answers.MoneyOut(price.amount, price.currency)


def _providers_out(ids: ProviderIds) -> offer_answers.ProviderIdsOut:
    return offer_answers.ProviderIdsOut(list(ids.stripe), list(ids.clerk), list(ids.asaas))
