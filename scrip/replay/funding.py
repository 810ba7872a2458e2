"""What a replay needs before it starts: prices, accounts, credits. All may be asked for twice."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Any, Final

from scrip.replay.caller import Caller, Refused, account_path
from scrip.replay.plan import Rates

OK, NOT_FOUND = 200, 404
PROMOTIONAL_SHARE: Final = Decimal("0.25")
MARGIN: Final = Decimal("1.1")
PROMOTION_ENDS: Final = "2100-01-01T00:00:00Z"
"""Far away, and always the same: a second run must ask for the same grant."""

DEFAULT_MODELS: Final = {
    "swift": {"input_per_million": "15", "output_per_million": "60", "minimum": "0.000001"},
    "steady": {"input_per_million": "125", "output_per_million": "500", "minimum": "0.0001"},
    "grand": {"input_per_million": "1500", "output_per_million": "7500", "minimum": "0.001"},
}
"""What a tenant without prices gets, in credits; cached input costs a tenth."""


def rate_card_body(models: Mapping[str, Mapping[str, str]] = DEFAULT_MODELS) -> dict[str, Any]:
    """Return the body that puts a rate card of these models."""
    return {
        "models": {
            name: {
                **rates,
                "cached_input_per_million": format(
                    (Decimal(rates["input_per_million"]) / 10).normalize(), "f"
                ),
            }
            for name, rates in models.items()
        }
    }


def rate_card_path(feature: str) -> str:
    """Return the path of a feature's rate card."""
    return f"/v1/catalog/rate-cards/{feature}"


async def ensure_rate_card(admin: Caller, feature: str) -> dict[str, Rates]:
    """Return what each model of a feature costs; put prices if there are none. Raises Refused."""
    answer = await admin.find(rate_card_path(feature))
    if answer.status == NOT_FOUND:
        key = f"replay:rate-card:{feature}"
        answer = await admin.change("PUT", rate_card_path(feature), key, rate_card_body())
    elif answer.status != OK:
        raise Refused(f"GET {rate_card_path(feature)}", answer)
    return rates_of(answer.json)


async def rates_at(caller: Caller, feature: str, version: int) -> dict[str, Rates]:
    """Return what each model of a feature cost at a version of its rate card."""
    return rates_of(await caller.get(rate_card_path(feature), version=version))


def rates_of(card: Mapping[str, Any]) -> dict[str, Rates]:
    """Return the rates in a rate card."""
    return {
        model: Rates(
            Decimal(rates["input_per_million"]),
            Decimal(rates["output_per_million"]),
            Decimal(rates["minimum"]),
        )
        for model, rates in card["models"].items()
    }


async def fund(caller: Caller, prefix: str, needs: Mapping[str, Decimal]) -> None:
    """Open every account and give it what it needs, some paid for and some as a promotion."""
    async with asyncio.TaskGroup() as group:
        for account, needed in needs.items():
            group.create_task(_fund(caller, prefix, account, needed))


async def _fund(caller: Caller, prefix: str, account: str, needed: Decimal) -> None:
    body: dict[str, Any] = {"label": f"Replay of {prefix}"}
    await caller.change("PUT", account_path(account), f"replay:{prefix}:open", body)
    promotional = (needed * PROMOTIONAL_SHARE).to_integral_value(ROUND_CEILING) + 1
    paid = (needed * MARGIN).to_integral_value(ROUND_CEILING) + 1 - promotional
    grants = {
        "promotional": {"amount": str(promotional), "expires_at": PROMOTION_ENDS},
        "paid": {"amount": str(max(paid, Decimal(1)))},
    }
    for kind, rest in grants.items():
        amount = rest["amount"]
        key = f"replay:{prefix}:grant:{kind}:{amount}"
        body = {"kind": kind, "reason": "credits for a replay", **rest}
        await caller.change("POST", account_path(account, "/grants"), key, body)
