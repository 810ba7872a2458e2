"""Examples of the catalog for the description of the API, rendered from events as answers are."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from api.catalog_receipts import catalog_answer
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
from ledger.domain.offers import Money, Pack, Plan, ProviderIds

NOON: Final = datetime(2026, 11, 21, 12, tzinfo=UTC)
RATES: Final = Rates(
    input_per_million=3_000_000,
    output_per_million=15_000_000,
    cached_input_per_million=300_000,
    minimum=1_000,
)


def _answer(event: CatalogEvent) -> dict[str, Any]:
    """Return the answer to the command that caused `event`."""
    answer: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(catalog_answer(1042, event)))
    return answer


def _read(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "position"}


def _list(answer: dict[str, Any]) -> dict[str, Any]:
    return {"data": [_read(answer)], "next_cursor": None}


FEATURE: Final = _answer(
    FeatureSet(feature="image", version=1, name="Image", unit="image", unit_price=2_500_000)
)
RATE_CARD: Final = _answer(RateCardSet(feature="chat", version=2, models={"sonnet": RATES}))
REFUND_POLICY: Final = _answer(RefundPolicySet(version=1, regrant_days=30))
PLAN: Final = _answer(
    PlanSet(
        plan="pro",
        version=2,
        effective_at=NOON,
        terms=Plan(
            name="Pro",
            price=Money(1_900, "EUR"),
            credits=500_000_000,
            rollover="capped",
            rollover_max=250_000_000,
            trial_credits=50_000_000,
            trial_days=14,
            providers=ProviderIds(stripe=("price_1Pro",)),
        ),
    )
)
PACK: Final = _answer(
    PackSet(
        pack="credits_100",
        version=1,
        effective_at=NOON,
        terms=Pack(
            name="100 credits",
            price=Money(900, "EUR"),
            credits=100_000_000,
            bonus=10_000_000,
            expires_days=365,
            providers=ProviderIds(stripe=("price_1Pack",)),
        ),
    )
)
REFERRAL_REWARD: Final = _answer(
    ReferralRewardSet(
        version=1, effective_at=NOON, referrer=20_000_000, referred=10_000_000, expires_days=90
    )
)

BY_TYPE: Final[dict[str, Any]] = {
    "FeatureIn": {"name": "Image", "unit": "image", "unit_price": "2.5"},
    "RateCardIn": {
        "models": {
            "sonnet": {
                "input_per_million": "3",
                "output_per_million": "15",
                "cached_input_per_million": "0.3",
                "minimum": "0.001",
            }
        }
    },
    "RefundPolicyIn": {"regrant_days": 30},
    "PlanIn": {
        "name": "Pro",
        "price": {"amount": 1900, "currency": "EUR"},
        "credits": "500",
        "rollover": "capped",
        "rollover_max": "250",
        "trial_credits": "50",
        "trial_days": 14,
        "checkout_url": "https://example.com/buy/pro",
        "providers": {"stripe": ["price_1Pro"]},
    },
    "PackIn": {
        "name": "100 credits",
        "price": {"amount": 900, "currency": "EUR"},
        "credits": "100",
        "bonus": "10",
        "expires_days": 365,
        "providers": {"stripe": ["price_1Pack"]},
    },
    "ReferralRewardIn": {"referrer": "20", "referred": "10", "expires_days": 90},
    "FeatureAnswer": FEATURE,
    "FeatureOut": _read(FEATURE),
    "FeatureList": _list(FEATURE),
    "RateCardAnswer": RATE_CARD,
    "RateCardOut": _read(RATE_CARD),
    "RateCardList": _list(RATE_CARD),
    "RefundPolicyAnswer": REFUND_POLICY,
    "RefundPolicyOut": _read(REFUND_POLICY),
    "PlanAnswer": PLAN,
    "PlanOut": _read(PLAN),
    "PlanList": _list(PLAN),
    "PackAnswer": PACK,
    "PackOut": _read(PACK),
    "PackList": _list(PACK),
    "ReferralRewardAnswer": REFERRAL_REWARD,
    "ReferralRewardOut": _read(REFERRAL_REWARD),
    "Differences": {
        "from": 1,
        "to": 2,
        "changes": [{"field": "credits", "from": "400", "to": "500"}],
    },
}
