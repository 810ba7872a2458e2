"""Auto top-up: how an account is to be topped up by itself, and every attempt at it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final

from msgspec import UNSET, Meta, Struct, UnsetType
from psycopg import AsyncConnection
from psycopg.rows import class_row, dict_row

from api.answers import Decimals
from api.fields import Amount, Name, millionths
from api.looking import opened
from api.offer_answers import MoneyOut
from api.paging import bad_cursor
from api.plans import MoneyIn
from api.problems import InvalidRequest, invalid
from api.routes import READERS, SPENDERS, Call, Change, Read
from api.versions import EntriesPage
from ledger.domain.catalog import pack_at
from ledger.domain.errors import AccountNotFound, Overloaded, StoreUnavailable
from ledger.domain.top_ups import AttemptState, AutoTopUp, Why, month_of, unfit
from ledger.domain.values import format_decimal
from ledger.records import View
from projections.cursors import InvalidCursor, decode_cursor, page

LIST: Final = "top-up-attempts"
NUMBER_MAX: Final = (1 << 31) - 1
PUT: Final = """
INSERT INTO scrip.auto_top_ups AS a (
    tenant, account, version, enabled, threshold, pack, monthly_max, currency, reversed_known,
    look_at, by, put_at, updated_at)
VALUES (
    %(tenant)s, %(account)s, 1, %(enabled)s, %(threshold)s, %(pack)s, %(monthly_max)s,
    %(currency)s, %(reversed)s, %(now)s, %(by)s, %(now)s, %(now)s)
ON CONFLICT (tenant, account) DO UPDATE SET
    version = a.version + 1, enabled = excluded.enabled,
    threshold = coalesce(excluded.threshold, a.threshold),
    pack = coalesce(excluded.pack, a.pack),
    monthly_max = coalesce(excluded.monthly_max, a.monthly_max),
    currency = coalesce(excluded.currency, a.currency),
    reversed_known = excluded.reversed_known, why = NULL, why_since = NULL,
    look_at = excluded.look_at, by = excluded.by, updated_at = excluded.updated_at
"""
SELECT: Final = """
SELECT a.enabled, a.threshold, a.pack, a.monthly_max, a.currency, a.why, a.why_since,
       a.updated_at, (
           SELECT coalesce(sum(t.amount), 0)::bigint FROM scrip.top_up_attempts t
           WHERE t.tenant = a.tenant AND t.account = a.account AND t.currency = a.currency
             AND t.started_at >= %(month)s AND t.state IN ('open', 'paid', 'granted')
       ) AS spent
FROM scrip.auto_top_ups a WHERE a.tenant = %(tenant)s AND a.account = %(account)s
"""
SELECT_ATTEMPTS: Final = """
SELECT number, id, state, pack, amount, currency, payment, code, message, tries, started_at,
       ended_at
FROM scrip.top_up_attempts
WHERE tenant = %(tenant)s AND account = %(account)s
  AND (%(before)s::integer IS NULL OR number < %(before)s)
ORDER BY number DESC LIMIT %(limit)s
"""
WHY_FIELDS: Final[dict[Why, tuple[str, str]]] = {
    "pack_not_sold": ("pack", "must be a pack that is sold now, and has a price at Stripe"),
    "pack_without_price": ("pack", "must be a pack with a price"),
    "currency_mismatch": ("monthly_max.currency", "must be that of the pack's price"),
    "pack_too_small": ("threshold", "must be at most what one pack gives"),
}


class AutoTopUpIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to top an account up. To switch it off, `enabled` alone is enough."""

    enabled: bool
    threshold: Annotated[
        Amount | UnsetType,
        Meta(description="With less than this available, the account is topped up."),
    ] = UNSET
    pack: Annotated[Name | None, Meta(description="What is bought each time: one of it.")] = None
    monthly_max: Annotated[
        MoneyIn | None, Meta(description="The most that is charged in a calendar month (UTC).")
    ] = None


class TopUpAttempt(Struct, frozen=True, kw_only=True):
    """One attempt to charge the customer.

    `open`: its outcome is not known yet. `paid`: the credits come with the provider's webhook.
    `granted`: they are there. `declined` and `failed`: nothing was charged; `code` says why.
    """

    id: str
    state: AttemptState
    pack: str
    money: MoneyOut
    payment: str | None
    code: str | None
    message: str | None
    tries: int
    started_at: datetime
    ended_at: datetime | None


class AutoTopUpAnswer(Struct, frozen=True, kw_only=True):
    """How an account is topped up; if it is short of credits and is not, `why`."""

    account: str
    enabled: bool
    threshold: Decimals | None
    pack: str | None
    monthly_max: MoneyOut | None
    charged_this_month: MoneyOut | None
    why: Why | None
    why_since: datetime | None
    updated_at: datetime | None


class AutoTopUpRead(AutoTopUpAnswer, frozen=True, kw_only=True):
    """How an account is topped up, and every attempt at it, the latest first."""

    attempts: list[TopUpAttempt]
    next_cursor: str | None


class _Row(Struct, frozen=True, kw_only=True):
    number: int
    id: str
    state: AttemptState
    pack: str
    amount: int
    currency: str
    payment: str | None
    code: str
    message: str
    tries: int
    started_at: datetime
    ended_at: datetime | None


async def _put(call: Call, connection: AsyncConnection[Any], asked: AutoTopUpIn) -> AutoTopUpAnswer:
    view = await opened(call)
    if asked.enabled:
        await _check(call, asked, view.as_of)
    maximum = asked.monthly_max
    row = {
        **_named(call, view.as_of),
        "enabled": asked.enabled,
        "threshold": millionths(asked.threshold),
        "pack": asked.pack,
        "monthly_max": None if maximum is None else maximum.amount,
        "currency": None if maximum is None else maximum.currency,
        "reversed": _reversed(view),
        "by": call.by,
        "now": view.as_of,
    }
    await connection.execute(PUT, row)
    return await _settings(call, connection, view.as_of)


async def _check(call: Call, asked: AutoTopUpIn, now: datetime) -> None:
    """Refuse what could never buy anything. Raises InvalidRequest."""
    threshold, maximum = millionths(asked.threshold), asked.monthly_max
    for field, given in (("threshold", threshold), ("pack", asked.pack), ("monthly_max", maximum)):
        if given is None:
            raise invalid(field, "required", "must be given to switch it on")
    assert threshold is not None
    assert asked.pack is not None
    assert maximum is not None
    settings = AutoTopUp(
        threshold=threshold, pack=asked.pack, monthly_max=maximum.money(), reversed_known=0
    )
    pack = pack_at(await call.room.ledger.catalog(call.tenant), asked.pack, now)
    why = unfit(settings, pack)
    if why is not None:
        field, rule = WHY_FIELDS[why]
        raise invalid(field, "invalid", rule)
    assert pack is not None
    assert pack.terms.price is not None
    if maximum.amount < pack.terms.price.amount:
        raise invalid("monthly_max.amount", "invalid", "must be at least the price of one pack")


def _reversed(view: View) -> int:
    return sum([grant.reversed for grant in view.grants])


def _named(call: Call, now: datetime) -> dict[str, Any]:
    return {"tenant": call.tenant, "account": call.path["account"], "month": month_of(now)}


async def _settings(call: Call, connection: AsyncConnection[Any], now: datetime) -> AutoTopUpAnswer:
    named = _named(call, now)
    async with connection.cursor(row_factory=dict_row) as cursor:
        row = await (await cursor.execute(SELECT, named)).fetchone()
    if row is None:
        row = dict.fromkeys(("threshold", "pack", "monthly_max", "why", "why_since", "updated_at"))
        row |= {"enabled": False, "currency": None}
    currency, threshold = row["currency"], row["threshold"]
    return AutoTopUpAnswer(
        account=named["account"],
        enabled=row["enabled"],
        threshold=None if threshold is None else format_decimal(threshold),
        pack=row["pack"],
        monthly_max=None if currency is None else MoneyOut(row["monthly_max"], currency),
        charged_this_month=None if currency is None else MoneyOut(row["spent"], currency),
        why=row["why"],
        why_since=_utc(row["why_since"]),
        updated_at=_utc(row["updated_at"]),
    )


async def _read(call: Call, query: EntriesPage) -> AutoTopUpRead:
    before = None
    if query.cursor is not None:
        try:
            # No number is beyond these bounds, and none beyond them can be asked for.
            before = max(0, min(decode_cursor(LIST, int, query.cursor), NUMBER_MAX))
        except InvalidCursor as error:
            raise bad_cursor(error) from None
    now = (await opened(call)).as_of
    asked = {**_named(call, now), "before": before, "limit": query.limit + 1}
    async with call.room.deps.pool.connection() as connection:
        settings = await _settings(call, connection, now)
        async with connection.cursor(row_factory=class_row(_Row)) as cursor:
            rows = await (await cursor.execute(SELECT_ATTEMPTS, asked)).fetchall()
    found = page(LIST, rows, query.limit, lambda row: row.number)
    members = {name: getattr(settings, name) for name in settings.__struct_fields__}
    return AutoTopUpRead(
        **members,
        attempts=[_attempt(row) for row in found.data],
        next_cursor=found.next_cursor,
    )


def _attempt(row: _Row) -> TopUpAttempt:
    return TopUpAttempt(
        id=row.id,
        state=row.state,
        pack=row.pack,
        money=MoneyOut(row.amount, row.currency),
        payment=row.payment,
        code=row.code or None,
        message=row.message or None,
        tries=row.tries,
        started_at=row.started_at.astimezone(UTC),
        ended_at=_utc(row.ended_at),
    )


def _utc(moment: datetime | None) -> datetime | None:
    return moment and moment.astimezone(UTC)


PUT_AUTO_TOP_UP = Change(
    method="PUT",
    path="/v1/accounts/{account}/auto-top-up",
    name="put_auto_top_up",
    tag="accounts",
    summary="Let an account be topped up by itself when it is short, or no longer",
    details="It is off until it is put. The card that the account's customer at Stripe has on file"
    " is charged for one pack, once for each shortfall, and never within an hour of a charge that"
    " was declined. If money of the account goes back, it is switched off.",
    roles=SPENDERS,
    refusals=(AccountNotFound, InvalidRequest, Overloaded, StoreUnavailable),
    body=AutoTopUpIn,
    handle=_put,
    answer=AutoTopUpAnswer,
)
READ_AUTO_TOP_UP = Read(
    method="GET",
    path="/v1/accounts/{account}/auto-top-up",
    name="read_auto_top_up",
    tag="accounts",
    summary="Read how an account is topped up, and every attempt at it",
    roles=READERS,
    refusals=(AccountNotFound, Overloaded, StoreUnavailable),
    query=EntriesPage,
    handle=_read,
    answer=AutoTopUpRead,
)
