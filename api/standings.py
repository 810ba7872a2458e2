"""Which plan an account is on, and when it gets credits next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from msgspec import Struct
from psycopg import AsyncConnection
from psycopg.rows import class_row

from ledger.domain.catalog import Catalog, fallback_at, plan_at
from ledger.domain.offers import Plan
from ledger.domain.periods import period_at

HAD: Final = ("active", "trialing", "past_due", "paused")
"""How a subscription stands whose plan is had, the best first."""
FREE: Final = "free"
"""How the plan stands of those who pay for none."""
RENEWED: Final = frozenset({"active", "trialing", "past_due"})

SELECT_PAID = """
SELECT account, plan, status, starts_at, ends_at, cancel_at FROM scrip.subscriptions
WHERE tenant = %(tenant)s AND account = ANY(%(accounts)s) AND plan IS NOT NULL
  AND status = ANY(%(had)s) AND (cancel_at IS NULL OR cancel_at > %(now)s)
"""


class Paid(Struct, frozen=True, kw_only=True):
    """A subscription that an account has."""

    account: str
    plan: str
    status: str
    starts_at: datetime | None
    ends_at: datetime | None
    cancel_at: datetime | None


class OnPlan(Struct, frozen=True, kw_only=True):
    """The plan that an account is on: by which subscription, or free."""

    key: str
    status: str
    paid: Paid | None = None


class Refill(Struct, frozen=True, kw_only=True):
    """When an account gets the credits of its plan next, in micro-credits."""

    at: datetime
    amount: int


async def paid_plans(
    connection: AsyncConnection[Any], tenant: str, accounts: Sequence[str], now: datetime
) -> dict[str, list[Paid]]:
    """Return the subscriptions that accounts have at `now`, by account."""
    parameters = {"tenant": tenant, "accounts": list(accounts), "had": list(HAD), "now": now}
    async with connection.cursor(row_factory=class_row(Paid)) as cursor:
        rows = await (await cursor.execute(SELECT_PAID, parameters)).fetchall()
    found: dict[str, list[Paid]] = {}
    for row in rows:
        found.setdefault(row.account, []).append(row)
    return found


def plan_of(catalog: Catalog, paid: Iterable[Paid], now: datetime) -> OnPlan | None:
    """Return the best plan that an account has: of several paid ones, that of most credits.

    None if it has none, and the tenant has no free one.
    """
    fallback = fallback_at(catalog, now)
    free = None if fallback is None else fallback.plan

    def worth(one: Paid) -> tuple[int, int, str]:
        terms = terms_at(catalog, one.plan, now)
        return HAD.index(one.status), -(terms.credits if terms else 0), one.plan

    best = min((one for one in paid if one.plan != free), key=worth, default=None)
    if best is not None:
        return OnPlan(key=best.plan, status=best.status, paid=best)
    return None if free is None else OnPlan(key=free, status=FREE)


def terms_at(catalog: Catalog, key: str, when: datetime) -> Plan | None:
    """Return the terms of a plan that are in force at `when`; else its first, if it has any."""
    entry = plan_at(catalog, key, when) or next(iter(catalog.plans.get(key, ())), None)
    return None if entry is None else entry.terms


def period_of(
    catalog: Catalog, plan: OnPlan | None, opened_at: datetime, now: datetime
) -> tuple[datetime, datetime]:
    """Return the period that `now` is in: of the plan, or the month in UTC."""
    paid = plan and plan.paid
    if paid and paid.starts_at and paid.ends_at and paid.starts_at <= now < paid.ends_at:
        return paid.starts_at, paid.ends_at
    terms = None if plan is None or paid else terms_at(catalog, plan.key, now)
    if terms is not None:
        span = period_at(opened_at, "UTC", terms.period, max(now, opened_at))
    else:
        span = period_at(datetime(2000, 1, 1, tzinfo=UTC), "UTC", "month", now)
    return span.start, span.end


def next_refill(
    catalog: Catalog, plan: OnPlan | None, opened_at: datetime, now: datetime
) -> Refill | None:
    """Return when the plan gives credits next, by the terms that are in force then.

    None where nothing is to come: no plan, one that is paused, or one that ends with its period.
    """
    if plan is None:
        return None
    if plan.paid is None:
        at = period_of(catalog, plan, opened_at, now)[1]
    else:
        ends_at, cancel_at = plan.paid.ends_at, plan.paid.cancel_at
        if plan.status not in RENEWED or ends_at is None or ends_at <= now:
            return None
        if cancel_at is not None and cancel_at <= ends_at:
            return None
        at = ends_at
    terms = terms_at(catalog, plan.key, at)
    return None if terms is None else Refill(at=at, amount=terms.credits)
