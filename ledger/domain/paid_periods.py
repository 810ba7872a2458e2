"""What the paid invoices of subscriptions grant for each period, and which of them grants what.

A period is known by its end: when a plan is changed on the way, the invoice for the rest of the
period ends with it. It entitles to the most that was paid for in it, so that an upgrade adds the
difference, and a downgrade takes nothing. Different things that are had beside each other (items
of the subscription) add up; one that takes the place of another (the same invoice gives credit for
the rest of that) does not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime

from msgspec import Struct

from ledger.domain.facts import Line, PeriodPaid, Provider
from ledger.domain.offers import Plan
from ledger.domain.settled import Alert, AlertCode, Offer, Offers
from ledger.domain.values import CREDITS_MAX, Credits


class Invoice(Struct, frozen=True, kw_only=True):
    """A paid invoice, who sent it, and when it was paid."""

    provider: Provider
    paid_at: datetime
    content: PeriodPaid


class PaidLine(Struct, frozen=True, kw_only=True):
    """A line that grants credits."""

    invoice: Invoice
    line: Line
    offer: Offer
    credits: Credits


class Period(Struct):
    """What is paid for one period of one subscription, by item."""

    lines: list[PaidLine]
    replaced: list[tuple[str, str]]
    """Pairs of items of which one took the other's place."""

    def pieces(self) -> dict[str, Credits]:
        """Return what each payment adds, by its key: the sum is what the period entitles to."""
        pieces: dict[str, Credits] = defaultdict(int)
        for paid in self._slots():
            reached = 0
            for amount, payment in sorted((amount, payment) for payment, amount in paid.items()):
                pieces[payment] += amount - reached
                reached = amount
        return pieces

    def _slots(self) -> Iterable[dict[str, Credits]]:
        """Return for each thing that is had beside others, what each payment brings it to."""
        slot_of = {line.line.item: line.line.item for line in self.lines}
        for old, new in self.replaced:
            held = {slot_of.get(old, old), slot_of.get(new, new)}
            slot_of = {item: min(held) if slot in held else slot for item, slot in slot_of.items()}
            slot_of.setdefault(old, min(held))
            slot_of.setdefault(new, min(held))
        # The tiers of one price are lines of their own.
        whole: dict[tuple[str, str, str, datetime], Credits] = defaultdict(int)
        for paid in self.lines:
            line = paid.line
            slot, payment = slot_of[line.item], paid.invoice.content.payment
            whole[slot, payment, line.price or "", line.starts_at] += paid.credits
        slots: dict[str, dict[str, Credits]] = defaultdict(dict)
        for (slot, payment, _, _), amount in whole.items():
            slots[slot][payment] = max(slots[slot].get(payment, 0), amount)
        return slots.values()


def paid_periods(
    invoices: Iterable[Invoice], offers: Offers
) -> tuple[dict[tuple[str, datetime], Period], list[PaidLine], list[Alert]]:
    """Return the periods by subscription and end, the lines that are packs, and what is wrong."""
    periods: dict[tuple[str, datetime], Period] = {}
    packs: list[PaidLine] = []
    alerts: list[Alert] = []
    for invoice in invoices:
        subscription = invoice.content.subscription
        for ends_at in {line.ends_at for line in invoice.content.lines}:
            period = periods.setdefault((subscription, ends_at), Period([], []))
            period.replaced += _replaced(invoice.content, ends_at)
        for line in invoice.content.lines:
            paid = _paid_line(invoice, line, offers, alerts)
            if paid is None:
                continue
            if isinstance(paid.offer.terms, Plan):
                periods[subscription, line.ends_at].lines.append(paid)
            else:
                packs.append(paid)
    return {key: period for key, period in periods.items() if period.lines}, packs, alerts


def _replaced(content: PeriodPaid, ends_at: datetime) -> Iterator[tuple[str, str]]:
    lines = [line for line in content.lines if line.proration and line.ends_at == ends_at]
    credited = {line.item for line in lines if line.amount < 0}
    asked = {line.item for line in lines if line.amount >= 0}
    for old in credited - asked:
        for new in asked - credited:
            yield old, new


def _paid_line(
    invoice: Invoice, line: Line, offers: Offers, alerts: list[Alert]
) -> PaidLine | None:
    def alert(code: AlertCode) -> None:
        alerts.append(Alert(code=code, subject=invoice.content.payment, price=line.price or ""))

    if line.amount < 0 or line.quantity == 0:
        return None
    if line.price is None:
        alert("price_not_told")
        return None
    offer = offers.find(invoice.provider, line.price, invoice.paid_at)
    if offer is None:
        alert("unknown_price")
        return None
    price = offer.terms.price
    if price is not None and price.amount > 0:
        if line.amount == 0:
            return None  # A trial: the period is not paid for.
        if price.currency != invoice.content.money.currency:
            alert("currency_mismatch")
        elif not line.proration and line.amount < price.amount * line.quantity:
            alert("amount_mismatch")
    granted = offer.terms.credits * line.quantity
    if granted > CREDITS_MAX:
        alert("too_many_credits")
        return None
    return PaidLine(invoice=invoice, line=line, offer=offer, credits=granted)
