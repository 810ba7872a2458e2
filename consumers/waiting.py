"""Payments that wait: settled again once what they wait for is there.

For an account: until one is linked or opened. For a price: until the catalog knows it. All of this
is in tables, so that nothing is forgotten when a process ends; to settle again changes nothing
where nothing has come.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final, LiteralString

import psycopg
import structlog

from consumers.health import Part
from consumers.settling import NotYet, Settler
from ledger.domain.settled import PRICE_CODES
from ledger.records import stream_id

log = structlog.get_logger(__name__)

POLL_SECONDS: Final = 1.0
PAGE_MAX: Final = 200

SELECT_LINKED: Final = """
SELECT w.tenant, w.what, w.fact FROM (
    SELECT tenant, payment AS what, fact, owners, updated_at FROM scrip.payments
    WHERE state = 'waiting' AND why <> 'account_not_found'
    UNION ALL
    SELECT tenant, subscription, fact, owners, updated_at FROM scrip.subscriptions
    WHERE account IS NULL
) AS w
WHERE (w.tenant, w.what) > (%(tenant)s, %(what)s) AND EXISTS (
    SELECT 1 FROM scrip.account_links l
    WHERE l.tenant = w.tenant AND l.owner = ANY(w.owners)
      AND l.linked_at > w.updated_at - interval '1 minute')
ORDER BY w.tenant, w.what LIMIT %(limit)s
"""
"""A link can be committed a little after its time: for a minute, a row is looked at again."""
SELECT_NOT_FOUND: Final = """
SELECT tenant, payment, fact, account FROM scrip.payments
WHERE state = 'waiting' AND why = 'account_not_found' AND account IS NOT NULL
  AND (tenant, payment) > (%(tenant)s, %(what)s)
ORDER BY tenant, payment LIMIT %(limit)s
"""
SELECT_OPENED: Final = """
SELECT originator_id FROM scrip.ledger_events
WHERE originator_id = ANY(%(streams)s) AND originator_version = 1
"""
SELECT_UNPRICED: Final = """
SELECT tenant, array_agg(DISTINCT fact) FROM scrip.payment_alerts
WHERE resolved_at IS NULL AND fact IS NOT NULL AND code = ANY(%(codes)s)
GROUP BY tenant
"""
SELECT_CATALOG: Final = """
SELECT coalesce(max(originator_version), 0) FROM scrip.ledger_events WHERE originator_id = %(id)s
"""
SELECT_COUNTS: Final = """
SELECT (SELECT count(*) FROM scrip.payments WHERE state = 'waiting'),
       (SELECT count(*) FROM scrip.payments WHERE state = 'refused'),
       (SELECT count(*) FROM scrip.payment_alerts WHERE resolved_at IS NULL)
"""


async def settle_waiting(
    settler: Settler, part: Part, stop: asyncio.Event, poll_seconds: float = POLL_SECONDS
) -> None:
    """Settle what no longer needs to wait, every `poll_seconds`, until `stop`."""
    catalogs: dict[str, int] = {}
    part.running()
    while not stop.is_set():
        await _settle_linked(settler)
        await _settle_opened(settler)
        await _settle_priced(settler, catalogs)
        await _count(settler, part)
        part.alive()
        with suppress(TimeoutError):
            async with asyncio.timeout(poll_seconds):
                await stop.wait()


async def _settle_linked(settler: Settler) -> None:
    """Settle what waits for a link that is there now, page by page."""
    async for rows in _pages(settler, SELECT_LINKED):
        for tenant, _, fact in rows:
            await _settle(settler, tenant, fact)


async def _settle_opened(settler: Settler) -> None:
    """Settle what waits for an account that is open now, page by page."""
    async for rows in _pages(settler, SELECT_NOT_FOUND):
        streams = [stream_id(tenant, account) for tenant, _, _, account in rows]
        async with settler.pool.connection() as connection:
            cursor = await connection.execute(SELECT_OPENED, {"streams": streams})
            opened = {stream for (stream,) in await cursor.fetchall()}
        for stream, (tenant, _, fact, _) in zip(streams, rows, strict=True):
            if stream in opened:
                await _settle(settler, tenant, fact)


async def _pages(settler: Settler, query: LiteralString) -> AsyncIterator[list[Any]]:
    tenant = what = ""
    while True:
        page = {"tenant": tenant, "what": what, "limit": PAGE_MAX}
        async with settler.pool.connection() as connection:
            rows = await (await connection.execute(query, page)).fetchall()
        if rows:
            yield rows
        if len(rows) < PAGE_MAX:
            return
        tenant, what = rows[-1][:2]


async def _settle_priced(settler: Settler, catalogs: dict[str, int]) -> None:
    """Settle what a catalog knew no right price for, once for each change of that catalog."""
    async with settler.pool.connection() as connection:
        rows = await (
            await connection.execute(SELECT_UNPRICED, {"codes": sorted(PRICE_CODES)})
        ).fetchall()
    for tenant, facts in rows:
        async with settler.pool.connection() as connection:
            cursor = await connection.execute(SELECT_CATALOG, {"id": stream_id(tenant, None)})
            (version,) = (await cursor.fetchall())[0]
        if catalogs.get(tenant) == version:
            continue
        for fact in facts:
            await _settle(settler, tenant, fact)
        catalogs[tenant] = version


async def _settle(settler: Settler, tenant: str, fact: str) -> None:
    try:
        await settler.settle(tenant, fact)
    except NotYet as error:
        log.info("payment.waits_on", tenant=tenant, fact=fact, why=str(error))
    except psycopg.OperationalError:
        raise
    except Exception:
        # A bug with one payment must not keep all others waiting.
        log.exception("payment.settle_failed", tenant=tenant, fact=fact)


async def _count(settler: Settler, part: Part) -> None:
    async with settler.pool.connection() as connection:
        rows = await (await connection.execute(SELECT_COUNTS)).fetchall()
    part.facts["waiting"], part.facts["refused"], part.facts["alerts"] = rows[0]
