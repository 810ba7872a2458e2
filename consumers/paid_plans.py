"""What the clock grants of paid plans: their trials, and what goes over when a period has ended.

What goes over is told to the ledger as a whole, again and again: it only ever moves to what is
known. So a crash anywhere is mended by doing it again, and a fact that comes later changes it.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace
from psycopg import AsyncConnection
from psycopg.rows import class_row

from consumers.ended_grants import read_ends
from consumers.owed_grants import BY
from consumers.writing import submit_all
from ledger.domain.carrying import PaidPeriod, carry, following
from ledger.domain.catalog import Catalog, fallback_at, plan_at
from ledger.domain.entities import Source
from ledger.domain.errors import LedgerError
from ledger.domain.free_plan import PLAN
from ledger.domain.offers import Plan
from ledger.domain.rollover import trial
from ledger.domain.settled import Entitlement
from ledger.domain.values import CREDITS_MAX
from ledger.owed_grants import owe
from ledger.records import Order
from ledger.writer import Writer

log = structlog.get_logger(__name__)

RULE: Final = "paid"
"""What the id of the one trial of a paid plan that an account can have begins with."""
PAGE_MAX: Final = 500
FACTS_COME_DAYS: Final = 550
"""How long after a period facts about it are looked for: disputes take a year and a half."""

SELECT_TRIALS = """
SELECT s.tenant, s.account, s.plan, coalesce(s.starts_at, s.since) AS begins_at, f.zone
FROM scrip.subscriptions s
JOIN scrip.free_plans f ON f.tenant = s.tenant AND f.account = s.account
WHERE s.status = 'trialing' AND s.plan IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM scrip.clock_grants g WHERE g.tenant = s.tenant AND g.account = s.account
    AND g.grant_id = %(grant)s)
ORDER BY begins_at, s.tenant, s.subscription
"""
SELECT_TO_ROLL = """
SELECT p.tenant, p.account, p.subscription, min(p.ends_at) AS first
FROM scrip.payments p LEFT JOIN scrip.rolled_periods r USING (tenant, payment)
CROSS JOIN LATERAL (
    SELECT n.payment FROM scrip.payments n
    WHERE n.tenant = p.tenant AND n.subscription = p.subscription AND n.account = p.account
      AND n.state = 'applied' AND n.starts_at >= p.ends_at AND n.ends_at > p.ends_at
    ORDER BY n.starts_at, n.ends_at, n.payment LIMIT 1) n
WHERE p.subscription IS NOT NULL AND p.state = 'applied' AND p.starts_at IS NOT NULL
  AND p.ends_at <= %(now)s
  AND (p.rolled_at IS NULL OR r.into_payment <> n.payment OR r.revision < p.revision)
  AND (p.rolled_at IS NULL OR p.ends_at > %(oldest)s)
GROUP BY p.tenant, p.account, p.subscription ORDER BY first LIMIT %(limit)s
"""
SELECT_PERIODS = """
SELECT payment, revision, told, offer, starts_at, ends_at FROM scrip.payments
WHERE tenant = %(tenant)s AND subscription = %(subscription)s AND account = %(account)s
  AND state = 'applied' AND starts_at IS NOT NULL AND ends_at IS NOT NULL
ORDER BY ends_at, payment
"""
UPSERT_ROLLED = """
INSERT INTO scrip.rolled_periods (tenant, payment, into_payment, revision, rolled_at)
VALUES (%(tenant)s, %(payment)s, %(into)s, %(revision)s, %(now)s)
ON CONFLICT (tenant, payment) DO UPDATE
SET into_payment = excluded.into_payment, revision = excluded.revision
"""
UPDATE_ROLLED_AT = """
UPDATE scrip.payments SET rolled_at = coalesce(rolled_at, %(now)s)
WHERE tenant = %(tenant)s AND payment = %(payment)s
"""


class Trial(Struct, frozen=True, kw_only=True):
    """A subscription that is on trial, of an account that had no such trial before."""

    tenant: str
    account: str
    plan: str
    begins_at: datetime
    zone: str


class ToRoll(Struct, frozen=True, kw_only=True):
    """A subscription of which something may go over, from the period that ends at `first` on."""

    tenant: str
    account: str
    subscription: str
    first: datetime


class Row(Struct, frozen=True, kw_only=True):
    """A period that is paid."""

    payment: str
    revision: int
    told: bytes
    offer: str | None
    starts_at: datetime
    ends_at: datetime


async def grant_trials(connection: AsyncConnection[Any], writer: Writer, now: datetime) -> None:
    """Decide the trials of paid plans: once an account, from when the subscription's began."""
    async with connection.cursor(row_factory=class_row(Trial)) as cursor:
        named = {"grant": f"{RULE}~trial"}
        rows = await (await cursor.execute(SELECT_TRIALS, named)).fetchall()
    catalogs: dict[str, Catalog] = {}
    for row in rows:
        if row.tenant not in catalogs:
            catalogs[row.tenant] = await asyncio.wrap_future(writer.catalog(row.tenant))
        catalog = catalogs[row.tenant]
        fallback = fallback_at(catalog, row.begins_at)
        terms = _terms(catalog, row.plan, row.begins_at)
        if terms is None or (fallback is not None and fallback.plan == row.plan):
            continue
        once = trial(RULE, terms, row.begins_at, row.zone)
        if once is not None and once.expires_at is not None and once.expires_at > now:
            named_plan = replace(once, source=Source(PLAN, row.plan))
            await owe(connection, row.tenant, row.account, [named_plan], now, once=True)


async def roll_over(connection: AsyncConnection[Any], writer: Writer, now: datetime) -> None:
    """Tell the ledger what goes over from the periods that have ended, where that is not known.

    Raises the LedgerError that keeps the ledger from it, if that may pass.
    """
    named = {"now": now, "oldest": now - timedelta(days=FACTS_COME_DAYS), "limit": PAGE_MAX}
    async with connection.cursor(row_factory=class_row(ToRoll)) as cursor:
        found = await (await cursor.execute(SELECT_TO_ROLL, named)).fetchall()
    for one in found:
        await _roll(connection, writer, one, now)


async def _roll(
    connection: AsyncConnection[Any], writer: Writer, one: ToRoll, now: datetime
) -> None:
    """Take the periods of a subscription one after the other: what went over may go over again."""
    of = {"tenant": one.tenant, "account": one.account, "subscription": one.subscription}
    async with connection.cursor(row_factory=class_row(Row)) as cursor:
        rows = await (await cursor.execute(SELECT_PERIODS, of)).fetchall()
    catalog = await asyncio.wrap_future(writer.catalog(one.tenant))
    periods = [_period(row, catalog) for row in rows]
    for place, (row, period) in enumerate(zip(rows, periods, strict=True)):
        into = following(periods, period)
        if row.ends_at < one.first or row.ends_at > now or into is None:
            continue
        if period.terms.rollover == "capped":
            earlier = periods[:place]
            await _carry(connection, writer, one, period=period, into=into, earlier=earlier)
        done = {
            "tenant": one.tenant,
            "payment": row.payment,
            "into": into.payment,
            "revision": row.revision,
            "now": now,
        }
        async with connection.transaction():
            await connection.execute(UPSERT_ROLLED, done)
            await connection.execute(UPDATE_ROLLED_AT, done)


async def _carry(
    connection: AsyncConnection[Any],
    writer: Writer,
    one: ToRoll,
    *,
    period: PaidPeriod,
    into: PaidPeriod,
    earlier: list[PaidPeriod],
) -> None:
    def wanted(name: str) -> bool:
        return any(name == of.grant or name.startswith(f"{of.grant}~") for of in (period, into))

    ends = await read_ends(connection, writer, one.tenant, one.account, wanted)
    told = carry(
        period,
        into,
        earlier,
        grants=ends.grants,
        unspent=ends.unspent,
        revision=ends.version,
    )
    orders = [
        Order(tenant=one.tenant, account=one.account, command=command, key=None, by=BY)
        for command in told
    ]
    for answer in await submit_all(writer, orders):
        if not isinstance(answer, LedgerError):
            continue
        if answer.retryable:
            raise answer
        log.warning(
            "plans.rollover_refused",
            tenant=one.tenant,
            account=one.account,
            payment=period.payment,
            why=answer.code,
        )


def _period(row: Row, catalog: Catalog) -> PaidPeriod:
    told = msgspec.json.decode(row.told, type=Entitlement)
    terms = _terms(catalog, row.offer or told.offer, row.starts_at)
    terms = terms or Plan(name="unknown", credits=0)
    if terms.rollover_max is not None:
        most = min(terms.rollover_max * told.quantity, CREDITS_MAX)
        terms = replace(terms, rollover_max=most)
    return PaidPeriod(
        payment=row.payment,
        terms=terms,
        starts_at=row.starts_at,
        ends_at=row.ends_at,
        expires_at=told.expires_at,
        frozen=told.frozen,
    )


def _terms(catalog: Catalog, plan: str, when: datetime) -> Plan | None:
    """Return the terms in force at `when`; the first, if it was put after that."""
    found = plan_at(catalog, plan, when)
    if found is None and plan in catalog.plans:
        found = catalog.plans[plan][0]
    return None if found is None else found.terms
