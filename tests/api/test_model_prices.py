"""Rate cards by cost: the provider's price is looked up when they are put, and kept."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from api.model_prices import provider_rates, snapshot
from ledger.domain.entities import ProviderRates
from ledger.domain.errors import InvalidCommand
from tests.api.room import Answer, Tenant

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
CARD = "/v1/catalog/rate-cards/chat"
STATED = {
    "input_per_million": "2.5",
    "output_per_million": "10",
    "cached_input_per_million": "1.25",
}
MARKUP = {"factor": "1.3", "credits_per_usd": "100"}


def _put(tenant: Tenant, model: str, **rates: Any) -> Answer:
    return tenant.admin.put(CARD, {"models": {model: rates}})


def test_a_markup_on_a_known_price_prices_calls_and_keeps_what_they_cost(tenant: Tenant) -> None:
    put = _put(tenant, "gpt-4o-mini", cost_plus={**MARKUP, "provider_id": "openai"})
    assert put.status == 200, put.body
    rates = put.body["models"]["gpt-4o-mini"]
    assert rates["provider"] == {
        "input_per_million": "0.15",
        "output_per_million": "0.6",
        "cached_input_per_million": "0.075",
    }
    assert rates["cost_plus"] == MARKUP
    assert rates["input_per_million"] == "19.5"  # 0.15 USD x 1.3 x 100.
    account = tenant.account("100")
    usage = {"input_tokens": 1_000_000, "output_tokens": 0, "cached_input_tokens": 0}
    done = tenant.service.post(
        f"{account}/deductions", {"feature": "chat", "model": "gpt-4o-mini", "usage": usage}
    ).body
    assert (done["amount"], done["price"]["provider_cost"]) == ("19.5", "0.15")
    (used,) = tenant.reader.get(f"{account}/usage", position=done["position"]).body["data"]
    assert (used["amount"], used["provider_cost"]) == ("19.5", "0.15")


def test_a_model_may_be_called_something_else_here(tenant: Tenant) -> None:
    named = {**MARKUP, "provider_id": "openai", "model": "gpt-4o-mini"}
    put = _put(tenant, "small", cost_plus=named)
    assert put.body["models"]["small"]["provider"]["input_per_million"] == "0.15"


def test_stated_prices_are_taken_and_none_is_looked_up(tenant: Tenant) -> None:
    put = _put(tenant, "our own", provider=STATED, cost_plus=MARKUP)
    rates = put.body["models"]["our own"]
    assert rates["provider"] == STATED
    assert rates["input_per_million"] == "325"
    again = _put(tenant, "our own", **rates)
    assert again.body["models"] == put.body["models"]


def test_rates_may_be_stated_beside_what_the_provider_takes(tenant: Tenant) -> None:
    put = _put(tenant, "m", **STATED, provider=STATED)
    assert put.body["models"]["m"]["provider"] == STATED
    assert put.body["models"]["m"]["input_per_million"] == "2.5"


@pytest.mark.parametrize(
    ("rates", "field"),
    [
        ({}, "models.m.input_per_million"),
        (
            {"input_per_million": "1", "output_per_million": "1"},
            "models.m.cached_input_per_million",
        ),
        ({"cost_plus": MARKUP}, "models.m.cost_plus"),
        ({"cost_plus": {**MARKUP, "provider_id": "none"}}, "models.m.cost_plus"),
        ({"cost_plus": {**MARKUP, "factor": "0"}}, "models[...].cost_plus.factor"),
    ],
)
def test_what_has_no_price_is_refused(tenant: Tenant, rates: dict[str, Any], field: str) -> None:
    refused = _put(tenant, "m", **rates)
    assert (refused.status, refused.code) == (422, "invalid_request")
    assert refused.body["errors"][0]["field"] == field


@pytest.mark.parametrize(
    ("provider", "model", "why"),
    [
        ("anthropic", "claude-sonnet-4-5", "how long a call is"),
        ("openai", "no-such-model", "no model whose price is known"),
    ],
)
def test_a_price_that_is_not_one_price_is_refused(provider: str, model: str, why: str) -> None:
    with pytest.raises(InvalidCommand, match=why):
        provider_rates("cost_plus", provider, model, NOON)


def test_every_known_price_is_taken_whole_or_refused_with_a_reason() -> None:
    taken, refused = 0, set()
    for provider in snapshot().providers:
        for model in provider.models:
            try:
                rates = provider_rates("cost_plus", provider.id, model.id, NOON)
            except InvalidCommand as refusal:
                refused.add(str(refusal.facts["rule"]).rpartition(" (")[0][:40])
            else:
                assert isinstance(rates, ProviderRates)
                taken += 1
    assert taken > 1_000
    assert len(refused) >= 2


def test_a_price_by_the_time_of_day_is_refused() -> None:
    with pytest.raises(InvalidCommand, match="time of day"):
        provider_rates("cost_plus", "deepseek", "deepseek-chat", NOON)
