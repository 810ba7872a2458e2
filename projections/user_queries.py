"""Users: accounts with what they spent, and found by whom providers know them as, too."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Struct
from psycopg import AsyncConnection
from psycopg.rows import class_row

from projections.accounts import AccountRow, accounts_of, as_pattern
from projections.cursors import Page, decode_cursor, page

LIST = "users"
LINKS_SHOWN = 20
"""Links of one account that a list shows."""

# A search reads the tenant's accounts and links, in the order of the list, until a page is full:
# what it looks for may stand anywhere in them.
SELECT_NAMES = """
SELECT a.account FROM projections.accounts_v1 AS a
JOIN projections.balances_v2 AS b ON b.tenant = a.tenant AND b.account = a.account
WHERE a.tenant = %(tenant)s AND a.account > %(after)s
  AND (%(search)s::text IS NULL OR a.account ILIKE %(search)s OR a.label ILIKE %(search)s
       OR a.account IN (
           SELECT account FROM scrip.account_links
           WHERE tenant = %(tenant)s AND owner ILIKE %(search)s))
ORDER BY a.account LIMIT %(rows)s
"""
SELECT_LINKS = """
SELECT l.account, l.owner
FROM unnest(%(accounts)s::text[]) AS named (account)
CROSS JOIN LATERAL (
    SELECT account, owner FROM scrip.account_links
    WHERE tenant = %(tenant)s AND account = named.account ORDER BY owner LIMIT %(links)s
) AS l
ORDER BY l.account, l.owner
"""
# The newest row is one step in an index; the count is summed from whole hours.
SELECT_USED = """
SELECT named.account, last.recorded_at AS last_used_at, hours.count
FROM unnest(%(accounts)s::text[]) AS named (account)
CROSS JOIN LATERAL (
    SELECT recorded_at FROM projections.usage_v1
    WHERE tenant = %(tenant)s AND account = named.account
    ORDER BY recorded_at DESC, position DESC LIMIT 1
) AS last
CROSS JOIN LATERAL (
    SELECT sum(count)::bigint AS count FROM projections.usage_hours_v1
    WHERE tenant = %(tenant)s AND account = named.account
) AS hours
"""


class Used(Struct, frozen=True, kw_only=True):
    """How often an account spent, and when last."""

    account: str
    count: int
    last_used_at: datetime


class UserRow(Struct, frozen=True, kw_only=True):
    """An account, whom providers know it as, and how much it is used."""

    account: AccountRow
    owners: tuple[str, ...]
    used: Used | None


class _Owner(Struct, frozen=True, kw_only=True):
    account: str
    owner: str


class _Name(Struct, frozen=True, kw_only=True):
    account: str


async def list_users(
    conn: AsyncConnection[Any],
    tenant: str,
    *,
    search: str | None = None,
    cursor: str | None = None,
    limit: int = 100,
) -> Page[UserRow]:
    """Return a tenant's users by account.

    `search` is a part of the account's id, of its label, or of an owner that is linked to it, in
    any case. Raises InvalidCursor.
    """
    parameters: dict[str, Any] = {
        "tenant": tenant,
        "after": decode_cursor(LIST, str, cursor) if cursor else "",
        "search": None if search is None else as_pattern(search),
        "rows": limit + 1,
        "links": LINKS_SHOWN,
    }
    async with conn.cursor(row_factory=class_row(_Name)) as names:
        found = await (await names.execute(SELECT_NAMES, parameters, prepare=False)).fetchall()
    shown = page(LIST, [row.account for row in found], limit, lambda account: account)
    named = {"tenant": tenant, "accounts": list(shown.data), "links": LINKS_SHOWN}
    rows = {row.account: row for row in await accounts_of(conn, tenant, shown.data)}
    async with conn.cursor(row_factory=class_row(_Owner)) as links:
        linked = await (await links.execute(SELECT_LINKS, named)).fetchall()
    async with conn.cursor(row_factory=class_row(Used)) as used:
        spent = await (await used.execute(SELECT_USED, named)).fetchall()
    owners: dict[str, list[str]] = {}
    for link in linked:
        owners.setdefault(link.account, []).append(link.owner)
    uses = {row.account: row for row in spent}
    users = [
        UserRow(account=rows[name], owners=tuple(owners.get(name, ())), used=uses.get(name))
        for name in shown.data
    ]
    return Page(tuple(users), shown.next_cursor)
