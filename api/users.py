"""Users: the directory of accounts as an admin searches it, with plan, balance and use."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated

from msgspec import Meta, Struct

from api.accounts import balance_at
from api.answers import BalanceParts
from api.fields import Text
from api.looking import looking
from api.paging import Listed, PageQuery, bad_cursor, list_of, listed
from api.problems import ProjectionBehind
from api.receipts import balance_parts
from api.routes import ADMIN, Call, Read
from api.standings import OnPlan, paid_plans, plan_of
from ledger.domain.errors import Overloaded, StoreUnavailable
from projections.accounts import ACCOUNTS
from projections.balances import BALANCES
from projections.cursors import InvalidCursor
from projections.usage import USAGE
from projections.user_queries import LINKS_SHOWN, UserRow, list_users

TABLES = (ACCOUNTS, BALANCES, USAGE)


class UsersQuery(PageQuery, frozen=True, kw_only=True):
    """Which users to list."""

    search: Annotated[
        Text | None,
        Meta(description="A part of the account's id, its label, or an owner linked to it."),
    ] = None


class UserPlan(Struct, kw_only=True):
    """The plan that an account is on."""

    key: str
    status: str


class UserOut(Struct, kw_only=True):
    """An account: whom providers know it as, what it is on, what it has, and how it is used."""

    account: str
    label: str | None
    opened_at: datetime
    links: Annotated[list[str], Meta(description=f"Owners linked to it, {LINKS_SHOWN} at most.")]
    plan: UserPlan | None
    balance: BalanceParts
    usage_count: Annotated[int, Meta(description="Deductions, ever.")]
    last_used_at: Annotated[datetime | None, Meta(description="The last deduction; null: none.")]


async def _list(call: Call, query: UsersQuery) -> Listed:
    async with looking(call, TABLES, query.position) as look:
        try:
            found = await list_users(
                look.connection,
                call.tenant,
                search=query.search,
                cursor=query.cursor,
                limit=query.limit,
            )
        except InvalidCursor as error:
            raise bad_cursor(error) from None
        names = [row.account.account for row in found.data]
        paid = await paid_plans(look.connection, call.tenant, names, look.as_of)
    catalog = await call.room.ledger.catalog(call.tenant)
    plans = {name: plan_of(catalog, paid.get(name, ()), look.as_of) for name in names}
    users = await asyncio.gather(
        *(_user(call, row, plans[row.account.account], look.as_of) for row in found.data)
    )
    return listed(users, found.next_cursor, look.position, look.as_of)


async def _user(call: Call, row: UserRow, plan: OnPlan | None, now: datetime) -> UserOut:
    used = row.used
    return UserOut(
        account=row.account.account,
        label=row.account.label,
        opened_at=row.account.opened_at.astimezone(UTC),
        links=list(row.owners),
        plan=None if plan is None else UserPlan(key=plan.key, status=plan.status),
        balance=balance_parts(await balance_at(call, row.account, now)),
        usage_count=0 if used is None else used.count,
        last_used_at=None if used is None else used.last_used_at.astimezone(UTC),
    )


LIST_USERS = Read(
    method="GET",
    path="/v1/users",
    name="list_users",
    tag="accounts",
    summary="Search users: accounts with their plan, balance and use",
    roles=ADMIN,
    refusals=(ProjectionBehind, Overloaded, StoreUnavailable),
    query=UsersQuery,
    handle=_list,
    answer=list_of(UserOut),
)
