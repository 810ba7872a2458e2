"""How much of each payment has gone back, and whether it is disputed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final, NamedTuple

from ledger.domain.facts import (
    Dispute,
    DisputeStatus,
    PaymentFact,
    PeriodPaid,
    Purchase,
    Refund,
    RefundedSoFar,
)
from ledger.domain.offers import Money
from ledger.domain.values import Credits

OF_SUBSCRIPTIONS: Final = (
    "stripe:subscription:",
    "clerk:item:",
    "clerk:subscription:",
    "asaas:subscription:",
)
"""Refs that name what many payments are for: they make a group, not one payment."""

_STAGES: Final[dict[DisputeStatus, int]] = {"inquiry": 0, "open": 1, "lost": 2, "won": 3}


class Share(NamedTuple):
    """The part of a payment that has gone back: `back` of `of`."""

    back: int
    of: int
    frozen: bool

    def taken(self, granted: Credits) -> Credits:
        """Return how many of the credits go back with the money.

        All, if all of it did. Else rounded down: never more is taken than the money was worth.
        """
        return granted * self.back // self.of if self.of else 0


class _Payment:
    """What is known to have happened to the money of one payment."""

    def __init__(self) -> None:
        self.so_far: dict[tuple[str, str], int] = defaultdict(int)
        """By charge and currency, the most that was told."""
        self.charges: dict[tuple[str, str], int] = defaultdict(int)
        self.refunds: dict[str, Refund] = {}
        self.disputes: dict[str, Dispute] = {}

    def add(self, fact: PaymentFact) -> None:
        match fact.content:
            case RefundedSoFar() as told:
                key = told.charge, told.money.currency
                self.so_far[key] = max(self.so_far[key], told.money.amount)
                self.charges[key] = max(self.charges[key], told.of.amount)
            case Refund() as told:
                held = self.refunds.get(told.refund, told)
                self.refunds[told.refund] = max(held, told, key=_refund_stage)
            case Dispute() as told:
                known = self.disputes.get(told.dispute, told)
                self.disputes[told.dispute] = max(known, told, key=_dispute_stage)
            case _:
                pass

    def share(self, paid: Money | None) -> Share:
        disputes = self.disputes.values()
        frozen = any(dispute.status == "open" for dispute in disputes)
        lost = [dispute.money for dispute in disputes if dispute.status == "lost"]
        if paid is None:
            back = sum(self.so_far.values()) + sum(self._by_id(failed=False))
            of = sum(self.charges.values()) or 1
            return Share(min(back + len(lost), of) if not lost else of, of, frozen)
        moneys = [*lost, *(refund.money for refund in self.refunds.values() if not refund.failed)]
        currencies = {money.currency for money in moneys} | {key[1] for key in self.so_far}
        if currencies - {paid.currency}:
            # Parts cannot be told in another currency. What goes back counts as all of it.
            return Share(paid.amount, paid.amount, frozen)
        cumulative = sum(self.so_far.values()) - sum(self._by_id(failed=True))
        refunded = max(0, cumulative, sum(self._by_id(failed=False)))
        back = refunded + sum([money.amount for money in lost])
        return Share(min(back, paid.amount), paid.amount, frozen)

    def _by_id(self, *, failed: bool) -> list[int]:
        return [each.money.amount for each in self.refunds.values() if each.failed is failed]


def _refund_stage(refund: Refund) -> tuple[bool, int, str]:
    return refund.failed, refund.money.amount, refund.money.currency


def _dispute_stage(dispute: Dispute) -> tuple[int, int, str]:
    return _STAGES[dispute.status], dispute.money.amount, dispute.money.currency


class MoneyBack:
    """The money of every payment of a group, connected by what names the payment."""

    def __init__(self, facts: Iterable[PaymentFact]) -> None:
        """Connect the facts. Their order does not matter."""
        self._parents: dict[str, str] = {}
        self._payments: dict[str, _Payment] = defaultdict(_Payment)
        named = [(fact, names) for fact in facts if (names := _names(fact))]
        for _, names in named:
            for name in names:
                self._parents[self._root(name)] = self._root(names[0])
        for fact, names in named:
            self._payments[self._root(names[0])].add(fact)

    def share(self, payment: str, paid: Money | None) -> Share:
        """Return what went back of the payment with this key, of which so much was paid."""
        return self._payments[self._root(payment)].share(paid)

    def _root(self, name: str) -> str:
        parent = self._parents.setdefault(name, name)
        while parent != name:
            name, parent = parent, self._parents[parent]
        return name


def _names(fact: PaymentFact) -> list[str]:
    names = [name for name in fact.refs if not name.startswith(OF_SUBSCRIPTIONS)]
    if isinstance(fact.content, Purchase | PeriodPaid):
        names.append(fact.content.payment)
    return names
