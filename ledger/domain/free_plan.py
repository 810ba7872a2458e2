"""The free plan by the clock: which periods an account has of it, and what each of them grants.

Who pays for no plan is on the tenant's fallback plan, if there is one. Its periods are counted on
for ever, also over pauses and other plans, and never overlap: after a paid plan the next begins
where that ended, but not before the last free one ends. A period is decided once, when it begins;
one that nobody looked at in time is decided as if its credits had been there and nobody had spent
them.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from ledger.domain.catalog import Catalog, fallback_at
from ledger.domain.catalog_events import PlanSet
from ledger.domain.commands import GrantCredits
from ledger.domain.entities import Source
from ledger.domain.facts import SubscriptionStatus
from ledger.domain.offers import Plan
from ledger.domain.periods import Schedule, Span, changed
from ledger.domain.rollover import Ended, is_of_period, refill, trial

RULE: Final = "free"
"""What the ids of its grants begin with: `free~3` is the one of period 3, whatever the plan is."""
PLAN: Final = "plan"
HAD: Final[frozenset[SubscriptionStatus]] = frozenset({"trialing", "active", "past_due", "paused"})
"""In which states of a subscription its plan is had."""


class FreePlan(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How far an account's free periods are decided."""

    opened_at: datetime
    since: datetime
    """When the next period begins, if one does: the last one's end, or later."""
    number: int | None = None
    """That of the last period; None: there was none yet."""
    schedule: Schedule | None = None
    """What the last period follows; None: the next begins a new one."""
    starts_at: datetime | None = None
    """When the last period began."""
    plan: str | None = None
    terms: Plan | None = None
    """The plan of the last period, as it was in force when that began."""

    @property
    def next_number(self) -> int:
        """The number of the next period."""
        return 0 if self.number is None else self.number + 1

    @property
    def carries(self) -> bool:
        """Tell whether what is unspent of the last period may go over into the next."""
        return (
            self.schedule is not None and self.terms is not None and self.terms.rollover == "capped"
        )

    def is_of_last(self, grant: str) -> bool:
        """Tell whether a grant is one of the last period."""
        return self.number is not None and is_of_period(grant, RULE, self.number)


class Step(Struct, frozen=True):
    """What was decided: the state after it, what to grant, and when to look again (None: idle)."""

    after: FreePlan
    grants: tuple[GrantCredits, ...]
    look_at: datetime | None


class Had(Struct, frozen=True, kw_only=True):
    """A subscription of an account, as far as it keeps the account from the free plan."""

    status: SubscriptionStatus
    plan: str | None
    since: datetime
    cancel_at: datetime | None = None
    ended_at: datetime | None = None

    def is_had(self, fallback: str | None, now: datetime) -> bool:
        """Tell whether this is a plan that is had now, and not the free one."""
        return (
            self.status in HAD
            and self.plan is not None
            and self.plan != fallback
            and (self.cancel_at is None or self.cancel_at > now)
        )

    def ended_by(self, now: datetime) -> datetime | None:
        """Return when it ended; None if it has not."""
        if self.status == "ended":
            return min(self.ended_at or self.since, now)
        return self.cancel_at if self.cancel_at is not None and self.cancel_at <= now else None


def after_paid(free: FreePlan, had: Iterable[Had], now: datetime) -> FreePlan:
    """Return the state once no paid plan is had any more: free from where the last one ended.

    If that was before the last free period ended, it goes on as if nothing had been.
    """
    ends = [end for one in had if (end := one.ended_by(now)) is not None]
    ended_at = max(ends, default=now)
    if ended_at <= free.since:
        return free
    return replace(free, schedule=None, since=ended_at)


def advance(
    free: FreePlan, catalog: Catalog, now: datetime, zone: str, ended: Iterable[Ended] = ()
) -> Step:
    """Decide all periods that have begun by `now`, one after the other.

    `ended` is what was unspent of the last period when it ended, if it `carries` and has ended.
    """
    grants: list[GrantCredits] = []
    while True:
        plan = fallback_at(catalog, free.since)
        if plan is None:
            # Also where the free plan was taken away: what was unspent has nowhere to go.
            ended = ()
            begins = _next_fallback(catalog, free.since)
            if begins is None:
                return Step(replace(free, schedule=None), tuple(grants), None)
            if begins > now:
                return Step(replace(free, schedule=None), tuple(grants), begins)
            free = replace(free, schedule=None, since=begins)
            continue
        if free.since > now:
            return Step(free, tuple(grants), free.since)
        made, free = _period(free, plan, zone, ended)
        # What has ended by now cannot be granted any more: it counts as unspent.
        grants += [one for one in made if one.expires_at is None or one.expires_at > now]
        ended = [
            _unspent(one)
            for one in made
            if one.expires_at is not None and one.expires_at <= now and free.is_of_last(_id(one))
        ]


def _period(
    free: FreePlan, plan: PlanSet, zone: str, ended: Iterable[Ended]
) -> tuple[list[GrantCredits], FreePlan]:
    """Return what the next period grants, the trial at the very first included, and the state."""
    schedule = _schedule(free, plan, zone)
    span: Span = schedule.period(free.next_number)
    made = list(refill(RULE, plan.terms, span, ended, ended_plan=free.terms))
    if free.number is None and span.start == free.opened_at:
        once = trial(RULE, plan.terms, span.start, zone)
        made += [once] if once is not None else []
    named = [
        replace(one, source=Source(PLAN, plan.plan)) if one.source == Source(PLAN, RULE) else one
        for one in made
    ]
    return named, replace(
        free,
        schedule=schedule,
        number=span.number,
        starts_at=span.start,
        since=span.end,
        plan=plan.plan,
        terms=plan.terms,
    )


def _schedule(free: FreePlan, plan: PlanSet, zone: str) -> Schedule:
    """Return what the next period follows: as the last, but for what has changed since."""
    running, unit = free.schedule, plan.terms.period
    if running is None or running.unit != unit:
        return Schedule(anchor=free.since, zone=zone, unit=unit, first=free.next_number)
    if running.zone == zone:
        return running
    assert free.starts_at is not None
    return changed(running, free.starts_at, zone=zone)


def _next_fallback(catalog: Catalog, after: datetime) -> datetime | None:
    """Return the first time after `after` at which there is a plan to fall back to."""
    moments = sorted(
        version.effective_at
        for versions in catalog.plans.values()
        for version in versions
        if version.effective_at > after and version.terms.fallback
    )
    return next((one for one in moments if fallback_at(catalog, one) is not None), None)


def _unspent(grant: GrantCredits) -> Ended:
    return Ended(
        grant=_id(grant),
        unspent=grant.amount,
        kind=grant.kind,
        priority=grant.priority,
        scope=grant.scope,
        cost_basis=grant.cost_basis,
    )


def _id(grant: GrantCredits) -> str:
    assert grant.id is not None
    return grant.id
