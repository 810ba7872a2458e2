"""Charging a customer of Stripe who is not there, for auto top-up."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, Final, Literal, Protocol

from pydantic import SecretStr

from api.problems import SecretsUnreadable
from api.provider_problems import PaymentDeclined, ProviderRefused, ProviderUnavailable, told
from api.providers.patience import Patience
from api.providers.stripe_api import StripeApi, StripeHttp, library
from ledger.domain.top_ups import Card, Charged, TopUp

ATTEMPT: Final = "scrip_attempt"
ONCE: Final = Patience(attempts_max=1, seconds_max=0.0)
"""One request: a refusal after one that was lost would hide that the first may have charged."""
SECONDS_MAX: Final = 12.0
"""For one call. A charge that takes longer is found later."""
CLOCKS_APART: Final = timedelta(hours=1)
"""How far Stripe's clock and ours may differ."""
_UNKNOWN: Final = Charged(state="unknown", code="provider_unavailable")


class KeyOf(Protocol):
    """Where the API keys of tenants are."""

    async def of(self, tenant: str, provider: Literal["stripe"], /) -> SecretStr | None:
        """Return the tenant's key at the provider, None if it has none.

        Raises SecretsUnreadable.
        """


class _NoKey(Exception):
    """Nobody can be asked: there is no key, or none that can be read."""

    def __init__(self, why: Literal["provider_key_missing", "provider_key_unreadable"]) -> None:
        super().__init__(why)
        self.why: Final = why


class StripeCharging:
    """Charges customers of all tenants."""

    def __init__(self, http: StripeHttp, keys: KeyOf) -> None:
        """Ask with the tenants' own keys."""
        self._http = http
        self._keys = keys

    async def card(self, tenant: str, customer: str) -> Card:
        """Return the customer's default payment method, or the first card on file."""
        try:
            api = await self._api(tenant)
            async with asyncio.timeout(SECONDS_MAX):
                found = await api.customer(customer)
                chosen = (found.get("invoice_settings") or {}).get("default_payment_method")
                cards = [] if chosen else await api.cards(customer)
        except _NoKey as missing:
            return Card(why=missing.why)
        except (ProviderUnavailable, TimeoutError):
            return Card(why="provider_unavailable")
        except ProviderRefused:
            return Card(why="provider_refused")
        chosen = chosen or next((one["id"] for one in cards), None)
        return Card(id=chosen) if chosen else Card(why="no_payment_method")

    async def charge(self, top_up: TopUp) -> Charged:
        """Charge the customer, once for the id of `top_up`, by one request."""
        try:
            api = await self._api(top_up.tenant)
            async with asyncio.timeout(SECONDS_MAX):
                return outcome_of(await api.create_intent(params(top_up), top_up.id))
        except _NoKey as missing:
            return Charged(state="refused", code=missing.why)
        except (ProviderUnavailable, TimeoutError):
            return _UNKNOWN
        except PaymentDeclined as refusal:
            return Charged(state="declined", **_words(refusal))
        except ProviderRefused as refusal:
            return Charged(state="refused", **_words(refusal))

    async def find(self, top_up: TopUp, payment: str | None) -> Charged:
        """Return what became of a charge: of the one that `payment` names, if it is known.

        Stripe forgets idempotency keys after a day, and what is in the metadata never.
        """
        try:
            api = await self._api(top_up.tenant)
            async with asyncio.timeout(SECONDS_MAX):
                if payment is not None:
                    return outcome_of(await api.get("payment_intents", payment))
                return await _listed(api, top_up)
        except _NoKey as missing:
            return Charged(state="unknown", code=missing.why)
        except (ProviderUnavailable, TimeoutError):
            return _UNKNOWN
        except ProviderRefused as refusal:
            return Charged(state="unknown", **_words(refusal))

    async def _api(self, tenant: str) -> StripeApi:
        """Return the tenant's account at Stripe. Raises _NoKey."""
        try:
            key = await self._keys.of(tenant, "stripe")
        except SecretsUnreadable:
            raise _NoKey("provider_key_unreadable") from None
        if key is None:
            raise _NoKey("provider_key_missing")
        # Its import takes a second, in which nothing else would be done.
        await asyncio.to_thread(library)
        return StripeApi(self._http, key, ONCE)


def params(top_up: TopUp) -> dict[str, Any]:
    """Return what Stripe is asked for: the same for the same attempt, or the key does not fit."""
    return {
        "amount": top_up.money.amount,
        "currency": top_up.money.currency.lower(),
        "customer": top_up.customer,
        "payment_method": top_up.card,
        "off_session": True,
        "confirm": True,
        "metadata": {
            "scrip_account": top_up.account,
            "scrip_top_up": top_up.price,
            ATTEMPT: top_up.id,
        },
    }


async def _listed(api: StripeApi, top_up: TopUp) -> Charged:
    since = top_up.started_at - CLOCKS_APART
    async for intents in api.pages("payment_intents", since=since, customer=top_up.customer):
        for intent in intents:
            if (intent.get("metadata") or {}).get(ATTEMPT) == top_up.id:
                return outcome_of(intent)
    return Charged(state="nothing")


def outcome_of(intent: dict[str, Any]) -> Charged:
    """Return what a payment intent says."""
    id_, status = intent["id"], intent["status"]
    if status == "succeeded":
        return Charged(state="paid", payment=id_)
    error = intent.get("last_payment_error") or {}
    if status == "canceled" or (status == "requires_payment_method" and error):
        code = error.get("decline_code") or error.get("code") or status
        return Charged(state="declined", payment=id_, code=code, message=told(error.get("message")))
    # It is being worked on: whoever waits learns the rest by looking again.
    return Charged(state="unknown", payment=id_, code=status)


def _words(refusal: ProviderRefused | PaymentDeclined) -> dict[str, str]:
    facts = refusal.facts
    return {"code": facts["provider_code"] or refusal.code, "message": facts["message"]}
