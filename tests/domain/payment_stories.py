"""Payloads of providers, as small as they can be, and a catalog that knows their prices."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from msgspec import Struct

from api.webhooks import asaas_facts, clerk_facts, stripe_facts, users_facts
from ledger.domain.facts import PaymentFact, Provider
from ledger.domain.offers import Money, Pack, Plan
from ledger.domain.settled import Offer

MICRO = 1_000_000
T0 = 1_790_000_000
T1 = T0 + 30 * 86_400
T2 = T1 + 30 * 86_400
SMALL, BIG, PACK, BONUS = 100 * MICRO, 300 * MICRO, 1_000 * MICRO, 50 * MICRO

SMALL_PLAN = Offer("small", Plan(name="Small", price=Money(1_000, "USD"), credits=SMALL))
BIG_PLAN = Offer("big", Plan(name="Big", price=Money(3_000, "USD"), credits=BIG))
A_PACK = Offer(
    "pack",
    Pack(name="Pack", price=Money(1_000, "USD"), credits=PACK, bonus=BONUS, expires_days=365),
)
A_PACK_IN_BRL = Offer("pacote", Pack(name="Pacote", price=Money(10_000, "BRL"), credits=PACK))
A_PLAN_IN_BRL = Offer("plano", Plan(name="Plano", price=Money(5_000, "BRL"), credits=SMALL))
PRICES: dict[tuple[str, str], Offer] = {
    ("stripe", "price_small"): SMALL_PLAN,
    ("stripe", "price_big"): BIG_PLAN,
    ("stripe", "price_pack"): A_PACK,
    ("clerk", "cplan_small"): SMALL_PLAN,
    ("asaas", "pacote"): A_PACK_IN_BRL,
    ("asaas", "plano"): A_PLAN_IN_BRL,
}


class TheOffers:
    """A catalog that never changed."""

    def find(self, provider: Provider, price: str, when: datetime) -> Offer | None:
        assert when.tzinfo is UTC
        return PRICES.get((provider, price))

    def fallback(self, when: datetime) -> str | None:
        assert when.tzinfo is UTC
        return "free"


OFFERS = TheOffers()
_READ: dict[str, Callable[[str, str, dict[str, Any]], tuple[PaymentFact, ...]]] = {
    "stripe": stripe_facts.facts,
    "clerk": clerk_facts.facts,
    "asaas": asaas_facts.facts,
    "users": users_facts.facts,
}


class Delivery(Struct, frozen=True, eq=False):
    """A webhook as it comes in, and what it is called in a story."""

    name: str
    provider: str
    type: str
    payload: dict[str, Any]

    def facts(self, delivery_id: str = "evt_1") -> tuple[PaymentFact, ...]:
        return _READ[self.provider](delivery_id, self.type, self.payload)


def when(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def stripe(name: str, type_: str, at: int, object_: dict[str, Any]) -> Delivery:
    event = {
        "id": f"evt_{name}",
        "object": "event",
        "type": type_,
        "created": at,
        "livemode": False,
    }
    return Delivery(name, "stripe", type_, {**event, "data": {"object": object_}})


def session(name: str, type_: str, at: int = T0, **changes: Any) -> Delivery:
    object_ = {
        "id": "cs_1",
        "object": "checkout.session",
        "mode": "payment",
        "payment_status": "paid",
        "amount_subtotal": 1_000,
        "amount_total": 1_000,
        "currency": "usd",
        "client_reference_id": "acct",
        "customer": "cus_1",
        "customer_details": {"email": "somebody@example.org"},
        "payment_intent": "pi_1",
        "invoice": None,
        "subscription": None,
        "metadata": {"scrip_price": "price_pack"},
        **changes,
    }
    return stripe(name, f"checkout.session.{type_}", at, object_)


def refunded(name: str, so_far: int, at: int = T0, **changes: Any) -> Delivery:
    object_ = {
        "id": "ch_1",
        "object": "charge",
        "amount": 1_000,
        "amount_refunded": so_far,
        "currency": "usd",
        "payment_intent": "pi_1",
        **changes,
    }
    return stripe(name, "charge.refunded", at, object_)


def refund(name: str, type_: str, status: str, amount: int, id_: str = "re_1") -> Delivery:
    object_ = {
        "id": id_,
        "object": "refund",
        "amount": amount,
        "currency": "usd",
        "charge": "ch_1",
        "payment_intent": "pi_1",
        "status": status,
    }
    return stripe(name, type_, T0, object_)


def line(
    id_: str, price: str, amount: int, start: int = T0, end: int = T1, **details: Any
) -> dict[str, Any]:
    return {
        "id": id_,
        "amount": amount,
        "currency": "usd",
        "quantity": 1,
        "period": {"start": start, "end": end},
        "parent": {
            "subscription_item_details": {
                "subscription": "sub_1",
                "subscription_item": "si_1",
                "proration": False,
                **details,
            }
        },
        "pricing": {"price_details": {"price": price}},
    }


def invoice(
    name: str, type_: str, id_: str, *lines: dict[str, Any], at: int = T0, **changes: Any
) -> Delivery:
    object_ = {
        "id": id_,
        "object": "invoice",
        "status": "paid",
        "amount_paid": sum(each["amount"] for each in lines),
        "currency": "usd",
        "customer": "cus_1",
        "parent": {
            "subscription_details": {
                "subscription": "sub_1",
                "metadata": {"scrip_account": "acct"},
            }
        },
        "lines": {"object": "list", "has_more": False, "data": list(lines)},
        "status_transitions": {"paid_at": at},
        **changes,
    }
    return stripe(name, type_, at + 1, object_)


def subscription(
    name: str, change: str, at: int, status: str, price: str, **changes: Any
) -> Delivery:
    object_ = {
        "id": "sub_1",
        "object": "subscription",
        "status": status,
        "customer": "cus_1",
        "cancel_at_period_end": False,
        "items": {
            "data": [
                {
                    "id": "si_1",
                    "quantity": 1,
                    "price": {"id": price},
                    "current_period_start": T0,
                    "current_period_end": T1,
                }
            ]
        },
        **changes,
    }
    return stripe(name, f"customer.subscription.{change}", at, object_)


def dispute(name: str, type_: str, status: str, **changes: Any) -> Delivery:
    object_ = {
        "id": "dp_1",
        "object": "dispute",
        "amount": 1_000,
        "currency": "usd",
        "charge": "ch_1",
        "payment_intent": "pi_1",
        "status": status,
        **changes,
    }
    return stripe(name, f"charge.dispute.{type_}", T0, object_)


def item(status: str, start: int = T0, end: int = T1, **changes: Any) -> dict[str, Any]:
    return {
        "object": "commerce_subscription_item",
        "id": "csi_1",
        "status": status,
        "plan_period": "month",
        "period_start": start * 1_000,
        "period_end": end * 1_000,
        "amount": {"amount": 1_000, "currency": "USD"},
        "plan": {"id": "cplan_small", "is_default": False, "amount": 1_000, "currency": "USD"},
        "payer": {"user_id": "user_1", "email": "somebody@example.org"},
        **changes,
    }


def clerk(name: str, type_: str, at: int, data: dict[str, Any]) -> Delivery:
    event = {
        "object": "event",
        "type": type_,
        "timestamp": at * 1_000,
        "event_attributes": {"http_request": {"client_ip": "192.0.2.1"}},
    }
    return Delivery(name, "clerk", type_, {**event, "data": data})


def asaas(name: str, type_: str, status: str, **changes: Any) -> Delivery:
    payment = {
        "object": "payment",
        "id": "pay_1",
        "customer": "cus_9",
        "value": Decimal("100.0"),
        "status": status,
        "externalReference": "acct:pacote",
        "dateCreated": "2026-09-20",
        "confirmedDate": "2026-09-21",
        "dueDate": "2026-09-25",
        "deleted": False,
        "creditCard": {"creditCardNumber": "4242"},
        **changes,
    }
    return Delivery(name, "asaas", type_, payment)


def done(*values: str) -> list[dict[str, Any]]:
    return [{"status": "DONE", "value": Decimal(value)} for value in values]
