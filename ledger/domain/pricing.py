"""A charge and a catalog in, an amount out: integers all the way, rounded up once."""

from __future__ import annotations

from ledger.domain.bounds import check_amount, check_count
from ledger.domain.catalog import Catalog
from ledger.domain.catalog_events import FeatureSet, RateCardSet
from ledger.domain.costs import TOKENS_PER_RATE, credits_on_cost, divide_up, provider_cost
from ledger.domain.entities import Charge, Price, Rates, Usage
from ledger.domain.errors import InvalidCommand, PriceNotFound
from ledger.domain.values import CREDITS_MAX, MICRO, TOKENS_MAX


def rate(
    charge: Charge, catalog: Catalog, reserved: Price | None = None, feature: str | None = None
) -> tuple[int, Price | None]:
    """Return what `charge` costs in micro-credits, and how that came about (None for an amount).

    A capture passes the price its reservation was made at: the same version then applies, whatever
    the catalog says by now, and the feature and model need not be named again.
    Raises PriceNotFound; InvalidCommand if the charge is not exactly one of its three kinds.
    """
    if (charge.amount, charge.quantity, charge.usage).count(None) != 2:  # noqa: PLR2004 - of three
        raise InvalidCommand(
            field="amount", rule="or quantity or usage must be given, and only one of the three"
        )
    if charge.amount is not None:
        check_amount("amount", charge.amount)
        return charge.amount, None
    _check(charge)
    feature = charge.feature or feature or (reserved.feature if reserved else None)
    if feature is None:
        raise InvalidCommand(field="feature", rule="must be given with a quantity or a usage")
    if reserved is not None and reserved.feature != feature:
        reserved = None
    price = (
        _by_quantity(feature, charge.quantity, catalog, reserved)
        if charge.quantity is not None
        else _by_usage(feature, charge, catalog, reserved)
    )
    if price.amount > CREDITS_MAX:
        field = "usage" if charge.usage else "quantity"
        raise InvalidCommand(field=field, rule="costs more than one amount may be")
    return price.amount, price


def _check(charge: Charge) -> None:
    check_amount("quantity", charge.quantity)
    if charge.usage is not None:
        check_count("usage.input_tokens", charge.usage.input_tokens, 0, TOKENS_MAX)
        check_count("usage.output_tokens", charge.usage.output_tokens, 0, TOKENS_MAX)
        check_count("usage.cached_input_tokens", charge.usage.cached_input_tokens, 0, TOKENS_MAX)


def _by_quantity(feature: str, quantity: int, catalog: Catalog, reserved: Price | None) -> Price:
    versions = catalog.features.get(feature, [])
    if reserved is not None and reserved.unit_price is not None:
        entry = versions[reserved.version - 1]
    elif versions:
        entry = versions[-1]
    else:
        raise PriceNotFound(feature=feature)
    return _priced_quantity(entry, quantity)


def _priced_quantity(entry: FeatureSet, quantity: int) -> Price:
    if entry.unit_price is None:
        raise PriceNotFound(feature=entry.feature)
    return Price(
        feature=entry.feature,
        version=entry.version,
        unit_price=entry.unit_price,
        quantity=quantity,
        amount=divide_up(quantity * entry.unit_price, MICRO),
    )


def _by_usage(feature: str, charge: Charge, catalog: Catalog, reserved: Price | None) -> Price:
    model = charge.model or (reserved.model if reserved else None)
    if model is None:
        raise InvalidCommand(field="model", rule="must be given with a usage")
    versions = catalog.rate_cards.get(feature, [])
    if reserved is not None and reserved.model == model:
        entry = versions[reserved.version - 1]
    elif versions:
        entry = versions[-1]
    else:
        raise PriceNotFound(feature=feature, model=model)
    assert charge.usage is not None
    return _priced_usage(entry, model, charge.usage)


def _priced_usage(entry: RateCardSet, model: str, usage: Usage) -> Price:
    rates = entry.models.get(model)
    if rates is None:
        raise PriceNotFound(feature=entry.feature, model=model)
    return Price(
        feature=entry.feature,
        version=entry.version,
        model=model,
        rates=rates,
        usage=usage,
        amount=max(rates.minimum, cost_of(rates, usage)),
        provider_cost=None if rates.provider is None else provider_cost(rates.provider, usage),
    )


def cost_of(rates: Rates, usage: Usage) -> int:
    """Return the micro-credits that `usage` costs at `rates`, rounded up, before any minimum."""
    if rates.cost_plus is not None:
        assert rates.provider is not None, "the catalog takes no markup on nothing"
        return credits_on_cost(rates.provider, rates.cost_plus, usage)
    exact = (
        usage.input_tokens * rates.input_per_million
        + usage.output_tokens * rates.output_per_million
        + usage.cached_input_tokens * rates.cached_input_per_million
    )
    return divide_up(exact, TOKENS_PER_RATE)
