"""What things cost, by the model: exact fractions, rounded up at the end."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any

from ledger.domain import commands as c
from ledger.domain.entities import Charge, Rates, Usage

MILLION = 1_000_000


class Refused(Exception):
    """The model refuses a command, with the code and the facts that the ledger must give too."""

    def __init__(self, code: str, **facts: object) -> None:
        """Keep the code and the facts."""
        super().__init__(code, facts)
        self.code, self.facts = code, facts


@dataclass(frozen=True)
class Priced:
    """Where an amount comes from."""

    feature: str
    version: int
    model: str | None
    amount: int
    counted: tuple[int, ...]
    """The quantity, or the input, output and cached tokens."""

    def facts(self) -> tuple[str, int, str | None, int]:
        """Return what the event's price must say."""
        return self.feature, self.version, self.model, self.amount


class ModelPrices:
    """A tenant's catalog: every version of everything, in lists."""

    def __init__(self) -> None:
        """Start without any price."""
        self.units: dict[str, list[int | None]] = {}
        self.cards: dict[str, list[dict[str, Rates]]] = {}
        self.policies: list[int | None] = []
        self.overages: dict[str, str] = {}

    @property
    def regrant_days(self) -> int | None:
        """How long a new grant lives that a refund makes; None: it makes none."""
        return self.policies[-1] if self.policies else None

    def put(self, command: c.TenantCommand) -> dict[str, Any]:
        """Put a new version; an alert is none."""
        if isinstance(command, c.RaiseAlert):
            return {"code": command.code, "subject": command.subject}
        if isinstance(command, c.SetFeature):
            versions: list[Any] = self.units.setdefault(command.feature, [])
            versions.append(command.unit_price)
            self.overages[command.feature] = command.overage
        elif isinstance(command, c.SetRateCard):
            versions = self.cards.setdefault(command.feature, [])
            versions.append(command.models)
        else:
            versions = self.policies
            versions.append(command.regrant_days)
        return {"version": len(versions)}

    def overage(self, asked: str | None, feature: str | None) -> str:
        """Return what becomes of what is too much: as is asked, else as is put for the feature."""
        return asked or self.overages.get(feature or "", "reject")

    def cost(
        self, charge: Charge, reserved: Priced | None = None, feature: str | None = None
    ) -> tuple[int, Priced | None]:
        """Return what a charge costs. What was reserved at a price is charged at that price."""
        kinds = [charge.amount, charge.quantity, charge.usage]
        if len([kind for kind in kinds if kind is not None]) != 1:
            raise Refused("invalid_request", field="amount")
        if charge.amount is not None:
            return charge.amount, None
        feature = charge.feature or feature
        if feature is None:
            raise Refused("invalid_request", field="feature")
        if reserved and reserved.feature != feature:
            reserved = None
        if charge.quantity is not None:
            version = self._version(self.units.get(feature, []), reserved, None)
            unit_price = self.units[feature][version - 1] if version else None
            if unit_price is None:
                raise Refused("price_not_found", feature=feature)
            exact, model, least = Fraction(unit_price * charge.quantity, MILLION), None, 0
            counted = (charge.quantity, 0, 0, 0)
        else:
            model = charge.model or (reserved.model if reserved else None)
            if model is None:
                raise Refused("invalid_request", field="model")
            version = self._version(self.cards.get(feature, []), reserved, model)
            rates = self.cards[feature][version - 1].get(model) if version else None
            if rates is None:
                raise Refused("price_not_found", feature=feature)
            assert charge.usage is not None
            usage = charge.usage
            exact, least = self._tokens(rates, usage), rates.minimum
            counted = (0, usage.input_tokens, usage.output_tokens, usage.cached_input_tokens)
        amount = max(least, ceil(exact))
        return amount, Priced(feature, version, model, amount, counted)

    def _version(self, versions: list[Any], reserved: Priced | None, model: str | None) -> int:
        """Return the version that applies: the reservation's, if it is of the same kind."""
        if reserved and reserved.model == model:
            return reserved.version
        return len(versions)

    def _tokens(self, rates: Rates, usage: Usage) -> Fraction:
        return (
            Fraction(usage.input_tokens * rates.input_per_million, MILLION)
            + Fraction(usage.output_tokens * rates.output_per_million, MILLION)
            + Fraction(usage.cached_input_tokens * rates.cached_input_per_million, MILLION)
        )
