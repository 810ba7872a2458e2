"""Referrals: who brought an account. Once for each account, and both sides are rewarded.

What the reward is, is decided here and now, and kept; the worker tells the ledger.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from msgspec import Meta, Struct
from psycopg import AsyncConnection
from psycopg.rows import class_row

from api.answers import Decimals
from api.fields import Name
from api.looking import opened
from api.problems import ReferralExists, ReferralNotFound, SelfReferral
from api.routes import READERS, SPENDERS, Call, Change, Read
from ledger.domain.catalog import referral_reward_at
from ledger.domain.catalog_events import ReferralRewardSet
from ledger.domain.commands import GrantCredits
from ledger.domain.entities import Source
from ledger.domain.errors import AccountNotFound, Overloaded, StoreUnavailable
from ledger.domain.values import derived_id, format_decimal
from ledger.owed_grants import owe

# One at a time in a tenant: two that refer one another at once would not see each other.
LOCK_TENANT = """
SELECT pg_advisory_xact_lock(hashtextextended('scrip.referrals ' || %(tenant)s, 0))
"""
SELECT_REFERRAL = """
SELECT account, referrer, reward_version, referrer_amount, referred_amount, expires_at, referred_at
FROM scrip.referrals WHERE tenant = %(tenant)s AND account = %(account)s
"""
SELECT_BROUGHT = """
WITH RECURSIVE above AS (
    SELECT referrer FROM scrip.referrals WHERE tenant = %(tenant)s AND account = %(referrer)s
    UNION
    SELECT r.referrer FROM scrip.referrals r JOIN above a ON r.account = a.referrer
    WHERE r.tenant = %(tenant)s)
SELECT 1 FROM above WHERE referrer = %(account)s
"""
# A customer may pay for several accounts: the one that a payment names. All of them are his.
SELECT_OWNER_OF_BOTH = """
WITH owned AS (
    SELECT account, unnest(owners) AS owner FROM scrip.payments
    WHERE tenant = %(tenant)s AND account IN (%(account)s, %(referrer)s)
    UNION
    SELECT account, unnest(owners) FROM scrip.subscriptions
    WHERE tenant = %(tenant)s AND account IN (%(account)s, %(referrer)s)
    UNION
    SELECT account, owner FROM scrip.account_links
    WHERE tenant = %(tenant)s AND account IN (%(account)s, %(referrer)s))
SELECT 1 FROM owned a JOIN owned b USING (owner)
WHERE a.account = %(account)s AND b.account = %(referrer)s LIMIT 1
"""
INSERT_REFERRAL = """
INSERT INTO scrip.referrals (tenant, account, referrer, by, reward_version, referrer_amount,
    referred_amount, expires_at, referred_at)
VALUES (%(tenant)s, %(account)s, %(referrer)s, %(by)s, %(reward_version)s, %(referrer_amount)s,
    %(referred_amount)s, %(expires_at)s, %(now)s)
"""


class ReferrerIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who brought the account."""

    referrer: Annotated[Name, Meta(description="The account of who brought it.")]


class ReferralAnswer(Struct, kw_only=True):
    """Who brought an account, and what both sides get for it, by the reward in force then."""

    account: str
    referrer: str
    reward_version: Annotated[int | None, Meta(description="Null: there was no reward.")]
    referrer_amount: Decimals
    referred_amount: Decimals
    expires_at: Annotated[datetime | None, Meta(description="When the rewards end.")]
    referred_at: datetime


class ReferralRow(Struct, frozen=True, kw_only=True):
    """A referral as it is kept."""

    account: str
    referrer: str
    reward_version: int | None
    referrer_amount: int
    referred_amount: int
    expires_at: datetime | None
    referred_at: datetime


async def _put(call: Call, connection: AsyncConnection[Any], asked: ReferrerIn) -> ReferralAnswer:
    account, referrer = call.path["account"], asked.referrer
    await opened(call)
    if not (await call.room.ledger.view(call.tenant, referrer)).opened:
        raise AccountNotFound
    named = {"tenant": call.tenant, "account": account, "referrer": referrer}
    await connection.execute(LOCK_TENANT, named)
    held = await _row(connection, call.tenant, account)
    if held is not None:
        if held.referrer != referrer:
            raise ReferralExists(referrer=held.referrer)
        return _answer(held)
    if account == referrer or await _are_one(connection, named):
        raise SelfReferral(account=account, referrer=referrer)
    now = call.room.deps.writer.clock()
    catalog = await call.room.ledger.catalog(call.tenant)
    row = _referral(account, referrer, referral_reward_at(catalog, now), now)
    kept = {name: getattr(row, name) for name in ReferralRow.__struct_fields__}
    await connection.execute(INSERT_REFERRAL, named | kept | {"by": call.by, "now": now})
    for whose, amount in ((referrer, row.referrer_amount), (account, row.referred_amount)):
        if amount:
            grant = _reward(row, amount)
            await owe(connection, call.tenant, whose, [grant], now, once=True)
    return _answer(row)


async def _are_one(connection: AsyncConnection[Any], named: dict[str, str]) -> bool:
    """Tell whether one has brought the other before, or one customer has both."""
    for query in (SELECT_BROUGHT, SELECT_OWNER_OF_BOTH):
        if await (await connection.execute(query, named)).fetchone() is not None:
            return True
    return False


def _referral(
    account: str, referrer: str, reward: ReferralRewardSet | None, now: datetime
) -> ReferralRow:
    days = None if reward is None else reward.expires_days
    return ReferralRow(
        account=account,
        referrer=referrer,
        reward_version=None if reward is None else reward.version,
        referrer_amount=0 if reward is None else reward.referrer,
        referred_amount=0 if reward is None else reward.referred,
        expires_at=None if days is None else now + timedelta(days=days),
        referred_at=now,
    )


def _reward(row: ReferralRow, amount: int) -> GrantCredits:
    """Return the grant of one side: of both it has one id, made of the account that was brought."""
    return GrantCredits(
        id=f"{derived_id('referral', row.account)}~reward",
        amount=amount,
        kind="promotional",
        effective_at=row.referred_at,
        expires_at=row.expires_at,
        source=Source("referral", row.account),
    )


async def _row(connection: AsyncConnection[Any], tenant: str, account: str) -> ReferralRow | None:
    async with connection.cursor(row_factory=class_row(ReferralRow)) as cursor:
        found = await cursor.execute(SELECT_REFERRAL, {"tenant": tenant, "account": account})
        return await found.fetchone()


def _answer(row: ReferralRow) -> ReferralAnswer:
    return ReferralAnswer(
        account=row.account,
        referrer=row.referrer,
        reward_version=row.reward_version,
        referrer_amount=format_decimal(row.referrer_amount),
        referred_amount=format_decimal(row.referred_amount),
        expires_at=row.expires_at and row.expires_at.astimezone(UTC),
        referred_at=row.referred_at.astimezone(UTC),
    )


async def _read(call: Call, _: object) -> ReferralAnswer:
    async with call.room.deps.pool.connection() as connection:
        row = await _row(connection, call.tenant, call.path["account"])
    if row is None:
        raise ReferralNotFound
    return _answer(row)


PUT_REFERRER = Change(
    method="PUT",
    path="/v1/accounts/{account}/referrer",
    name="put_referrer",
    tag="accounts",
    summary="Say who brought an account: once, and for good",
    details="Both sides get what the catalog's referral reward says now, shortly after.",
    roles=SPENDERS,
    refusals=(AccountNotFound, ReferralExists, SelfReferral, Overloaded, StoreUnavailable),
    body=ReferrerIn,
    handle=_put,
    answer=ReferralAnswer,
)
READ_REFERRER = Read(
    method="GET",
    path="/v1/accounts/{account}/referrer",
    name="read_referrer",
    tag="accounts",
    summary="Read who brought an account, and what both sides get for it",
    roles=READERS,
    refusals=(ReferralNotFound,),
    handle=_read,
    answer=ReferralAnswer,
)
