"""What end users read of their own account, with a key of that account."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from msgspec import Meta, Struct, structs

from api.accounts import balance_at
from api.answers import BalanceParts, Decimals
from api.answers import Position as PositionText
from api.free_plan import next_refill as next_free_refill
from api.looking import find
from api.paging import Position
from api.problems import ProjectionBehind
from api.receipts import balance_parts
from api.routes import END_USERS, Call, Read
from api.standings import OnPlan, Refill, next_refill, paid_plans, period_of, plan_of, terms_at
from ledger.domain.catalog import Catalog
from ledger.domain.errors import AccountNotFound, Overloaded, StoreUnavailable
from ledger.domain.values import format_decimal
from projections.accounts import ACCOUNTS, read_account
from projections.balances import BALANCES
from projections.usage import USAGE
from projections.usage_queries import UsageFilter, UsageGroup, group_usage

TABLES = (ACCOUNTS, BALANCES, USAGE)


class MyPlan(Struct, kw_only=True):
    """The plan that the account is on."""

    key: str
    name: str
    status: Annotated[
        str,
        Meta(
            description="`active`, `trialing`, `past_due`, `paused`; `free`: it pays for none.",
            examples=["active"],
        ),
    ]


class MyRefill(Struct, kw_only=True):
    """When the plan gives credits next, and how many."""

    at: datetime
    amount: Decimals


class MyFeature(Struct, kw_only=True):
    """What one feature took; null: what named none."""

    feature: str | None
    amount: Decimals
    refunded: Decimals
    quantity: Decimals
    count: Annotated[int, Meta(description="Deductions.")]


class MyUsage(Struct, kw_only=True):
    """What was spent in the period of the plan, or in this month."""

    start: datetime
    end: datetime
    amount: Decimals
    refunded: Decimals
    features: list[MyFeature]


class MyCredits(Struct, kw_only=True):
    """The account's credits, its plan, and what it has spent."""

    account: str
    label: str | None
    balance: BalanceParts
    plan: MyPlan | None
    next_refill: MyRefill | None
    usage: MyUsage
    position: PositionText
    as_of: datetime


async def _read(call: Call, query: Position) -> MyCredits:
    account = call.principal.account
    assert account is not None, "a key of an end user is of one account"
    # As if the path named it, for all that reads the account that a path names.
    call = structs.replace(call, path={"account": account})
    row, look = await find(
        call,
        TABLES,
        query.position,
        lambda look: read_account(look.connection, call.tenant, account),
    )
    if row is None:
        raise AccountNotFound
    now = look.as_of
    catalog = await call.room.ledger.catalog(call.tenant)
    async with call.room.deps.pool.connection() as connection:
        paid = await paid_plans(connection, call.tenant, [account], now)
        plan = plan_of(catalog, paid.get(account, ()), now)
        start, end = period_of(catalog, plan, row.opened_at, now)
        where = UsageFilter(start=start, end=end)
        groups = await group_usage(connection, call.tenant, account, where, by="feature")
        known = await next_free_refill(connection, catalog, call.tenant, account)
    refill = next_refill(catalog, plan, row.opened_at, now)
    if known is not None and plan is not None and plan.paid is None:
        # The worker has begun this account's periods: they are where it says.
        refill = Refill(at=known.at, amount=known.amount)
    return MyCredits(
        account=account,
        label=row.label,
        balance=balance_parts(await balance_at(call, row, now)),
        plan=None if plan is None else _plan(catalog, plan, now),
        next_refill=None
        if refill is None
        else MyRefill(at=refill.at.astimezone(UTC), amount=format_decimal(refill.amount)),
        usage=_usage(start, end, groups),
        position=str(look.position),
        as_of=now,
    )


def _plan(catalog: Catalog, plan: OnPlan, now: datetime) -> MyPlan:
    terms = terms_at(catalog, plan.key, now)
    return MyPlan(key=plan.key, name=terms.name if terms else plan.key, status=plan.status)


def _usage(start: datetime, end: datetime, groups: list[UsageGroup]) -> MyUsage:
    return MyUsage(
        start=start.astimezone(UTC),
        end=end.astimezone(UTC),
        **_amounts(sum(one.amount for one in groups), sum(one.refunded for one in groups)),
        features=[
            MyFeature(
                feature=one.name,
                **_amounts(one.amount, one.refunded),
                quantity=format_decimal(one.quantity),
                count=one.count,
            )
            for one in groups
        ],
    )


def _amounts(amount: int, refunded: int) -> dict[str, Any]:
    return {"amount": format_decimal(amount), "refunded": format_decimal(refunded)}


READ_MY_CREDITS = Read(
    method="GET",
    path="/v1/me/credits",
    name="read_my_credits",
    tag="me",
    summary="Read one's own balance, plan, next refill and usage",
    details="For the key of an end user, which names the account.",
    roles=END_USERS,
    refusals=(AccountNotFound, ProjectionBehind, Overloaded, StoreUnavailable),
    query=Position,
    handle=_read,
    answer=MyCredits,
)
