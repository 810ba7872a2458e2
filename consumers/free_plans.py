"""Keeps every account that pays for no plan on the free one, period by period.

Accounts and plans come from the ledger, in its order: a position is kept of how far it was read.
What follows is decided in one transaction with the row that says so, and told to the ledger after.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct
from psycopg import AsyncConnection
from psycopg.rows import class_row, tuple_row

from consumers.ended_grants import read_ends
from ledger.codec import NAME_OF, decode
from ledger.domain.catalog import Catalog, fallback_at
from ledger.domain.catalog_events import PlanSet
from ledger.domain.events import AccountOpened, AccountUpdated
from ledger.domain.free_plan import HAD, FreePlan, Had, Step, advance, after_paid
from ledger.domain.rollover import Ended
from ledger.owed_grants import owe
from ledger.writer import Writer

EVENTS_MAX: Final = 10_000
ACCOUNTS_MAX: Final = 500
TOPICS: Final = [NAME_OF[AccountOpened], NAME_OF[AccountUpdated], NAME_OF[PlanSet]]

LOCK_POSITION = "SELECT position FROM scrip.clock_position FOR UPDATE"
SELECT_END = """
SELECT max(notification_id), count(*) FROM (
    SELECT notification_id FROM scrip.ledger_events WHERE notification_id > %(after)s
    ORDER BY notification_id LIMIT %(limit)s) e
"""
SELECT_EVENTS = """
SELECT topic, state, tenant, account, recorded_at FROM scrip.ledger_events
WHERE notification_id > %(after)s AND notification_id <= %(end)s AND topic = ANY(%(topics)s)
ORDER BY notification_id
"""
UPDATE_POSITION = "UPDATE scrip.clock_position SET position = %(end)s"
INSERT_ACCOUNT = """
INSERT INTO scrip.free_plans (tenant, account, zone, state, idle, look_at)
VALUES (%(tenant)s, %(account)s, %(zone)s, %(state)s, true, %(look_at)s)
ON CONFLICT (tenant, account) DO NOTHING
"""
UPDATE_ZONE = """
UPDATE scrip.free_plans SET zone = %(zone)s WHERE tenant = %(tenant)s AND account = %(account)s
"""
WAKE_IDLE = """
UPDATE scrip.free_plans SET look_at = %(now)s WHERE tenant = %(tenant)s AND idle AND NOT paid
"""
SELECT_PAYING = "SELECT DISTINCT tenant FROM scrip.free_plans WHERE paid"
WAKE_UNPAID = """
UPDATE scrip.free_plans f SET look_at = %(now)s
WHERE f.tenant = %(tenant)s AND f.paid AND NOT EXISTS (
    SELECT 1 FROM scrip.subscriptions s WHERE s.tenant = f.tenant AND s.account = f.account
    AND s.status = ANY(%(had)s) AND s.plan <> %(fallback)s
    AND (s.cancel_at IS NULL OR s.cancel_at > %(now)s))
"""
SELECT_DUE = """
SELECT tenant, account, zone, state, paid FROM scrip.free_plans WHERE look_at <= %(now)s
ORDER BY look_at, tenant, account LIMIT %(limit)s FOR UPDATE SKIP LOCKED
"""
SELECT_HAD = """
SELECT s.tenant, s.account, s.status, s.plan, s.since, s.cancel_at, s.ended_at
FROM unnest(%(tenants)s::text[], %(accounts)s::text[]) AS a(tenant, account)
JOIN scrip.subscriptions s ON s.tenant = a.tenant AND s.account = a.account
"""
UPDATE_STATE = """
UPDATE scrip.free_plans SET state = %(state)s, idle = %(idle)s, paid = false, look_at = %(look_at)s
WHERE tenant = %(tenant)s AND account = %(account)s
"""
UPDATE_PAID = """
UPDATE scrip.free_plans SET paid = true, look_at = NULL
WHERE tenant = %(tenant)s AND account = %(account)s
"""


class Due(Struct, frozen=True, kw_only=True):
    """An account for which there is something to decide."""

    tenant: str
    account: str
    zone: str
    state: bytes
    paid: bool


class HadBy(Had, frozen=True, kw_only=True):
    """A subscription of an account."""

    tenant: str
    account: str


async def follow_ledger(connection: AsyncConnection[Any], now: datetime) -> None:
    """Take note of accounts that were opened or put, and look again where plans were put."""
    full = True
    while full:
        async with connection.transaction(), connection.cursor(row_factory=tuple_row) as cursor:
            row = await (await cursor.execute(LOCK_POSITION)).fetchone()
            assert row is not None
            window = {"after": row[0], "limit": EVENTS_MAX, "topics": TOPICS}
            last = await (await cursor.execute(SELECT_END, window)).fetchone()
            assert last is not None
            if last[0] is None:
                return
            window["end"] = last[0]
            full = last[1] == EVENTS_MAX
            for event in await (await cursor.execute(SELECT_EVENTS, window)).fetchall():
                await _noted(connection, event, now)
            await cursor.execute(UPDATE_POSITION, window)


async def _noted(connection: AsyncConnection[Any], row: tuple[Any, ...], now: datetime) -> None:
    topic, state, tenant, account, recorded_at = row
    event = decode(topic, state).event
    of = {"tenant": tenant, "account": account, "now": now}
    match event:
        case AccountOpened(zone=zone):
            free = FreePlan(opened_at=recorded_at, since=recorded_at)
            opened = {"zone": zone, "state": msgspec.json.encode(free), "look_at": recorded_at}
            await connection.execute(INSERT_ACCOUNT, of | opened)
        case AccountUpdated(zone=zone):
            await connection.execute(UPDATE_ZONE, of | {"zone": zone})
        case _:
            await connection.execute(WAKE_IDLE, of)


async def wake_unpaid(connection: AsyncConnection[Any], writer: Writer, now: datetime) -> None:
    """Look again at the accounts that had a paid plan, and have none any more."""
    async with connection.cursor(row_factory=tuple_row) as cursor:
        tenants = [row[0] for row in await (await cursor.execute(SELECT_PAYING)).fetchall()]
    for tenant in tenants:
        plan = fallback_at(await asyncio.wrap_future(writer.catalog(tenant)), now)
        fallback = "" if plan is None else plan.plan
        named = {"tenant": tenant, "fallback": fallback, "had": sorted(HAD), "now": now}
        await connection.execute(WAKE_UNPAID, named)


async def decide_due(connection: AsyncConnection[Any], writer: Writer, now: datetime) -> None:
    """Decide all free periods that have begun, page by page."""
    count = ACCOUNTS_MAX
    while count == ACCOUNTS_MAX:
        async with connection.transaction():
            async with connection.cursor(row_factory=class_row(Due)) as cursor:
                page = {"now": now, "limit": ACCOUNTS_MAX}
                rows = await (await cursor.execute(SELECT_DUE, page)).fetchall()
            had = await _had(connection, rows)
            catalogs = {
                tenant: await asyncio.wrap_future(writer.catalog(tenant))
                for tenant in {row.tenant for row in rows}
            }
            for row in rows:
                catalog = catalogs[row.tenant]
                mine = had[row.tenant, row.account]
                await _decide(connection, writer, row, had=mine, catalog=catalog, now=now)
        count = len(rows)


async def _had(
    connection: AsyncConnection[Any], rows: list[Due]
) -> defaultdict[tuple[str, str], list[Had]]:
    named = {"tenants": [row.tenant for row in rows], "accounts": [row.account for row in rows]}
    found: defaultdict[tuple[str, str], list[Had]] = defaultdict(list)
    async with connection.cursor(row_factory=class_row(HadBy)) as cursor:
        for one in await (await cursor.execute(SELECT_HAD, named)).fetchall():
            found[one.tenant, one.account].append(one)
    return found


async def _decide(
    connection: AsyncConnection[Any],
    writer: Writer,
    row: Due,
    *,
    had: list[Had],
    catalog: Catalog,
    now: datetime,
) -> None:
    of = {"tenant": row.tenant, "account": row.account}
    free = msgspec.json.decode(row.state, type=FreePlan)
    plan = fallback_at(catalog, now)
    fallback = None if plan is None else plan.plan
    if any(one.is_had(fallback, now) for one in had):
        await connection.execute(UPDATE_PAID, of)
        return
    if row.paid:
        free = after_paid(free, had, now)
    ended = await _ended(connection, writer, row, free, now)
    step: Step = advance(free, catalog, now, row.zone, ended)
    await owe(connection, row.tenant, row.account, step.grants, now, once=False)
    state = {
        "state": msgspec.json.encode(step.after),
        "idle": step.after.schedule is None,
        "look_at": step.look_at,
    }
    await connection.execute(UPDATE_STATE, of | state)


async def _ended(
    connection: AsyncConnection[Any], writer: Writer, row: Due, free: FreePlan, now: datetime
) -> list[Ended]:
    """Return the grants of the last period with what was unspent of them, the oldest first."""
    if not free.carries or free.since > now:
        return []
    ends = await read_ends(connection, writer, row.tenant, row.account, free.is_of_last)
    grants = sorted(ends.grants.values(), key=lambda grant: grant.sequence)
    return [Ended.of(grant, ends.unspent[grant.id]) for grant in grants]
