"""The rates of one model, as a rate card is put: stated, or as a markup on the provider's price."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from api.fields import Amount, AmountOrZero, Text, millionths
from api.model_prices import provider_rates
from ledger.domain.costs import checked_rates
from ledger.domain.entities import CostPlus, ProviderRates, Rates
from ledger.domain.errors import InvalidCommand

PerMillion = Annotated[
    AmountOrZero | UnsetType,
    Meta(description="Must be given, but with `cost_plus`, which works it out."),
]


class ProviderRatesIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the provider takes for a million tokens of each kind, in USD."""

    input_per_million: AmountOrZero
    output_per_million: AmountOrZero
    cached_input_per_million: AmountOrZero

    def rates(self) -> ProviderRates:
        """Return the provider's rates."""
        return ProviderRates(
            self.input_per_million.value,
            self.output_per_million.value,
            self.cached_input_per_million.value,
        )


class CostPlusIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A markup on the provider's cost: USD times `factor` times `credits_per_usd`."""

    factor: Annotated[Amount, Meta(description='"1.3" is a markup of 30 percent.')]
    credits_per_usd: Amount
    provider_id: Annotated[
        Text | None,
        Meta(description="Whose price to take, if `provider` states none: `anthropic`, `openai`…"),
    ] = None
    model: Annotated[
        Text | None, Meta(description="What the provider calls the model, if something else.")
    ] = None


class RatesIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Credits for a million tokens of each kind, and what a call costs at least.

    With `cost_plus` they follow from what the provider takes: as `provider` states it, or as it is
    known when this is put.
    """

    input_per_million: PerMillion = UNSET
    output_per_million: PerMillion = UNSET
    cached_input_per_million: PerMillion = UNSET
    minimum: AmountOrZero | UnsetType = UNSET
    provider: ProviderRatesIn | None = None
    cost_plus: CostPlusIn | None = None

    def rates(self, name: str) -> Rates:
        """Return the rates of the model that is called this. Raises InvalidCommand."""
        provider = None if self.provider is None else self.provider.rates()
        terms = self.cost_plus
        if terms is None:
            cost_plus = None
        else:
            cost_plus = CostPlus(
                factor=terms.factor.value, credits_per_usd=terms.credits_per_usd.value
            )
            if provider is None:
                field = f"models.{name}.cost_plus"
                model = terms.model or name
                provider = provider_rates(field, terms.provider_id, model, datetime.now(UTC))
        rates = Rates(
            self._stated(name, "input_per_million"),
            self._stated(name, "output_per_million"),
            self._stated(name, "cached_input_per_million"),
            minimum=millionths(self.minimum) or 0,
            provider=provider,
            cost_plus=cost_plus,
        )
        # As the ledger will have it, so that one that is put again is known to be the same.
        return checked_rates(name, rates)

    def _stated(self, name: str, field: str) -> int:
        given = millionths(getattr(self, field))
        if given is None and self.cost_plus is None:
            raise InvalidCommand(field=f"models.{name}.{field}", rule="must be given")
        # The ledger works it out from the markup, whatever is said here.
        return given if given is not None and self.cost_plus is None else 0
