"""What a tenant's features cost: every version ever put, and the rules for putting one."""

from __future__ import annotations

from typing import assert_never

from msgspec import Struct, field

from ledger.domain.bounds import check_amount, check_count
from ledger.domain.commands import (
    CatalogCommand,
    SetFeature,
    SetRateCard,
    SetRefundPolicy,
)
from ledger.domain.costs import checked_rates
from ledger.domain.errors import InvalidCommand
from ledger.domain.events import CatalogEvent, FeatureSet, RateCardSet, RefundPolicySet
from ledger.domain.values import REGRANT_DAYS_MAX


class Catalog(Struct):
    """A tenant's prices, folded from the events of its catalog. Versions count from 1."""

    version: int = 0
    features: dict[str, list[FeatureSet]] = field(default_factory=dict)
    rate_cards: dict[str, list[RateCardSet]] = field(default_factory=dict)
    refund_policies: list[RefundPolicySet] = field(default_factory=list)

    @property
    def regrant_days(self) -> int | None:
        """How long a refund's new grant lives where the old one has expired; None: it lapses."""
        return self.refund_policies[-1].regrant_days if self.refund_policies else None


def decide_catalog(catalog: Catalog, command: CatalogCommand) -> CatalogEvent:
    """Return the new version that `command` makes."""
    match command:
        case SetFeature():
            check_amount("unit_price", command.unit_price)
            return FeatureSet(
                feature=command.feature,
                version=len(catalog.features.get(command.feature, ())) + 1,
                name=command.name,
                unit=command.unit,
                unit_price=command.unit_price,
            )
        case SetRateCard():
            if not command.models:
                raise InvalidCommand(field="models", rule="must name at least one model")
            models = {model: checked_rates(model, rates) for model, rates in command.models.items()}
            return RateCardSet(
                feature=command.feature,
                version=len(catalog.rate_cards.get(command.feature, ())) + 1,
                models=models,
            )
        case SetRefundPolicy():
            check_count("regrant_days", command.regrant_days, 1, REGRANT_DAYS_MAX)
            return RefundPolicySet(
                version=len(catalog.refund_policies) + 1, regrant_days=command.regrant_days
            )
        case _:
            assert_never(command)


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
        case _:
            assert_never(event)
