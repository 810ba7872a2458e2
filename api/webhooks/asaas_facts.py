"""Payments of Asaas to payment facts, from the payment as Asaas itself answers when it is asked.

A webhook of Asaas is not signed, so that nothing follows from its body: the payment is fetched.
"""

from __future__ import annotations

from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from api.webhooks.reading import MINOR_MAX, Part, Unreadable, in_range, refs
from ledger.domain.facts import (
    Content,
    Dispute,
    DisputeStatus,
    PaymentFact,
    Purchase,
    Refund,
    RefundedSoFar,
    fact,
)
from ledger.domain.offers import Money
from ledger.domain.values import is_name

_ZONE: Final = ZoneInfo("America/Sao_Paulo")
_CENTS: Final = 100
_HAVE: Final = {"CONFIRMED", "RECEIVED", "RECEIVED_IN_CASH", "DUNNING_RECEIVED"}
_WON: Final = {"AWAITING_CHARGEBACK_REVERSAL"}
_GOING: Final = {
    "REFUND_REQUESTED",
    "REFUND_IN_PROGRESS",
    "REFUNDED",
    "CHARGEBACK_REQUESTED",
    "CHARGEBACK_DISPUTE",
}
_PAID: Final = _HAVE | _WON | _GOING
"""A payment that has any of these has been paid, whatever became of the money."""
_DISPUTES: Final[dict[str, DisputeStatus]] = {
    "REQUESTED": "open",
    "IN_DISPUTE": "open",
    "DISPUTE_LOST": "lost",
    "REVERSED": "won",
}


def facts(delivery_id: str, type: str, payload: dict[str, Any]) -> tuple[PaymentFact, ...]:  # noqa: A002 - the provider's word
    """Return what a payment of Asaas tells, as it is now.

    `payload` is the payment object, its numbers read as Decimal; `type` the event for which it was
    fetched. Raises Unreadable where a field that is needed is not there.
    """
    payment = Part(payload)
    id_ = payment.needed_id("id")
    key = f"asaas:payment:{id_}"
    money = Money(_cents(payment, "value"), "BRL")
    account, price = _reference(payment)
    owners = refs(asaas_customer=payment.id("customer"))
    if account:
        owners.add(f"account:{account}")
    subscription = payment.id("subscription")
    contents: list[Content] = [
        Purchase(
            payment=key,
            paid=payment.text("status") in _PAID,
            price=price,
            listed=money,
            money=money,
            starts_at=_start(payment, "dueDate") if subscription else None,
            subscription=f"asaas:subscription:{subscription}" if subscription else None,
        ),
        *_money_back(key, type, payment, money),
    ]
    at = _paid_at(payment)
    named = refs(asaas_payment=id_, asaas_subscription=subscription)
    return tuple(
        [
            fact(
                provider="asaas",
                delivery=delivery_id,
                type=type,
                occurred_at=at,
                refs=named,
                owners=owners,
                content=content,
            )
            for content in contents
        ]
    )


def _money_back(key: str, type_: str, payment: Part, money: Money) -> list[Content]:
    contents: list[Content] = []
    status = payment.text("status")
    refunded = sum(
        _cents(refund, "value")
        for refund in payment.parts("refunds")
        if refund.text("status") == "DONE"
    )
    if status == "REFUNDED" and not refunded:
        refunded = money.amount
    if refunded:
        so_far = Money(min(refunded, money.amount), "BRL")
        contents.append(RefundedSoFar(charge=key, money=so_far, of=money))
    if payment.part("chargeback") or status in _WON | {
        "CHARGEBACK_REQUESTED",
        "CHARGEBACK_DISPUTE",
    }:
        stands = _chargeback(payment, status)
        contents.append(Dispute(dispute=f"{key}:chargeback", money=money, status=stands))
    # It was paid, and then it was not: of a payment that never was, this takes nothing.
    undone = type_ == "PAYMENT_RECEIVED_IN_CASH_UNDONE" and status not in _PAID
    if undone or (payment.get("deleted") is True and status not in _GOING):
        contents.append(Refund(refund=f"{key}:undone", money=money, failed=False))
    return contents


def _chargeback(payment: Part, status: str) -> DisputeStatus:
    if status in _WON:
        return "won"  # Asaas waits for the acquirer, and has decided.
    told = payment.part("chargeback").text("status")
    if told == "DONE":
        return "won" if status in _HAVE else "lost"
    if not told:
        return "open"
    if told not in _DISPUTES:
        raise Unreadable(payment.field("chargeback.status"), "must be a status of a chargeback")
    return _DISPUTES[told]


def _cents(part: Part, name: str) -> int:
    value = part.get(name)
    if type(value) is int:
        value = Decimal(value)
    if isinstance(value, Decimal) and value.is_finite() and 0 <= value <= MINOR_MAX:
        cents = value * _CENTS
        if cents == int(cents):
            return int(cents)
    raise Unreadable(part.field(name), "must be reais, with at most 2 decimal places")


def _reference(payment: Part) -> tuple[str | None, str | None]:
    """Return the account and the price of `account:price`; a payment link is a price as well."""
    reference = payment.text("externalReference")
    account, _, price = reference.rpartition(":")
    if not account:
        account, price = reference, ""
    return (account if is_name(account) else None), (price or payment.id("paymentLink"))


def _day(payment: Part, name: str) -> date | None:
    try:
        return date.fromisoformat(payment.text(name))
    except ValueError:
        return None


def _start(payment: Part, name: str) -> datetime | None:
    # Asaas tells days. Their start is never later than what happened on them.
    day = _day(payment, name)
    if day is None:
        return None
    return in_range(datetime.combine(day, time(0), _ZONE))


def _paid_at(payment: Part) -> datetime:
    """Return when it was paid: from days that are the same whenever it is fetched."""
    for name in ("confirmedDate", "clientPaymentDate", "paymentDate", "dateCreated"):
        found = _start(payment, name)
        if found is not None:
            return found
    raise Unreadable(payment.field("dateCreated"), "must be a day")
