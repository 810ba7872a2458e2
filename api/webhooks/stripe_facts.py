"""Events of Stripe to payment facts. Objects of before and after 2025-03-31.basil are understood.

What is ours in the metadata of Stripe's objects: `scrip_account`, the account; `scrip_price`, the
price that a checkout session is for (a webhook does not tell its line items); and `scrip_top_up`,
the price that a payment intent without a session is for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from msgspec import Struct

from api.webhooks.reading import Part, Unreadable, refs
from ledger.domain.facts import (
    QUANTITY_MAX,
    Content,
    Dispute,
    DisputeStatus,
    Item,
    Line,
    Link,
    PaymentFact,
    PeriodPaid,
    Purchase,
    Refund,
    RefundedSoFar,
    Subscription,
    SubscriptionStatus,
    fact,
)

_DISPUTES: Final[dict[str, DisputeStatus]] = {
    "warning_needs_response": "inquiry",
    "warning_under_review": "inquiry",
    "warning_closed": "inquiry",
    "prevented": "inquiry",
    "needs_response": "open",
    "under_review": "open",
    "lost": "lost",
    "won": "won",
}
_STATUSES: Final[dict[str, SubscriptionStatus]] = {
    "incomplete": "incomplete",
    "incomplete_expired": "ended",
    "trialing": "trialing",
    "active": "active",
    "past_due": "past_due",
    "unpaid": "past_due",
    "paused": "paused",
    "canceled": "ended",
}
_QUANTITY: Final = re.compile(r"[1-9][0-9]{0,6}", re.ASCII)
_STEPS: Final = {"customer.subscription.created": 0, "customer.subscription.deleted": 2}


class _Told(Struct, frozen=True, kw_only=True):
    """What one object says."""

    refs: set[str]
    owners: set[str]
    content: Content
    at: datetime | None = None
    """When, if the object itself says so."""


def facts(delivery_id: str, type: str, payload: dict[str, Any]) -> tuple[PaymentFact, ...]:  # noqa: A002 - the provider's word
    """Return what an event of Stripe tells: nothing, if its type is none of ours.

    `payload` is the whole event. Raises Unreadable where a field that is needed is not there.
    """
    read = _READERS.get(type)
    if read is None:
        return ()
    event = Part(payload)
    told = read(type, event.part("data", "object"))
    if told is None:
        return ()
    at = told.at or event.needed_time("created")
    return (
        fact(
            provider="stripe",
            delivery=delivery_id,
            type=type,
            occurred_at=at,
            refs=told.refs,
            owners=told.owners,
            content=told.content,
        ),
    )


def _owners(part: Part, account: str | None = None) -> set[str]:
    named = refs(stripe_customer=part.id("customer"))
    for name in (account, part.part("metadata").name("scrip_account")):
        if name:
            named.add(f"account:{name}")
    return named


def _session(_: str, session: Part) -> _Told | None:
    id_ = session.needed_id("id")
    named = refs(
        stripe_session=id_,
        stripe_pi=session.id("payment_intent"),
        stripe_invoice=session.id("invoice"),
        stripe_subscription=session.id("subscription"),
    )
    owners = _owners(session, session.name("client_reference_id"))
    if session.text("mode") != "payment":
        # What a subscription grants, its invoices say.
        return _Told(refs=named, owners=owners, content=Link())
    items = list(session.parts("line_items"))
    if len(items) > 1 or session.part("line_items").get("has_more") is True:
        raise Unreadable(session.field("line_items"), "must be one: a checkout is for one pack")
    price = items[0].id("price") if items else None
    content = Purchase(
        payment=f"stripe:session:{id_}",
        paid=session.text("payment_status") in {"paid", "no_payment_required"},
        price=price or session.part("metadata").id("scrip_price"),
        quantity=items[0].quantity() if items else _quantity(session),
        listed=session.money("amount_subtotal") or session.money("amount_total"),
        money=session.money("amount_total"),
        sure=price is not None,
    )
    return _Told(refs=named, owners=owners, content=content)


def _quantity(session: Part) -> int:
    """Return how many, as it stands in the metadata: texts all of them."""
    metadata = session.part("metadata")
    told = metadata.text("scrip_quantity")
    if not told:
        return 1
    if _QUANTITY.fullmatch(told) and int(told) <= QUANTITY_MAX:
        return int(told)
    raise Unreadable(metadata.field("scrip_quantity"), f"must be 1 to {QUANTITY_MAX}")


def _intent(_: str, intent: Part) -> _Told | None:
    named = refs(
        stripe_pi=intent.needed_id("id"),
        stripe_charge=intent.id("latest_charge"),
        stripe_invoice=intent.id("invoice"),
    )
    price = intent.part("metadata").id("scrip_top_up")
    content: Content = Link()
    if price:
        money = intent.money("amount_received") or intent.needed_money("amount")
        payment = f"stripe:pi:{intent.id('id')}"
        content = Purchase(payment=payment, paid=True, price=price, listed=money, money=money)
    return _Told(refs=named, owners=_owners(intent), content=content)


def _charge_refs(charge: Part) -> set[str]:
    return refs(
        stripe_charge=charge.needed_id("id"),
        stripe_pi=charge.id("payment_intent"),
        stripe_invoice=charge.id("invoice"),
    )


def _charge(_: str, charge: Part) -> _Told | None:
    return _Told(refs=_charge_refs(charge), owners=_owners(charge), content=Link())


def _charge_refunded(_: str, charge: Part) -> _Told | None:
    content = RefundedSoFar(
        charge=f"stripe:charge:{charge.needed_id('id')}",
        money=charge.needed_money("amount_refunded"),
        of=charge.needed_money("amount"),
    )
    return _Told(refs=_charge_refs(charge), owners=_owners(charge), content=content)


def _refund(_: str, refund: Part) -> _Told | None:
    named = refs(stripe_charge=refund.id("charge"), stripe_pi=refund.id("payment_intent"))
    if not named:
        return None  # Of a customer's balance, say: no payment that we know of.
    content = Refund(
        refund=f"stripe:refund:{refund.needed_id('id')}",
        money=refund.needed_money("amount"),
        failed=refund.text("status") in {"failed", "canceled"},
    )
    return _Told(refs=named, owners=set(), content=content)


def _dispute(_: str, dispute: Part) -> _Told | None:
    named = refs(stripe_charge=dispute.id("charge"), stripe_pi=dispute.id("payment_intent"))
    if not named:
        raise Unreadable(dispute.field("charge"), "must be an id")
    status = _DISPUTES.get(dispute.text("status"))
    if status is None:
        raise Unreadable(dispute.field("status"), "must be a status of a dispute")
    content = Dispute(
        dispute=f"stripe:dispute:{dispute.needed_id('id')}",
        money=dispute.needed_money("amount"),
        status=status,
    )
    return _Told(refs=named, owners=set(), content=content)


def _invoice(_: str, invoice: Part) -> _Told | None:
    if invoice.text("status") != "paid":
        return None
    id_ = invoice.needed_id("id")
    details = invoice.part("parent", "subscription_details")
    if not details:
        details = invoice.part("subscription_details")
    subscription = invoice.part("parent", "subscription_details").id("subscription") or invoice.id(
        "subscription"
    )
    named = refs(
        stripe_invoice=id_,
        stripe_subscription=subscription,
        stripe_charge=invoice.id("charge"),
        stripe_pi=invoice.id("payment_intent"),
    )
    for paid in invoice.parts("payments"):
        named |= _payment_refs(paid.part("payment"))
    owners = _owners(invoice) | _owners(details)
    at = invoice.part("status_transitions").time("paid_at")
    if subscription is None:
        # What is bought once is granted by its checkout session.
        return _Told(refs=named, owners=owners, content=Link(), at=at)
    if invoice.part("lines").get("has_more") is True:
        raise Unreadable(invoice.field("lines"), "are not all here: fetch the invoice's lines")
    money = invoice.needed_money("amount_paid")
    content = PeriodPaid(
        payment=f"stripe:invoice:{id_}",
        subscription=f"stripe:subscription:{subscription}",
        money=money,
        lines=tuple([_line(line) for line in invoice.parts("lines")]),
    )
    return _Told(refs=named, owners=owners, content=content, at=at)


def _line(line: Part) -> Line:
    parent = line.part("parent", "subscription_item_details")
    amount = line.whole("amount")
    if amount is None:
        raise Unreadable(line.field("amount"), "must be a whole number of the smallest unit")
    period = line.part("period")
    return Line(
        id=line.needed_id("id"),
        item=parent.id("subscription_item") or line.id("subscription_item") or "",
        price=line.part("pricing", "price_details").id("price")
        or line.id("price")
        or line.id("plan"),
        quantity=line.quantity(),
        amount=amount,
        starts_at=period.needed_time("start"),
        ends_at=period.needed_time("end"),
        proration=parent.get("proration") is True
        or line.part("parent", "invoice_item_details").get("proration") is True
        or line.get("proration") is True,
    )


def _payment_refs(payment: Part) -> set[str]:
    return refs(stripe_pi=payment.id("payment_intent"), stripe_charge=payment.id("charge"))


def _invoice_payment(_: str, paid: Part) -> _Told | None:
    named = refs(stripe_invoice=paid.needed_id("invoice")) | _payment_refs(paid.part("payment"))
    return _Told(refs=named, owners=set(), content=Link())


def _subscription(type_: str, subscription: Part) -> _Told | None:
    id_ = subscription.needed_id("id")
    status = _STATUSES.get(subscription.text("status"))
    if status is None:
        raise Unreadable(subscription.field("status"), "must be a status of a subscription")
    if status in {"active", "trialing"} and subscription.part("pause_collection"):
        status = "paused"
    items = tuple([_item(item, subscription) for item in subscription.parts("items")])
    cancel_at = subscription.time("cancel_at")
    if cancel_at is None and subscription.get("cancel_at_period_end") is True:
        cancel_at = max((item.ends_at for item in items if item.ends_at), default=None)
    content = Subscription(
        subscription=f"stripe:subscription:{id_}",
        status=status,
        items=items,
        cancel_at=cancel_at,
        ended_at=subscription.time("ended_at"),
        step=_STEPS.get(type_, 1),
    )
    named = refs(stripe_subscription=id_)
    return _Told(refs=named, owners=_owners(subscription), content=content)


def _item(item: Part, subscription: Part) -> Item:
    return Item(
        id=item.needed_id("id"),
        price=item.id("price") or item.id("plan"),
        quantity=item.quantity(),
        starts_at=item.time("current_period_start") or subscription.time("current_period_start"),
        ends_at=item.time("current_period_end") or subscription.time("current_period_end"),
    )


def _customer(_: str, customer: Part) -> _Told | None:
    owners = refs(stripe_customer=customer.needed_id("id")) | _owners(customer)
    return _Told(refs=set(), owners=owners, content=Link()) if len(owners) > 1 else None


_READERS: Final[dict[str, Callable[[str, Part], _Told | None]]] = {
    "checkout.session.completed": _session,
    "checkout.session.async_payment_succeeded": _session,
    "checkout.session.async_payment_failed": _session,
    "payment_intent.succeeded": _intent,
    "charge.succeeded": _charge,
    "charge.refunded": _charge_refunded,
    "refund.created": _refund,
    "refund.updated": _refund,
    "refund.failed": _refund,
    "charge.refund.updated": _refund,
    "charge.dispute.created": _dispute,
    "charge.dispute.updated": _dispute,
    "charge.dispute.closed": _dispute,
    "charge.dispute.funds_withdrawn": _dispute,
    "charge.dispute.funds_reinstated": _dispute,
    "invoice.paid": _invoice,
    "invoice.payment_succeeded": _invoice,
    "invoice_payment.paid": _invoice_payment,
    "customer.subscription.created": _subscription,
    "customer.subscription.updated": _subscription,
    "customer.subscription.paused": _subscription,
    "customer.subscription.resumed": _subscription,
    "customer.subscription.deleted": _subscription,
    "customer.created": _customer,
    "customer.updated": _customer,
}
