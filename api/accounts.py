"""Accounts: open one, put its properties again, find and read them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType, structs

from api.answers import AccountAnswer
from api.fields import AmountOrZero, Metadata, Reason, Text, millionths
from api.looking import find, looking, opened
from api.paging import Listed, PageQuery, Position, bad_cursor, list_of, listed
from api.problems import ProjectionBehind
from api.read_answers import AccountDetail, AccountEntry, BalanceAnswer
from api.receipts import balance_parts
from api.routes import READERS, SPENDERS, WRITE_REFUSALS, Asked, Call, Read, Write
from ledger.domain.commands import PutAccount
from ledger.domain.entities import Balance
from ledger.domain.errors import AccountNotFound, Overloaded, StoreUnavailable
from ledger.domain.values import ZONE_DEFAULT, format_decimal
from projections.accounts import ACCOUNTS, AccountRow, list_accounts, read_account
from projections.balances import BALANCES, read_balance
from projections.cursors import InvalidCursor

DIRECTORY = (ACCOUNTS, BALANCES)
READ_REFUSALS = (AccountNotFound, ProjectionBehind, Overloaded, StoreUnavailable)


class AccountIn(Asked, frozen=True, kw_only=True):
    """An account's properties: all of them, every time. What is left out is put to its default."""

    label: Text | None = None
    overdraft_limit: AmountOrZero | UnsetType = UNSET
    metadata: Metadata = {}
    zone: Annotated[
        Text,
        Meta(description="IANA time zone. Its clock says when free periods begin, from the next."),
    ] = ZONE_DEFAULT
    reason: Reason | None = None

    def command(self, target: str | None) -> PutAccount:
        """Return the command."""
        del target
        return PutAccount(
            label=self.label,
            overdraft_limit=millionths(self.overdraft_limit) or 0,
            metadata=self.metadata,
            zone=self.zone,
        )


class AccountsQuery(PageQuery, frozen=True, kw_only=True):
    """Which accounts to list."""

    search: Annotated[
        Text | None, Meta(description="A part of the id or of the label, in any case.")
    ] = None


class BalanceQuery(Position, frozen=True, kw_only=True):
    """How fresh the balance must be."""

    consistency: Annotated[
        Literal["projected", "strong"],
        Meta(description="`strong` asks the ledger itself, and needs no position."),
    ] = "projected"


async def balance_at(call: Call, row: AccountRow, now: datetime) -> Balance:
    """Return the balance in a row, or the ledger's if time has changed it since."""
    due_at = row.balance.due_at
    if due_at is None or due_at > now:
        return row.balance
    return (await call.room.ledger.view(call.tenant, row.account)).balance


async def _entry(call: Call, row: AccountRow, now: datetime) -> AccountEntry:
    balance = await balance_at(call, row, now)
    return AccountEntry(
        id=row.account,
        label=row.label,
        overdraft_limit=format_decimal(balance.overdraft_limit),
        metadata=row.metadata,
        opened_at=row.opened_at.astimezone(UTC),
        updated_at=row.updated_at.astimezone(UTC),
        balance=balance_parts(balance),
    )


async def _list(call: Call, query: AccountsQuery) -> Listed:
    async with looking(call, DIRECTORY, query.position) as look:
        try:
            found = await list_accounts(
                look.connection,
                call.tenant,
                search=query.search,
                cursor=query.cursor,
                limit=query.limit,
            )
        except InvalidCursor as error:
            raise bad_cursor(error) from None
    entries = await asyncio.gather(*(_entry(call, row, look.as_of) for row in found.data))
    return listed(entries, found.next_cursor, look.position, look.as_of)


async def _read(call: Call, query: Position) -> AccountDetail:
    account = call.path["account"]
    row, look = await find(
        call,
        DIRECTORY,
        query.position,
        lambda look: read_account(look.connection, call.tenant, account),
    )
    if row is None:
        raise AccountNotFound
    entry = await _entry(call, row, look.as_of)
    members = {name: getattr(entry, name) for name in entry.__struct_fields__}
    return AccountDetail(**members, position=str(look.position), as_of=look.as_of)


async def _read_balance(call: Call, query: BalanceQuery) -> BalanceAnswer:
    account = call.path["account"]
    if query.consistency == "projected":
        async with looking(call, (BALANCES,), query.position) as look:
            row = await read_balance(look.connection, call.tenant, account)
        if row is not None and (row.due_at is None or row.due_at > look.as_of):
            position = max(look.position, row.position)
            return _balance_answer(account, row.balance, position, look.as_of)
    view = await opened(call)
    return _balance_answer(account, view.balance, view.position, view.as_of)


def _balance_answer(
    account: str, balance: Balance, position: int, as_of: datetime
) -> BalanceAnswer:
    members = structs.asdict(balance_parts(balance))
    return BalanceAnswer(account=account, **members, position=str(position), as_of=as_of)


PUT_ACCOUNT = Write(
    method="PUT",
    path="/v1/accounts/{account}",
    name="put_account",
    tag="accounts",
    summary="Open an account, or put its properties again",
    details="201 the first time, 200 from then on. Opening comes before everything else.",
    roles=SPENDERS,
    refusals=WRITE_REFUSALS,
    op="put_account",
    body=AccountIn,
    answer=AccountAnswer,
    statuses=(201, 200),
)
LIST_ACCOUNTS = Read(
    method="GET",
    path="/v1/accounts",
    name="list_accounts",
    tag="accounts",
    summary="List accounts by id, or search them",
    roles=READERS,
    refusals=READ_REFUSALS[1:],
    query=AccountsQuery,
    handle=_list,
    answer=list_of(AccountEntry),
)
READ_ACCOUNT = Read(
    method="GET",
    path="/v1/accounts/{account}",
    name="read_account",
    tag="accounts",
    summary="Read an account and its balance",
    roles=READERS,
    refusals=READ_REFUSALS,
    query=Position,
    handle=_read,
    answer=AccountDetail,
)
READ_BALANCE = Read(
    method="GET",
    path="/v1/accounts/{account}/balance",
    name="read_balance",
    tag="accounts",
    summary="Read an account's balance",
    details="Right at this moment: what has expired by now is not available, whether or not"
    " anything has recorded that. With the `position` of a write, the answer includes that write.",
    roles=READERS,
    refusals=READ_REFUSALS,
    query=BalanceQuery,
    handle=_read_balance,
    answer=BalanceAnswer,
)
