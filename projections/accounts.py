"""Accounts: the directory, with each account's balance beside it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from ledger.domain.entities import Balance
from ledger.domain.events import AccountOpened, AccountUpdated
from ledger.records import Recorded
from projections.arrays import Json
from projections.cursors import Page, decode_cursor, page
from projections.projection import Projection, Table, Target, as_json

CREATE = """
CREATE TABLE {accounts_v1} (
    tenant text COLLATE "C" NOT NULL,
    account text COLLATE "C" NOT NULL,
    label text,
    overdraft_limit bigint NOT NULL CHECK (overdraft_limit >= 0),
    metadata jsonb NOT NULL,
    opened_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (tenant, account)
)
"""
UPDATE = """
UPDATE {accounts_v1} AS a SET
    label = r.label, overdraft_limit = r.overdraft_limit, metadata = r.metadata,
    updated_at = r.updated_at, position = r.position
FROM unnest(
    %(tenant)b::text[], %(account)b::text[], %(label)b::text[], %(overdraft_limit)b::bigint[],
    %(metadata)b::jsonb[], %(opened_at)b::timestamptz[], %(updated_at)b::timestamptz[],
    %(position)b::bigint[])
AS r(tenant, account, label, overdraft_limit, metadata, opened_at, updated_at, position)
WHERE a.tenant = r.tenant AND a.account = r.account
"""
COLUMNS = """
    a.tenant, a.account, a.label, a.metadata, a.opened_at, a.updated_at, a.position, b.granted,
    b.available, b.pending, b.reserved, b.consumed, b.expired, b.revoked, b.debt,
    b.overdraft_reserved, b.overdraft_limit, b.due_at, b.position AS balance_position
FROM projections.accounts_v1 AS a
JOIN projections.balances_v2 AS b ON b.tenant = a.tenant AND b.account = a.account
"""
SELECT_ONE = "SELECT" + COLUMNS + "WHERE a.tenant = %(tenant)s AND a.account = %(account)s"
SELECT_SOME = "SELECT" + COLUMNS + "WHERE a.tenant = %(tenant)s AND a.account = ANY(%(accounts)s)"
SELECT_PAGE = (
    "SELECT" + COLUMNS + "WHERE a.tenant = %(tenant)s AND a.account > %(after)s"
    " AND (%(search)s::text IS NULL OR a.account ILIKE %(search)s OR a.label ILIKE %(search)s)"
    " ORDER BY a.account LIMIT %(rows)s"
)


class AccountRow(Struct, frozen=True, kw_only=True):
    """An account after the event at `position`, and its balance after that at `balance_position`.

    The balance is out of date once `balance.due_at` has passed.
    """

    tenant: str
    account: str
    label: str | None
    metadata: dict[str, str]
    opened_at: datetime
    updated_at: datetime
    position: int
    balance: Balance
    balance_position: int


class Properties(Struct, frozen=True, kw_only=True, gc=False):
    """An account's properties, as they were put last. `opened_at`: None if it was there."""

    tenant: str
    account: str
    label: str | None
    overdraft_limit: int
    metadata: Json
    opened_at: datetime | None
    updated_at: datetime
    position: int


def fold(batch: Sequence[Recorded]) -> list[Properties]:
    """Return the last properties of each account that the batch puts, by key."""
    last: dict[tuple[str, str], Properties] = {}
    for recorded in batch:
        event = recorded.event
        if not isinstance(event, AccountOpened | AccountUpdated):
            continue
        assert recorded.account is not None
        key = (recorded.tenant, recorded.account)
        before = last.get(key)
        opened_at = before.opened_at if before else None
        last[key] = Properties(
            tenant=recorded.tenant,
            account=recorded.account,
            label=event.label,
            overdraft_limit=event.overdraft_limit,
            metadata=as_json(event.metadata),
            opened_at=recorded.recorded_at if isinstance(event, AccountOpened) else opened_at,
            updated_at=recorded.recorded_at,
            position=recorded.position,
        )
    return [row for _, row in sorted(last.items())]


def apply(target: Target, batch: Sequence[Recorded]) -> None:
    """Write what a batch of events changes."""
    rows = fold(batch)
    target.insert("accounts_v1", [row for row in rows if row.opened_at is not None])
    target.change(UPDATE, [row for row in rows if row.opened_at is None])


ACCOUNTS = Projection(
    name="accounts",
    tables=(Table(name="accounts_v1", key=("tenant", "account"), create=CREATE),),
    apply=apply,
)


async def read_account(conn: AsyncConnection[Any], tenant: str, account: str) -> AccountRow | None:
    """Return one account; None if it has not come so far."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(SELECT_ONE, {"tenant": tenant, "account": account})
        row = await cursor.fetchone()
    return _account(row) if row else None


async def list_accounts(
    conn: AsyncConnection[Any],
    tenant: str,
    *,
    search: str | None = None,
    cursor: str | None = None,
    limit: int = 100,
) -> Page[AccountRow]:
    """Return a tenant's accounts by id. `search` is a part of the id or of the label, in any case.

    Raises InvalidCursor.
    """
    parameters = {
        "tenant": tenant,
        "after": decode_cursor("accounts", str, cursor) if cursor else "",
        "search": as_pattern(search) if search else None,
        "rows": limit + 1,
    }
    async with conn.cursor(row_factory=dict_row) as rows:
        found = await (await rows.execute(SELECT_PAGE, parameters, prepare=False)).fetchall()
    return page("accounts", [_account(row) for row in found], limit, lambda row: row.account)


async def accounts_of(
    conn: AsyncConnection[Any], tenant: str, accounts: Sequence[str]
) -> list[AccountRow]:
    """Return these accounts, in any order, without those that have not come so far."""
    parameters = {"tenant": tenant, "accounts": list(accounts)}
    async with conn.cursor(row_factory=dict_row) as cursor:
        rows = await (await cursor.execute(SELECT_SOME, parameters)).fetchall()
    return [_account(row) for row in rows]


def as_pattern(search: str) -> str:
    """Return a text as a pattern that matches whatever has just that text in it."""
    literal = search.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{literal}%"


def _account(row: dict[str, Any]) -> AccountRow:
    balance = Balance(**{name: row.pop(name) for name in Balance.__struct_fields__})
    return msgspec.convert({**row, "balance": balance}, AccountRow)
