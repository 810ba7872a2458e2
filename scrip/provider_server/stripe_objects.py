"""Objects as Stripe shows them, with the fields that matter here."""

from __future__ import annotations

from typing import Any

from scrip.provider_server.book import Object

DAY = 86_400
PERIOD_SECONDS = {"day": DAY, "week": 7 * DAY, "month": 30 * DAY, "year": 365 * DAY}
API_VERSION = "2026-10-28.endive"


def listed(data: list[Object], url: str, *, has_more: bool = False) -> Object:
    """Return a list object."""
    return {"object": "list", "data": data, "has_more": has_more, "url": url}


def price(id_: str, amount: int, currency: str, interval: str | None, created: int) -> Object:
    """Return a price; with an interval, a recurring one."""
    recurring = interval and {"interval": interval, "interval_count": 1, "usage_type": "licensed"}
    return {
        "id": id_,
        "object": "price",
        "active": True,
        "billing_scheme": "per_unit",
        "created": created,
        "currency": currency,
        "livemode": False,
        "metadata": {},
        "product": id_.replace("price_", "prod_", 1),
        "recurring": recurring or None,
        "type": "recurring" if interval else "one_time",
        "unit_amount": amount,
    }


def customer(id_: str, created: int, metadata: dict[str, str]) -> Object:
    """Return a customer, without a card."""
    return {
        "id": id_,
        "object": "customer",
        "balance": 0,
        "created": created,
        "email": None,
        "invoice_settings": {"default_payment_method": None},
        "livemode": False,
        "metadata": metadata,
    }


def payment_method(id_: str, customer_: str, created: int) -> Object:
    """Return a card that a customer has on file."""
    return {
        "id": id_,
        "object": "payment_method",
        "card": {"brand": "visa", "last4": "4242", "exp_month": 8, "exp_year": 2040},
        "created": created,
        "customer": customer_,
        "livemode": False,
        "metadata": {},
        "type": "card",
    }


def intent(id_: str, amount: int, currency: str, created: int, **more: Any) -> Object:
    """Return a payment intent that waits for a payment method."""
    return {
        "id": id_,
        "object": "payment_intent",
        "amount": amount,
        "amount_received": 0,
        "client_secret": f"{id_}_secret_{'x' * 24}",
        "created": created,
        "currency": currency,
        "customer": None,
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": False,
        "metadata": {},
        "payment_method": None,
        "status": "requires_payment_method",
        **more,
    }


def charge(id_: str, of: Object, created: int) -> Object:
    """Return the charge that pays an intent."""
    return {
        "id": id_,
        "object": "charge",
        "amount": of["amount"],
        "amount_captured": of["amount"],
        "amount_refunded": 0,
        "captured": True,
        "created": created,
        "currency": of["currency"],
        "customer": of["customer"],
        "disputed": False,
        "livemode": False,
        "metadata": dict(of["metadata"]),
        "paid": True,
        "payment_intent": of["id"],
        "refunded": False,
        "status": "succeeded",
    }


def refund(id_: str, of: Object, amount: int, created: int) -> Object:
    """Return a refund of a charge."""
    return {
        "id": id_,
        "object": "refund",
        "amount": amount,
        "charge": of["id"],
        "created": created,
        "currency": of["currency"],
        "metadata": {},
        "payment_intent": of["payment_intent"],
        "reason": None,
        "status": "succeeded",
    }


def dispute(id_: str, of: Object, amount: int, status: str, created: int) -> Object:
    """Return a dispute about a charge."""
    return {
        "id": id_,
        "object": "dispute",
        "amount": amount,
        "charge": of["id"],
        "created": created,
        "currency": of["currency"],
        "livemode": False,
        "metadata": {},
        "payment_intent": of["payment_intent"],
        "reason": "fraudulent",
        "status": status,
    }


def subscription(
    id_: str, *, item: str, price_: Object, quantity: int, customer_: str, start: int
) -> Object:
    """Return an active subscription, in its first period."""
    end = start + PERIOD_SECONDS[price_["recurring"]["interval"]]
    first = {
        "id": item,
        "object": "subscription_item",
        "created": start,
        "current_period_end": end,
        "current_period_start": start,
        "metadata": {},
        "price": price_,
        "quantity": quantity,
        "subscription": id_,
    }
    return {
        "id": id_,
        "object": "subscription",
        "billing_cycle_anchor": start,
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": None,
        "created": start,
        "currency": price_["currency"],
        "customer": customer_,
        "ended_at": None,
        "items": listed([first], f"/v1/subscription_items?subscription={id_}"),
        "latest_invoice": None,
        "livemode": False,
        "metadata": {},
        "pause_collection": None,
        "start_date": start,
        "status": "active",
    }


def line(id_: str, of: Object, invoice_: str) -> Object:
    """Return the line of an invoice for the current period of a subscription."""
    item = of["items"]["data"][0]
    return {
        "id": id_,
        "object": "line_item",
        "amount": item["price"]["unit_amount"] * item["quantity"],
        "currency": of["currency"],
        "invoice": invoice_,
        "metadata": {},
        "parent": {
            "type": "subscription_item_details",
            "subscription_item_details": {
                "subscription": of["id"],
                "subscription_item": item["id"],
                "proration": False,
            },
        },
        "period": {"start": item["current_period_start"], "end": item["current_period_end"]},
        "pricing": {
            "type": "price_details",
            "price_details": {"price": item["price"]["id"], "product": item["price"]["product"]},
        },
        "quantity": item["quantity"],
    }


def invoice(id_: str, of: Object, lines: list[Object], reason: str, created: int) -> Object:
    """Return a paid invoice of a subscription."""
    amount = sum(one["amount"] for one in lines)
    details = {"subscription": of["id"], "metadata": dict(of["metadata"])}
    return {
        "id": id_,
        "object": "invoice",
        "amount_due": amount,
        "amount_paid": amount,
        "billing_reason": reason,
        "created": created,
        "currency": of["currency"],
        "customer": of["customer"],
        "lines": listed(lines, f"/v1/invoices/{id_}/lines"),
        "livemode": False,
        "metadata": {},
        "parent": {
            "type": "subscription_details",
            "quote_details": None,
            "subscription_details": details,
        },
        "status": "paid",
        "status_transitions": {"paid_at": created, "finalized_at": created},
    }
