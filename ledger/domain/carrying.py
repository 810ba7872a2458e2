"""What goes over from one paid period of a subscription into the next, as far as is known.

A refund or a dispute can come after that. So what goes over is, like a payment, a whole that the
ledger is told again when more is known: from what was unspent at the end, by the events of the
ledger up to some version of the account. That version is the revision: who knows more, wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from msgspec import Struct

from ledger.domain.commands import ApplyPayment
from ledger.domain.entities import Grant, Source
from ledger.domain.events import Event, GrantExpired, PaymentApplied
from ledger.domain.offers import Plan
from ledger.domain.payment_ids import payment_grant_id
from ledger.domain.rollover import ROLLED, Ended, carried


class PaidPeriod(Struct, frozen=True, kw_only=True):
    """A period of a subscription that is paid. `terms` are those of its plan, as it was sold."""

    payment: str
    terms: Plan
    starts_at: datetime
    ends_at: datetime
    expires_at: datetime | None
    """When its credits end: None, if all of them roll over."""
    frozen: bool = False

    @property
    def grant(self) -> str:
        """The id of the grant of its credits."""
        return payment_grant_id(self.payment)


def piece_id(into: PaidPeriod, origin: PaidPeriod) -> str:
    """Return the id of the grant of what `origin` has left in the period `into`."""
    return f"{into.grant}~{int(origin.ends_at.timestamp())}"


def following(periods: Iterable[PaidPeriod], period: PaidPeriod) -> PaidPeriod | None:
    """Return the next period: of those that begin when `period` has ended, the first."""
    end = period.ends_at
    later = [one for one in periods if one.starts_at >= end and one.ends_at > end]
    return min(later, key=lambda one: (one.starts_at, one.ends_at, one.payment), default=None)


def unspent_at_end(grant: str, events: Iterable[Event]) -> int:
    """Return what of a grant was unspent when it ended, by all events about it, in their order.

    What came back later lapsed, and is not counted. A payment that was told of after its end was
    unspent as a whole; what a refund took since from what had expired is unspent no longer.
    """
    unspent = 0
    for event in events:
        if isinstance(event, GrantExpired) and event.grant == grant:
            unspent = event.amount
        elif isinstance(event, PaymentApplied) and event.grant == grant:
            if event.status != "expired":
                unspent = 0
            elif event.before == "expired":
                unspent += event.unspent - event.unspent_before
            else:
                unspent = event.unspent
    return max(0, unspent)


def carry(
    period: PaidPeriod,
    into: PaidPeriod,
    earlier: Sequence[PaidPeriod],
    *,
    grants: Mapping[str, Grant],
    unspent: Mapping[str, int],
    revision: int,
) -> list[ApplyPayment]:
    """Return what tells the ledger all that goes over from `period` into the one after it.

    `earlier` are the periods before, by their ends: what they have left in `period` can go over
    once more. `unspent` says of ended grants what was unspent at their end. What has gone over
    before and should not have, is taken back, as a payment's credits are.
    """
    parents = [
        (origin, grants[name])
        for origin in (*earlier, period)
        if (name := piece_id(period, origin) if origin is not period else period.grant) in grants
    ]
    ended = [
        Ended.of(grant, unspent.get(grant.id, 0))
        for _, grant in parents
        if grant.status in {"expired", "revoked"}
    ]
    amounts = {parent.grant: amount for parent, amount in carried(period.terms, ended)}
    told = []
    for origin, parent in parents:
        name, amount = piece_id(into, origin), amounts.get(parent.id, 0)
        before = grants.get(name)
        most = max(amount, before.amount if before is not None else 0)
        if not most:
            continue
        told.append(
            ApplyPayment(
                grant=name,
                revision=revision,
                amount=most,
                reversed=most - amount,
                frozen=origin.frozen,
                kind=parent.kind,
                priority=parent.priority,
                scope=parent.scope,
                expires_at=into.expires_at,
                cost_basis=parent.cost_basis,
                source=Source(ROLLED, parent.id),
            )
        )
    return told
