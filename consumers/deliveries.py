"""Deliveries of webhooks, kept for people to look into, and removed when they are old."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

import structlog
from psycopg import AsyncConnection

from consumers.health import Part
from ledger.payment_messages import PaymentMessage
from ledger.recorder import LIVELY

log = structlog.get_logger(__name__)

POLL_SECONDS: Final = 15.0
PAGE_MAX: Final = 1_000
CONNECT_SECONDS_MAX: Final = 5
INSERT: Final = """
INSERT INTO scrip.webhook_deliveries
    (tenant, id, endpoint, provider, delivery, type, occurred_at, received_at, payload, facts,
     to_fetch, unreadable)
SELECT * FROM unnest(
    %(tenant)b::text[], %(id)b::text[], %(endpoint)b::text[], %(provider)b::text[],
    %(delivery)b::text[], %(type)b::text[], %(occurred_at)b::timestamptz[],
    %(received_at)b::timestamptz[], %(payload)b::bytea[], %(facts)b::int[], %(fetch)b::text[],
    %(unreadable)b::text[])
ON CONFLICT (tenant, id) DO NOTHING
"""
DELETE: Final = """
DELETE FROM scrip.webhook_deliveries WHERE (tenant, id) IN (
    SELECT tenant, id FROM scrip.webhook_deliveries
    WHERE received_at < now() - make_interval(days => %(days)s)
    ORDER BY received_at LIMIT %(limit)s)
"""
LOCK: Final = 7_305_804_385_220
TRY_LOCK: Final = "SELECT pg_try_advisory_xact_lock(%(lock)s)"


async def keep(
    connection: AsyncConnection[Any], messages: Iterable[tuple[str, PaymentMessage]]
) -> None:
    """Keep deliveries, each with its tenant. One that is kept already stays as it is.

    Sorted, so that two workers with the same messages wait for each other instead of in a ring.
    """
    rows = sorted(messages, key=lambda row: (row[0], row[1].id))
    if not rows:
        return
    told = [message for _, message in rows]
    columns: dict[str, list[Any]] = {
        name: [getattr(message, name) for message in told]
        for name in ("id", "endpoint", "provider", "delivery", "type", "occurred_at")
    }
    columns |= {
        name: [getattr(message, name) for message in told]
        for name in ("received_at", "fetch", "unreadable")
    }
    columns["tenant"] = [tenant for tenant, _ in rows]
    columns["payload"] = [bytes(message.payload) for message in told]
    columns["facts"] = [len(message.facts) for message in told]
    await connection.execute(INSERT, columns)


async def purge(connection: AsyncConnection[Any], *, older_than_days: int, limit: int) -> int:
    """Remove up to `limit` deliveries that came longer ago; return how many went.

    0 where another process is at it: two that remove the same rows could wait for each other.
    """
    async with connection.transaction():
        locked = await (await connection.execute(TRY_LOCK, {"lock": LOCK})).fetchone()
        if locked is None or not locked[0]:
            return 0
        cursor = await connection.execute(DELETE, {"days": older_than_days, "limit": limit})
        return cursor.rowcount


async def purge_old(
    database_url: str,
    older_than_days: int,
    part: Part,
    stop: asyncio.Event,
    poll_seconds: float = POLL_SECONDS,
) -> None:
    """Remove deliveries that are old, every `poll_seconds`, until `stop`."""
    connection = await AsyncConnection.connect(
        database_url, autocommit=True, connect_timeout=CONNECT_SECONDS_MAX, **LIVELY
    )
    async with connection:
        part.running()
        while not stop.is_set():
            removed = await purge(connection, older_than_days=older_than_days, limit=PAGE_MAX)
            part.alive()
            if removed:
                log.info("deliveries.purged", count=removed)
            if removed == PAGE_MAX:
                continue
            try:
                async with asyncio.timeout(poll_seconds):
                    await stop.wait()
            except TimeoutError:
                continue
