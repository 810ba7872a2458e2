"""What a model call costs at its provider, and credits that are a markup on that.

A provider's rates are micro-USD for a million tokens, and stand in the rate card itself: nothing is
looked up when usage is priced, and a replay never prices anew. Each result is rounded up, once.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import asdict, replace

from ledger.domain.bounds import check_amount
from ledger.domain.entities import CostPlus, ProviderRates, Rates, Usage
from ledger.domain.errors import InvalidCommand
from ledger.domain.values import CREDITS_MAX, MICRO

TOKENS_PER_RATE: Final = 1_000_000
MILLION_TOKENS: Final = (
    Usage(input_tokens=TOKENS_PER_RATE),
    Usage(output_tokens=TOKENS_PER_RATE),
    Usage(cached_input_tokens=TOKENS_PER_RATE),
)


def provider_cost(rates: ProviderRates, usage: Usage) -> int:
    """Return what `usage` costs at the provider, in micro-USD."""
    return divide_up(_exact(rates, usage), TOKENS_PER_RATE)


def credits_on_cost(rates: ProviderRates, terms: CostPlus, usage: Usage) -> int:
    """Return the micro-credits for `usage`: of the exact cost, not of the rounded one."""
    exact = _exact(rates, usage) * terms.factor * terms.credits_per_usd
    return divide_up(exact, TOKENS_PER_RATE * MICRO * MICRO)


def checked_rates(model: str, rates: Rates) -> Rates:
    """Return the rates of one model as the catalog keeps them, or raise InvalidCommand.

    On a markup, the credits for a million tokens are worked out here, to be read: what a call costs
    is computed from the provider's rates.
    """
    terms, provider = rates.cost_plus, rates.provider
    if terms is not None:
        if provider is None:
            raise InvalidCommand(
                field=f"models.{model}.cost_plus", rule="needs the provider's rates"
            )
        _check(f"models.{model}.cost_plus", asdict(terms), lowest=1)
    if provider is not None:
        _check(f"models.{model}.provider", asdict(provider))
    if terms is not None and provider is not None:
        per_million = [credits_on_cost(provider, terms, usage) for usage in MILLION_TOKENS]
        if max(per_million) > CREDITS_MAX:
            raise InvalidCommand(
                field=f"models.{model}.cost_plus", rule="costs more than one amount may be"
            )
        rates = replace(
            rates,
            input_per_million=per_million[0],
            output_per_million=per_million[1],
            cached_input_per_million=per_million[2],
        )
    amounts = asdict(rates)
    del amounts["provider"], amounts["cost_plus"]
    _check(f"models.{model}", amounts)
    return rates


def divide_up(dividend: int, divisor: int) -> int:
    """Divide whole numbers and round up."""
    return -(-dividend // divisor)


def _exact(rates: ProviderRates, usage: Usage) -> int:
    return (
        usage.input_tokens * rates.input_per_million
        + usage.output_tokens * rates.output_per_million
        + usage.cached_input_tokens * rates.cached_input_per_million
    )


def _check(where: str, amounts: dict[str, int], lowest: int = 0) -> None:
    for name, amount in amounts.items():
        check_amount(f"{where}.{name}", amount, lowest)
