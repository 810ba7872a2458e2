"""What providers take for their models, by the prices that `genai-prices` carries with it.

They are looked up when a rate card is put, and never again: what was found is kept in the card.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from ledger.domain.entities import ProviderRates
from ledger.domain.errors import InvalidCommand
from ledger.domain.values import MICRO

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot

STATE_THEM: Final = "state the provider's prices in `provider`"


@cache
def snapshot() -> DataSnapshot:
    """Return all prices that are known. The first time takes the better part of a second."""
    # Most processes never put a rate card by cost, and start faster without this.
    from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415

    return get_snapshot()


def load_if_asked(body: bytes) -> None:
    """Load the prices, if a body may need them, so that nobody else waits for that later."""
    if b"cost_plus" in body:
        snapshot()


def provider_rates(field: str, provider: str | None, model: str, at: datetime) -> ProviderRates:
    """Return what a model costs at its provider at a time, in micro-USD.

    Raises InvalidCommand, naming `field`, where there is no such model, or no one price of it.
    """
    from genai_prices.types import TimeOfDateConstraint  # noqa: PLC0415 - as above

    try:
        _, found = snapshot().find_provider_model(model, None, provider, None)
    except LookupError as error:
        raise InvalidCommand(
            field=field, rule=f"is of no model whose price is known ({error}): {STATE_THEM}"
        ) from None
    if isinstance(found.prices, list) and any(
        isinstance(price.constraint, TimeOfDateConstraint) for price in found.prices
    ):
        raise InvalidCommand(
            field=field, rule=f"is of a model whose price depends on the time of day: {STATE_THEM}"
        )
    prices = found.get_prices(at)
    if prices.requests_kcount is not None:
        raise InvalidCommand(
            field=field, rule=f"is of a model with a price for each request: {STATE_THEM}"
        )
    cached = prices.input_mtok if prices.cache_read_mtok is None else prices.cache_read_mtok
    return ProviderRates(
        input_per_million=_micro_usd(field, prices.input_mtok),
        output_per_million=_micro_usd(field, prices.output_mtok),
        # What is not cheaper from a cache costs what it costs otherwise.
        cached_input_per_million=_micro_usd(field, cached),
    )


def _micro_usd(field: str, price: Any) -> int:
    if price is None:
        raise InvalidCommand(
            field=field, rule=f"is of a model without a price for all tokens: {STATE_THEM}"
        )
    if not isinstance(price, Decimal):
        raise InvalidCommand(
            field=field,
            rule=f"is of a model whose price depends on how long a call is: {STATE_THEM}",
        )
    micro = price * MICRO
    if micro != int(micro):
        raise InvalidCommand(
            field=field, rule=f"is of a model whose price has too many decimals: {STATE_THEM}"
        )
    return int(micro)
