"""What a plan grants when a period begins: its credits, and what goes over from the period before.

When this is decided. A period's grant expires at its end, by time alone: the ledger emits what is
due before it acts, so whatever is asked at the end or later, `GrantExpired` comes first, and its
`amount` is what was unspent at the boundary, whenever it is recorded. The refill comes after that,
at the boundary or late, and grants of that amount what may go over: a new grant, with the old one
as its parent. So it does not matter when the refill runs. What was set aside at the boundary is not
unspent: it can still be captured, and lapses if it is released. So does a refund into the old grant
(or follows the policy for refunds): the grant's whole `expired`, which these add to, is not what
goes over; only the amount of its `GrantExpired` is. Boundaries that were missed are taken one after
the other, each with the expiries at it, so that a year without a refill ends like one with twelve.

    granted = used + expired + remaining, and of what expired so much was granted again (rolled).

Ids are made of the rule and the index of the period, so a refill that is repeated grants nothing:
the account has these grants. A debt is repaid by whatever is granted, as always.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from msgspec import Struct

from ledger.domain.commands import GrantCredits
from ledger.domain.entities import Grant, GrantKind, Source
from ledger.domain.offers import Plan
from ledger.domain.periods import Span, days_after
from ledger.domain.values import CREDITS_MAX, Credits

ROLLED: Final = "rollover"
"""The type of a rolled grant's source, whose id is the parent: the grant that the credits had."""


class Ended(Struct, frozen=True, kw_only=True, gc=False):
    """A grant of the period that has ended: what it was, and what its `GrantExpired` says."""

    grant: str
    unspent: Credits
    kind: GrantKind
    priority: int
    scope: tuple[str, ...] = ()
    cost_basis: int | None = None

    @classmethod
    def of(cls, grant: Grant, unspent: Credits) -> Ended:
        """Return a grant as it ended, with the amount of its `GrantExpired`."""
        return cls(
            grant=grant.id,
            unspent=unspent,
            kind=grant.kind,
            priority=grant.priority,
            scope=grant.scope,
            cost_basis=grant.cost_basis,
        )


def refill(
    rule: str,
    plan: Plan,
    span: Span,
    ended: Iterable[Ended] = (),
    *,
    ended_plan: Plan | None = None,
) -> tuple[GrantCredits, ...]:
    """Return what is granted when the period `span` of `plan` begins, in this order.

    First what goes over from `ended`: all grants of the period before under this rule, in the order
    in which they were granted, those that had gone over themselves included. How much may go over
    is said by the plan that has ended (`ended_plan`, if that was another), as it was sold; how long
    it lives then, by the one that begins. Then the period's own credits. So the older are spent
    first, where nothing else tells them apart.

    - `none`: the credits end with their period.
    - `capped`: the credits end with their period, and up to `rollover_max` of all that was unspent,
      the newest first, is granted again for the next.
    - `all`: the credits have no end, so nothing expires and nothing needs to go over.
    """
    expires_at = None if plan.rollover == "all" else span.end
    rolled = [
        GrantCredits(
            id=f"{period_id(rule, span.number)}~{place}",
            amount=amount,
            kind=parent.kind,
            priority=parent.priority,
            scope=parent.scope,
            effective_at=span.start,
            expires_at=expires_at,
            cost_basis=parent.cost_basis,
            source=Source(ROLLED, parent.grant),
        )
        for place, (parent, amount) in enumerate(carried(ended_plan or plan, ended), 1)
    ]
    if not plan.credits:
        return tuple(rolled)
    own = GrantCredits(
        id=period_id(rule, span.number),
        amount=plan.credits,
        kind=plan.kind,
        priority=plan.priority,
        effective_at=span.start,
        expires_at=expires_at,
        source=Source("plan", rule),
    )
    return (*rolled, own)


def carried(plan: Plan, ended: Iterable[Ended]) -> list[tuple[Ended, Credits]]:
    """Return how much of each ended grant goes over, in their order; those with nothing left out.

    The newest go over first, up to the cap: the older have been kept for longer.
    """
    room = 0
    if plan.rollover == "capped":
        room = CREDITS_MAX if plan.rollover_max is None else plan.rollover_max
    parts: list[tuple[Ended, Credits]] = []
    for parent in reversed(list(ended)):
        amount = min(room, parent.unspent)
        if amount > 0:
            parts.append((parent, amount))
            room -= amount
    return parts[::-1]


def trial(rule: str, plan: Plan, anchor: datetime, zone: str) -> GrantCredits | None:
    """Return what a trial of `plan` that begins at `anchor` grants: once, for its days; or None.

    It ends at the anchor's time of day in the zone, where the first period of the plan may begin.
    """
    if not plan.trial_credits or not plan.trial_days:
        return None
    return GrantCredits(
        id=f"{rule}~trial",
        amount=plan.trial_credits,
        kind="promotional",
        priority=plan.priority,
        effective_at=anchor,
        expires_at=days_after(anchor, zone, plan.trial_days),
        source=Source("plan", rule),
    )


def period_id(rule: str, index: int) -> str:
    """Return the id of the grant of one period: no other has it, so it can be granted only once."""
    return f"{rule}~{index}"


def is_of_period(grant: str, rule: str, index: int) -> bool:
    """Tell whether a grant was made by the refill of this period: its own, or one gone over."""
    own = period_id(rule, index)
    return grant == own or grant.startswith(f"{own}~")
