"""Tells the ledger the grants that are decided, until it has them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec
import structlog
from msgspec import Struct
from psycopg import AsyncConnection
from psycopg.rows import class_row

from consumers.writing import submit_all
from ledger.domain.commands import GrantCredits
from ledger.domain.errors import GrantExists, LedgerError
from ledger.records import Order
from ledger.writer import Writer

log = structlog.get_logger(__name__)

BY: Final = "service:plans"
GRANTS_MAX: Final = 1_000

SELECT_OWED = """
SELECT place, tenant, account, command, once FROM scrip.clock_grants
WHERE granted_at IS NULL AND refused IS NULL ORDER BY place LIMIT %(limit)s
FOR UPDATE SKIP LOCKED
"""
UPDATE_GRANTED = """
UPDATE scrip.clock_grants SET granted_at = %(now)s WHERE place = ANY(%(places)s)
"""
DELETE_GRANTED = "DELETE FROM scrip.clock_grants WHERE place = ANY(%(places)s)"
UPDATE_REFUSED = """
UPDATE scrip.clock_grants SET refused = %(code)s WHERE place = %(place)s
"""


class Owed(Struct, frozen=True, kw_only=True):
    """A grant that the ledger may not have yet."""

    place: int
    tenant: str
    account: str
    command: bytes
    once: bool


async def grant_owed(connection: AsyncConnection[Any], writer: Writer, now: datetime) -> int:
    """Tell the ledger what is owed; return how many grants are settled.

    It may have them, if whoever told it did not live to say so: then it refuses, and that is well.
    """
    settled = 0
    while True:
        async with connection.transaction():
            async with connection.cursor(row_factory=class_row(Owed)) as cursor:
                found = await cursor.execute(SELECT_OWED, {"limit": GRANTS_MAX})
                rows = await found.fetchall()
            done = await _told(connection, writer, rows, now)
        settled += done
        if done < GRANTS_MAX:
            return settled


async def _told(
    connection: AsyncConnection[Any], writer: Writer, rows: list[Owed], now: datetime
) -> int:
    orders = [
        Order(
            tenant=row.tenant,
            account=row.account,
            command=msgspec.json.decode(row.command, type=GrantCredits),
            key=None,
            by=BY,
        )
        for row in rows
    ]
    answers = await submit_all(writer, orders)
    granted: list[Owed] = []
    refused = 0
    for row, answer in zip(rows, answers, strict=True):
        if not isinstance(answer, LedgerError) or isinstance(answer, GrantExists):
            granted.append(row)
        elif not answer.retryable:
            refused += 1
            log.warning(
                "plans.grant_refused", tenant=row.tenant, account=row.account, why=answer.code
            )
            refusal = {"place": row.place, "code": answer.code}
            await connection.execute(UPDATE_REFUSED, refusal)
    once = [row.place for row in granted if row.once]
    await connection.execute(UPDATE_GRANTED, {"places": once, "now": now})
    others = [row.place for row in granted if not row.once]
    await connection.execute(DELETE_GRANTED, {"places": others})
    if granted:
        log.info("plans.granted", grants=len(granted))
    return len(granted) + refused
