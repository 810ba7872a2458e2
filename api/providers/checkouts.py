"""A checkout at each provider, so that what is paid there comes to the right account.

The account and the price stand in all that the provider makes of it. What is made twice does no
harm: a checkout is only worth what somebody pays.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import Struct

from api.provider_problems import OfferNotSold
from api.providers.asaas_api import AsaasApi
from api.providers.stripe_api import StripeApi
from ledger.domain.offers import Pack, Plan

DUE_DAYS: Final = 10
"""How long a payer of Asaas has to pay a boleto."""
ASAAS_QUANTITY_MAX: Final = 1
CYCLES: Final = {"month": "MONTHLY", "year": "YEARLY"}
_CENTS: Final = 100


class Cart(Struct, frozen=True, kw_only=True):
    """What is to be paid for, by whom."""

    tenant: str
    account: str
    offer: str
    terms: Plan | Pack
    quantity: int
    success_url: str
    cancel_url: str | None
    save_card: bool
    customer: str | None
    """As which the provider knows the account."""


class Made(Struct, frozen=True, kw_only=True):
    """A checkout at a provider."""

    id: str
    url: str
    expires_at: datetime | None = None


async def at_stripe(api: StripeApi, cart: Cart, key: str) -> Made:
    """Make a session, once for what is asked and `key`. Raises what StripeApi raises."""
    price = cart.terms.providers.stripe[0]
    metadata = {"scrip_account": cart.account, "scrip_price": price}
    if cart.quantity > 1:
        metadata["scrip_quantity"] = str(cart.quantity)
    params: dict[str, Any] = {
        "line_items": [{"price": price, "quantity": cart.quantity}],
        "client_reference_id": cart.account,
        "metadata": metadata,
        "success_url": cart.success_url,
    }
    if cart.cancel_url is not None:
        params["cancel_url"] = cart.cancel_url
    if cart.customer is not None:
        params["customer"] = cart.customer
    if isinstance(cart.terms, Plan):
        params |= {"mode": "subscription", "subscription_data": {"metadata": metadata}}
    else:
        data: dict[str, Any] = {"metadata": metadata}
        if cart.save_card:
            data["setup_future_usage"] = "off_session"
        params |= {"mode": "payment", "payment_intent_data": data}
        if cart.customer is None:
            params["customer_creation"] = "always"
    session = await api.create_session(params, _key(cart.tenant, key, params))
    return Made(
        id=session["id"],
        url=session["url"],
        expires_at=datetime.fromtimestamp(session["expires_at"], UTC),
    )


async def at_asaas(api: AsaasApi, cart: Cart) -> Made:
    """Make a payment link. Raises OfferNotSold, and what AsaasApi raises."""
    terms = cart.terms
    price = next((one for one in terms.providers.asaas if ":" not in one), None)
    if price is None:
        why = "its id there must have no colon: it stands in account:id"
        raise OfferNotSold(offer=cart.offer, provider="asaas", why=why)
    if terms.price is None or terms.price.currency != "BRL":
        raise OfferNotSold(offer=cart.offer, provider="asaas", why="it has no price in BRL")
    if cart.quantity > ASAAS_QUANTITY_MAX:
        raise OfferNotSold(offer=cart.offer, provider="asaas", why="there, one is sold at a time")
    link: dict[str, Any] = {
        "name": terms.name,
        "value": Decimal(terms.price.amount) / _CENTS,
        "billingType": "UNDEFINED",
        "dueDateLimitDays": DUE_DAYS,
        "chargeType": "DETACHED",
        "externalReference": f"{cart.account}:{price}",
        "notificationEnabled": False,
        "callback": {"successUrl": cart.success_url, "autoRedirect": True},
    }
    if isinstance(terms, Plan):
        link |= {"chargeType": "RECURRENT", "subscriptionCycle": CYCLES[terms.period]}
    made = await api.create_link(link)
    return Made(id=made["id"], url=made["url"])


def _key(tenant: str, key: str, params: dict[str, Any]) -> str:
    """Return an idempotency key: of what is asked too, for the catalog may have changed since."""
    text = msgspec.json.encode(("scrip.checkout", tenant, key, params), order="sorted")
    return f"scrip-checkout-{hashlib.sha256(text).hexdigest()[:40]}"
