"""Reading grants."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from ledger.domain.entities import GrantKind, GrantStatus, Source
from projections.cursors import Page, decode_cursor, page

COLUMNS = """
    tenant, account, grant_id, sequence, amount, available, pending, reserved, consumed, expired,
    revoked, status, clawed_back, kind, priority, scope, effective_at, expires_at, cost_basis,
    source, instead_of, metadata, granted_by, reason, granted_at, granted_position, updated_at,
    position
"""
SELECT_ONE = (
    "SELECT" + COLUMNS + "FROM projections.grants_v1"
    " WHERE tenant = %(tenant)s AND account = %(account)s AND grant_id = %(grant_id)s"
)
SELECT_PAGE = (
    "SELECT" + COLUMNS + "FROM projections.grants_v1"
    " WHERE tenant = %(tenant)s AND account = %(account)s"
    " AND (sequence, grant_id) > (%(sequence)s, %(grant_id)s)"
    " AND (%(status)s::text IS NULL OR status = %(status)s)"
    " ORDER BY sequence, grant_id LIMIT %(rows)s"
)


class GrantRow(Struct, frozen=True, kw_only=True):
    """A grant after the event at `position`. Amounts in micro-credits; `sequence` is its age.

    `instead_of` is the expired grant in whose place a refund made this one.
    """

    tenant: str
    account: str
    grant_id: str
    sequence: int
    amount: int
    available: int
    pending: int
    reserved: int
    consumed: int
    expired: int
    revoked: int
    status: GrantStatus
    clawed_back: bool
    kind: GrantKind
    priority: int
    scope: tuple[str, ...]
    effective_at: datetime
    expires_at: datetime | None
    cost_basis: int | None
    source: Source | None
    instead_of: str | None
    metadata: dict[str, str]
    granted_by: str
    reason: str | None
    granted_at: datetime
    granted_position: int
    updated_at: datetime
    position: int


async def read_grant(
    conn: AsyncConnection[Any], tenant: str, account: str, grant: str
) -> GrantRow | None:
    """Return one grant; None if it has not come so far."""
    parameters = {"tenant": tenant, "account": account, "grant_id": grant}
    async with conn.cursor(row_factory=dict_row) as cursor:
        row = await (await cursor.execute(SELECT_ONE, parameters)).fetchone()
    return msgspec.convert(row, GrantRow) if row else None


async def list_grants(
    conn: AsyncConnection[Any],
    tenant: str,
    account: str,
    *,
    status: GrantStatus | None = None,
    cursor: str | None = None,
    limit: int = 100,
) -> Page[GrantRow]:
    """Return an account's grants by age, oldest first. Raises InvalidCursor."""
    # One event can make several grants of the same age: a refund, for each expired grant it meets.
    after = decode_cursor("grants", tuple[int, str], cursor) if cursor else (0, "")
    parameters = {
        "tenant": tenant,
        "account": account,
        "status": status,
        "sequence": after[0],
        "grant_id": after[1],
        "rows": limit + 1,
    }
    async with conn.cursor(row_factory=dict_row) as rows:
        found = await (await rows.execute(SELECT_PAGE, parameters, prepare=False)).fetchall()
    return page(
        "grants",
        msgspec.convert(found, list[GrantRow]),
        limit,
        lambda row: (row.sequence, row.grant_id),
    )
