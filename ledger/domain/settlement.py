"""From the facts known about payments to what the ledger should hold for them.

A pure function of the set of facts: neither their order nor their repetition can matter, since each
part is a join. A payment is paid once any fact says so; of the sums of one charge the largest
counts, refunds count once for each id, and one that has failed stays failed; a dispute is as far as
any fact says that it went; a subscription stands as its latest fact says, and never begins again.

A refund before its payment is a fact about a payment that is not paid yet. It takes nothing, until
there is something to take.
"""

from __future__ import annotations

from calendar import monthrange
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from ledger.domain.entities import Source
from ledger.domain.facts import (
    CreditsDelta,
    PaymentFact,
    PeriodPaid,
    Purchase,
    Subscription,
    SubscriptionStatus,
)
from ledger.domain.money_back import MoneyBack, Share
from ledger.domain.offers import Pack, Plan
from ledger.domain.offers import Period as PeriodUnit
from ledger.domain.paid_periods import Invoice, Period, paid_periods
from ledger.domain.settled import (
    Alert,
    AlertCode,
    Delta,
    Entitlement,
    Offer,
    Offers,
    Settlement,
    Standing,
)
from ledger.domain.values import CREDITS_MAX

_MONTHS: Final[dict[PeriodUnit, int]] = {"month": 1, "year": 12}
_MONTHS_A_YEAR: Final = 12
_STAGES: Final[dict[SubscriptionStatus, int]] = {
    "upcoming": 0,
    "incomplete": 1,
    "trialing": 2,
    "active": 3,
    "past_due": 4,
    "paused": 5,
    "ended": 6,
}
_NOT_YET: Final = {"upcoming", "incomplete"}


def settle(facts: Iterable[PaymentFact], offers: Offers) -> Settlement:
    """Return what follows from the facts of one group: of all that are connected by their refs."""
    return _Settling({fact.id: fact for fact in facts}, offers).result()


class _Settling:
    """One call of `settle`, as far as it got."""

    def __init__(self, facts: dict[str, PaymentFact], offers: Offers) -> None:
        self.facts = [facts[id_] for id_ in sorted(facts)]
        self.offers = offers
        self.money_back = MoneyBack(self.facts)
        self.alerts: list[Alert] = []
        self.entitlements: list[Entitlement] = []
        self.standings: dict[str, Standing] = {}

    def result(self) -> Settlement:
        self._purchases()
        self._invoices()
        self._subscriptions()
        deltas = self._deltas()
        return Settlement(
            entitlements=tuple(sorted(self.entitlements, key=lambda each: each.payment)),
            standings=tuple([self.standings[key] for key in sorted(self.standings)]),
            deltas=tuple(sorted(deltas, key=lambda delta: delta.delta)),
            alerts=tuple(sorted(set(self.alerts))),
            owners=tuple(sorted({owner for fact in self.facts for owner in fact.owners})),
        )

    def _purchases(self) -> None:
        paid: dict[str, list[tuple[datetime, Purchase, PaymentFact]]] = defaultdict(list)
        for fact in self.facts:
            if isinstance(fact.content, Purchase) and fact.content.paid:
                paid[fact.content.payment].append((fact.occurred_at, fact.content, fact))
        for told in paid.values():
            # What the provider itself says comes first, then what says more, then what is older.
            told.sort(key=lambda each: (not each[1].sure, each[1].price is None, each[0]))
            _, purchase, fact = told[0]
            self._purchase(purchase, fact, min(at for at, _, _ in told))

    def _purchase(self, purchase: Purchase, fact: PaymentFact, paid_at: datetime) -> None:
        offer = self._bought(purchase, fact, paid_at)
        if offer is None:
            return
        share = self.money_back.share(purchase.payment, purchase.money)
        starts_at = purchase.starts_at or paid_at
        entitlement = _of_payment(
            purchase.payment,
            offer,
            purchase.quantity,
            share=share,
            paid_at=paid_at,
            starts_at=starts_at,
            subscription=purchase.subscription or purchase.payment,
        )
        self.entitlements.append(entitlement)
        if entitlement.ends_at is not None and (share.back < share.of or not share.of):
            self._stands_by_payment(purchase, offer, paid_at, starts_at, entitlement.ends_at)

    def _bought(self, purchase: Purchase, fact: PaymentFact, paid_at: datetime) -> Offer | None:
        def alert(code: AlertCode) -> None:
            self.alerts.append(
                Alert(code=code, subject=purchase.payment, price=purchase.price or "")
            )

        if purchase.price is None:
            alert("price_not_told")
            return None
        offer = self.offers.find(fact.provider, purchase.price, paid_at)
        if offer is None:
            alert("unknown_price")
            return None
        terms, quantity = offer.terms, purchase.quantity
        bonus = terms.bonus if isinstance(terms, Pack) else 0
        if max(terms.credits, bonus) * quantity > CREDITS_MAX:
            alert("too_many_credits")
            return None
        listed = purchase.listed
        if terms.price is not None and listed is not None:
            if terms.price.currency != listed.currency:
                alert("currency_mismatch")
                return offer if purchase.sure else None
            if listed.amount < terms.price.amount * quantity:
                alert("amount_mismatch")
                # Only a reference says what this money is for, and it is too little for that.
                return offer if purchase.sure else None
        return offer

    def _stands_by_payment(
        self,
        purchase: Purchase,
        offer: Offer,
        paid_at: datetime,
        starts_at: datetime,
        ends_at: datetime,
    ) -> None:
        """Let a plan that is paid for by single payments stand for as long as it is paid for."""
        key = purchase.subscription or purchase.payment
        held = self.standings.get(key)
        if held is not None and held.ends_at is not None and held.ends_at >= ends_at:
            return
        self.standings[key] = Standing(
            subscription=key,
            status="active",
            plan=offer.key,
            starts_at=starts_at,
            ends_at=ends_at,
            cancel_at=None if purchase.subscription else ends_at,
            since=paid_at,
        )

    def _invoices(self) -> None:
        paid_at: dict[str, datetime] = {}
        told: dict[str, tuple[PaymentFact, PeriodPaid]] = {}
        for fact in self.facts:
            content = fact.content
            if isinstance(content, PeriodPaid):
                key = content.payment
                paid_at[key] = min(paid_at.get(key, fact.occurred_at), fact.occurred_at)
                held = told.get(key)
                # A paid invoice does not change. If it was told in two ways, the fuller counts.
                if held is None or len(held[1].lines) < len(content.lines):
                    told[key] = fact, content
        invoices = [
            Invoice(provider=fact.provider, paid_at=paid_at[key], content=content)
            for key, (fact, content) in told.items()
        ]
        periods, packs, alerts = paid_periods(invoices, self.offers)
        self.alerts += alerts
        moneys = {invoice.content.payment: invoice.content.money for invoice in invoices}
        for (subscription, ends_at), period in periods.items():
            pieces = period.pieces()
            shares = {
                payment: self.money_back.share(payment, moneys[payment]) for payment in pieces
            }
            taken = sum([shares[payment].taken(amount) for payment, amount in pieces.items()])
            frozen = any(shares[payment].frozen for payment in pieces)
            self.entitlements.append(
                _of_period(subscription, ends_at, period, taken=taken, frozen=frozen)
            )
        for paid in packs:
            key = paid.invoice.content.payment
            share = self.money_back.share(key, moneys[key])
            at = paid.invoice.paid_at
            line = paid.line
            self.entitlements.append(
                _of_payment(
                    f"{key}:{line.id}",
                    paid.offer,
                    line.quantity,
                    share=share,
                    paid_at=at,
                    starts_at=at,
                    subscription=paid.invoice.content.subscription,
                )
            )

    def _subscriptions(self) -> None:
        latest: dict[str, tuple[PaymentFact, Subscription]] = {}
        for fact in self.facts:
            content = fact.content
            if isinstance(content, Subscription):
                held = latest.get(content.subscription)
                if held is None or _moment(*held) < _moment(fact, content):
                    latest[content.subscription] = fact, content
        for key, (fact, content) in latest.items():
            ends = [item.ends_at for item in content.items if item.ends_at]
            starts = [item.starts_at for item in content.items if item.starts_at]
            self.standings[key] = Standing(
                subscription=key,
                status=content.status,
                plan=self._plan(fact, content),
                starts_at=max(starts, default=None),
                ends_at=max(ends, default=None),
                cancel_at=content.cancel_at,
                ended_at=content.ended_at,
                since=fact.occurred_at,
            )

    def _plan(self, fact: PaymentFact, content: Subscription) -> str | None:
        """Return the key of the plan that is had: of several, the biggest."""
        if content.status == "ended":
            return self.offers.fallback(fact.occurred_at)
        if content.status in _NOT_YET:
            return None
        found: list[tuple[int, str]] = []
        for item in content.items:
            offer = None
            if item.price is not None:
                offer = self.offers.find(fact.provider, item.price, fact.occurred_at)
            if offer is not None and isinstance(offer.terms, Plan):
                found.append((offer.terms.credits * item.quantity, offer.key))
            elif offer is None and not content.free:
                subject = content.subscription
                self.alerts.append(
                    Alert(code="unknown_price", subject=subject, price=item.price or "")
                )
        if not found and content.free:
            return self.offers.fallback(fact.occurred_at)
        return max(found)[1] if found else None

    def _deltas(self) -> list[Delta]:
        told: dict[str, tuple[datetime, str, CreditsDelta]] = {}
        for fact in self.facts:
            content = fact.content
            if isinstance(content, CreditsDelta):
                this = fact.occurred_at, fact.id, content
                held = told.get(content.delta, this)
                if held[2].amount != content.amount:
                    self.alerts.append(Alert(code="delta_mismatch", subject=content.delta))
                told[content.delta] = min(held, this, key=lambda each: each[:2])
        return [Delta(delta=key, amount=content.amount) for key, (_, _, content) in told.items()]


def _moment(fact: PaymentFact, content: Subscription) -> tuple[bool, datetime, int, int, str]:
    """Return what orders the facts of one subscription: it ends once, and for good."""
    ended = content.status == "ended"
    return ended, fact.occurred_at, content.step, _STAGES[content.status], fact.id


def _of_payment(
    key: str,
    offer: Offer,
    quantity: int,
    *,
    share: Share,
    paid_at: datetime,
    starts_at: datetime,
    subscription: str,
) -> Entitlement:
    terms = offer.terms
    granted, bonus = terms.credits * quantity, 0
    ends_at = expires_at = None
    if isinstance(terms, Pack):
        bonus = terms.bonus * quantity
        if terms.expires_days is not None:
            expires_at = paid_at + timedelta(days=terms.expires_days)
    else:
        ends_at = months_after(starts_at, _MONTHS[terms.period])
        expires_at = None if terms.rollover == "all" else ends_at
    return Entitlement(
        payment=key,
        offer=offer.key,
        kind=terms.kind if isinstance(terms, Plan) else "paid",
        priority=terms.priority,
        credits=granted,
        bonus=bonus,
        reversed=share.taken(granted),
        bonus_reversed=share.taken(bonus),
        frozen=share.frozen,
        effective_at=min(paid_at, starts_at),
        expires_at=expires_at,
        subscription=None if ends_at is None else subscription,
        starts_at=None if ends_at is None else starts_at,
        ends_at=ends_at,
        quantity=1 if ends_at is None else quantity,
        source=Source("payment", key),
    )


def _of_period(
    subscription: str, ends_at: datetime, period: Period, *, taken: int, frozen: bool
) -> Entitlement:
    biggest = max(period.lines, key=lambda line: (line.credits, line.offer.key))
    terms = biggest.offer.terms
    assert isinstance(terms, Plan)
    key = f"{subscription}:{int(ends_at.timestamp())}"
    starts_at = min(line.line.starts_at for line in period.lines)
    return Entitlement(
        payment=key,
        offer=biggest.offer.key,
        kind=terms.kind,
        priority=terms.priority,
        credits=sum(period.pieces().values()),
        reversed=taken,
        frozen=frozen,
        effective_at=starts_at,
        expires_at=None if terms.rollover == "all" else ends_at,
        subscription=subscription,
        starts_at=starts_at,
        ends_at=ends_at,
        quantity=biggest.line.quantity,
        source=Source("subscription", subscription),
    )


def months_after(start: datetime, months: int) -> datetime:
    """Return the same day and time so many months later, or the last day of a shorter month."""
    count = start.year * _MONTHS_A_YEAR + start.month - 1 + months
    year, month = count // _MONTHS_A_YEAR, count % _MONTHS_A_YEAR + 1
    return start.replace(year=year, month=month, day=min(start.day, monthrange(year, month)[1]))
