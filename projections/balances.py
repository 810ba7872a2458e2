"""Balances: one row an account, as its last event left it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct
from psycopg import AsyncConnection
from psycopg.rows import class_row

from ledger.domain.entities import Balance
from ledger.records import Recorded
from projections.projection import Projection, Table, Target

CREATE = """
CREATE TABLE {balances_v2} (
    tenant text COLLATE "C" NOT NULL,
    account text COLLATE "C" NOT NULL,
    granted bigint NOT NULL,
    available bigint NOT NULL CHECK (available >= 0),
    pending bigint NOT NULL CHECK (pending >= 0),
    reserved bigint NOT NULL CHECK (reserved >= 0),
    consumed bigint NOT NULL CHECK (consumed >= 0),
    expired bigint NOT NULL CHECK (expired >= 0),
    revoked bigint NOT NULL CHECK (revoked >= 0),
    debt bigint NOT NULL CHECK (debt >= 0),
    overdraft_reserved bigint NOT NULL CHECK (overdraft_reserved >= 0),
    overdraft_limit bigint NOT NULL CHECK (overdraft_limit >= 0),
    due_at timestamptz,
    look_at timestamptz,
    position bigint NOT NULL,
    version bigint NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, account),
    CHECK (due_at IS NULL OR look_at <= due_at),
    CHECK (granted = available + pending + reserved + consumed + expired + revoked)
) WITH (fillfactor = 70)
"""
# Reservations come and go, and `due_at` with them. An index of it would be written at each event;
# `look_at` stays until it has passed: the account is due at that time, or later, or not at all.
INDEX_LOOK = "CREATE INDEX ON {balances_v2} (look_at) WHERE look_at IS NOT NULL"
UPDATE = """
UPDATE {balances_v2} AS b SET
    granted = c.granted, available = c.available, pending = c.pending, reserved = c.reserved,
    consumed = c.consumed, expired = c.expired, revoked = c.revoked, debt = c.debt,
    overdraft_reserved = c.overdraft_reserved, overdraft_limit = c.overdraft_limit,
    due_at = c.due_at, position = c.position, version = c.version, updated_at = c.updated_at,
    look_at = CASE WHEN b.look_at > c.updated_at AND (c.due_at IS NULL OR b.look_at <= c.due_at)
        THEN b.look_at ELSE c.due_at END
FROM unnest(
    %(tenant)b::text[], %(account)b::text[], %(granted)b::bigint[], %(available)b::bigint[],
    %(pending)b::bigint[], %(reserved)b::bigint[], %(consumed)b::bigint[], %(expired)b::bigint[],
    %(revoked)b::bigint[], %(debt)b::bigint[], %(overdraft_reserved)b::bigint[],
    %(overdraft_limit)b::bigint[], %(due_at)b::timestamptz[], %(position)b::bigint[],
    %(version)b::bigint[], %(updated_at)b::timestamptz[])
AS c(tenant, account, granted, available, pending, reserved, consumed, expired, revoked, debt,
    overdraft_reserved, overdraft_limit, due_at, position, version, updated_at)
WHERE b.tenant = c.tenant AND b.account = c.account AND b.version < c.version
"""
LOOK_LATER = """
UPDATE {balances_v2} SET look_at = due_at
WHERE ctid = ANY (ARRAY (
    SELECT ctid FROM {balances_v2}
    WHERE look_at <= now() AND (due_at IS NULL OR due_at > look_at) LIMIT 5000))
"""
COLUMNS = """
    tenant, account, granted, available, pending, reserved, consumed, expired, revoked, debt,
    overdraft_reserved, overdraft_limit, due_at, position, version, updated_at
"""
SELECT_ONE = (
    "SELECT" + COLUMNS + "FROM projections.balances_v2"
    " WHERE tenant = %(tenant)s AND account = %(account)s"
)
SELECT_DUE = """
SELECT tenant, account, due_at FROM projections.balances_v2
WHERE look_at <= %(now)s AND due_at <= %(now)s ORDER BY due_at, tenant, account LIMIT %(limit)s
"""


class BalanceRow(Struct, frozen=True, kw_only=True, gc=False):
    """An account's balance after the event at `position`, in micro-credits.

    Out of date once `due_at` has passed: time has then done what no event has recorded yet.
    """

    tenant: str
    account: str
    granted: int
    available: int
    pending: int
    reserved: int
    consumed: int
    expired: int
    revoked: int
    debt: int
    overdraft_reserved: int
    overdraft_limit: int
    due_at: datetime | None
    position: int
    version: int
    updated_at: datetime

    @property
    def balance(self) -> Balance:
        """The balance as the ledger's own type."""
        return Balance(**{name: getattr(self, name) for name in Balance.__struct_fields__})


class Due(Struct, frozen=True, kw_only=True):
    """An account that time changes at `due_at`."""

    tenant: str
    account: str
    due_at: datetime


def fold(batch: Sequence[Recorded]) -> tuple[list[BalanceRow], list[BalanceRow]]:
    """Return the last balances of the accounts that a batch makes, and of others it touches.

    By tenant and account, both.
    """
    last = {
        (recorded.tenant, recorded.account): recorded
        for recorded in batch
        if recorded.account is not None
    }
    new = {(recorded.tenant, recorded.account) for recorded in batch if recorded.version == 1}
    keys = sorted(last)
    return (
        [_row(last[key]) for key in keys if key in new],
        [_row(last[key]) for key in keys if key not in new],
    )


def _row(recorded: Recorded) -> BalanceRow:
    balance = recorded.balance
    assert balance is not None
    assert recorded.account is not None
    return BalanceRow(
        tenant=recorded.tenant,
        account=recorded.account,
        granted=balance.granted,
        available=balance.available,
        pending=balance.pending,
        reserved=balance.reserved,
        consumed=balance.consumed,
        expired=balance.expired,
        revoked=balance.revoked,
        debt=balance.debt,
        overdraft_reserved=balance.overdraft_reserved,
        overdraft_limit=balance.overdraft_limit,
        due_at=balance.due_at,
        position=recorded.position,
        version=recorded.version,
        updated_at=recorded.recorded_at,
    )


def apply(target: Target, batch: Sequence[Recorded]) -> None:
    """Write what a batch of events changes."""
    new, changed = fold(batch)
    target.insert("balances_v2", new)
    target.change(UPDATE, changed)


BALANCES = Projection(
    name="balances",
    tables=(
        Table(
            name="balances_v2",
            key=("tenant", "account"),
            create=CREATE,
            indexes=(INDEX_LOOK,),
            hints=(("look_at", "due_at"),),
        ),
    ),
    apply=apply,
    tidy=LOOK_LATER,
)


async def read_balance(conn: AsyncConnection[Any], tenant: str, account: str) -> BalanceRow | None:
    """Return an account's balance; None if no event of it has come so far."""
    async with conn.cursor(row_factory=class_row(BalanceRow)) as cursor:
        await cursor.execute(SELECT_ONE, {"tenant": tenant, "account": account})
        return await cursor.fetchone()


async def due_accounts(conn: AsyncConnection[Any], now: datetime, limit: int = 1_000) -> list[Due]:
    """Return accounts of all tenants that time has changed by `now`, the longest due first."""
    async with conn.cursor(row_factory=class_row(Due)) as cursor:
        await cursor.execute(SELECT_DUE, {"now": now, "limit": limit})
        return await cursor.fetchall()
