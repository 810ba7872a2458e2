"""Objects that a provider lists, as the facts that its webhooks would have told of them.

An object is put into an event of the type that fits it best, and read as any event is. A list says
how things are, not when they came to be so: see `dated`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from msgspec import Struct

from api.providers.stripe_api import Kind
from api.webhooks import asaas_facts, stripe_facts
from api.webhooks.reading import Unreadable
from ledger.domain.facts import PaymentFact, Purchase, fact

Object = dict[str, Any]
TYPES: Final[dict[Kind, str]] = {
    "charges": "charge.succeeded",
    "payment_intents": "payment_intent.succeeded",
    "invoices": "invoice.paid",
    "sessions": "checkout.session.completed",
    "refunds": "refund.updated",
    "disputes": "charge.dispute.updated",
}
ASAAS_TYPE: Final = "PAYMENT_UPDATED"
CHARGED: Final = TYPES["charges"]
_INTENT: Final = "stripe:pi:"
_SETTLED: Final[dict[Kind, Callable[[Object], bool]]] = {
    "charges": lambda one: one.get("paid") is True and one.get("status") == "succeeded",
    "payment_intents": lambda one: one.get("status") == "succeeded",
    "sessions": lambda one: one.get("status") == "complete",
}
"""Of the objects that a list cannot be narrowed to: those that a webhook would have told of."""


class Unread(Struct, frozen=True):
    """An object that lacks what it must say; `why` names a field and its rule."""

    id: str
    why: str


class Told(Struct, frozen=True):
    """What a page of objects tells."""

    facts: tuple[PaymentFact, ...] = ()
    unread: tuple[Unread, ...] = ()


def told_by_stripe(kind: Kind, objects: Iterable[Object]) -> Told:
    """Return what objects of Stripe tell."""
    is_settled = _SETTLED.get(kind)

    def read(one: Object) -> tuple[PaymentFact, ...]:
        event = {"id": one["id"], "created": one.get("created"), "data": {"object": one}}
        return stripe_facts.facts(one["id"], TYPES[kind], event)

    return _told([one for one in objects if is_settled is None or is_settled(one)], read)


def told_by_asaas(payments: Iterable[Object]) -> Told:
    """Return what payments of Asaas tell, but not of those that nobody has paid."""

    def read(one: Object) -> tuple[PaymentFact, ...]:
        facts = asaas_facts.facts(one["id"], ASAAS_TYPE, one)
        unpaid = [isinstance(told.content, Purchase) and not told.content.paid for told in facts]
        return () if all(unpaid) else facts

    return _told(payments, read)


def dated(facts: Sequence[PaymentFact]) -> list[PaymentFact]:
    """Return facts whose purchases are dated as their charges are.

    A checkout session is made before it is paid, up to a day, and what is bought may expire.
    """
    charged_at: dict[str, datetime] = {}
    for one in facts:
        if one.type == CHARGED:
            charged_at |= dict.fromkeys(_intents(one), one.occurred_at)
    return [_dated(one, charged_at) for one in facts]


def _dated(one: PaymentFact, charged_at: dict[str, datetime]) -> PaymentFact:
    if one.provider != "stripe" or not isinstance(one.content, Purchase):
        return one
    times = [charged_at[ref] for ref in _intents(one) if ref in charged_at]
    return redated(one, min(times)) if times else one


def redated(one: PaymentFact, occurred_at: datetime) -> PaymentFact:
    """Return what a fact says as of another time: another fact, with another id."""
    return fact(
        provider=one.provider,
        delivery=one.delivery,
        type=one.type,
        occurred_at=occurred_at,
        refs=set(one.refs),
        owners=set(one.owners),
        content=one.content,
    )


def _intents(one: PaymentFact) -> list[str]:
    return [ref for ref in one.refs if ref.startswith(_INTENT)]


def _told(objects: Iterable[Object], read: Callable[[Object], tuple[PaymentFact, ...]]) -> Told:
    facts: list[PaymentFact] = []
    unread: list[Unread] = []
    for one in objects:
        try:
            facts += read(one)
        except Unreadable as error:
            unread.append(Unread(str(one.get("id")), str(error)))
    return Told(tuple(facts), tuple(unread))
