"""Grants: give credits, take them back, see where they are."""

from __future__ import annotations

from datetime import UTC
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType, structs

from api.answers import GrantAnswer, RevocationAnswer
from api.fields import (
    Amount,
    AmountOrZero,
    Metadata,
    Moment,
    Name,
    Reason,
    Text,
    millionths,
    moment,
)
from api.looking import Look, find, is_due, looking, opened
from api.paging import Listed, PageQuery, Position, bad_cursor, list_of, listed
from api.problems import ProjectionBehind
from api.read_answers import GrantDetail, GrantEntry
from api.receipts import source_out
from api.routes import ADMIN, READERS, SPENDERS, WRITE_REFUSALS, Asked, Call, Read, Write
from ledger.domain.commands import GrantCredits, RevokeGrant
from ledger.domain.entities import Grant, GrantKind, GrantStatus, Source
from ledger.domain.errors import (
    AccountNotFound,
    GrantClosed,
    GrantExists,
    GrantNotFound,
    InvalidCommand,
    LimitReached,
    Overloaded,
    StoreUnavailable,
)
from ledger.domain.values import PRIORITY_DEFAULT, PRIORITY_MAX, format_decimal
from projections.balances import BALANCES
from projections.cursors import InvalidCursor
from projections.grant_queries import GrantRow, list_grants, read_grant
from projections.grants import GRANTS

SCOPE_MAX = 64
TABLES = (GRANTS, BALANCES)
BUCKETS = ("amount", "available", "pending", "reserved", "consumed", "expired", "revoked")
READ_REFUSALS = (AccountNotFound, ProjectionBehind, Overloaded, StoreUnavailable)


class SourceIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a grant comes from: the kind of thing (a payment, a plan) and its id there."""

    type: Text
    id: Text


class GrantIn(Asked, frozen=True, kw_only=True):
    """Credits to give in one lot."""

    id: Annotated[Name | None, Meta(description="Your own id; else one is made.")] = None
    amount: Amount
    kind: GrantKind
    priority: Annotated[int, Meta(ge=0, le=PRIORITY_MAX, description="Lower is spent first.")] = (
        PRIORITY_DEFAULT
    )
    scope: Annotated[
        list[Name],
        Meta(max_length=SCOPE_MAX, description="Pays for these features only; empty: for all."),
    ] = []
    effective_at: Moment | None = None
    expires_at: Moment | None = None
    cost_basis: AmountOrZero | UnsetType = UNSET
    source: SourceIn | None = None
    reason: Reason | None = None
    metadata: Metadata = {}

    def command(self, target: str | None) -> GrantCredits:
        """Return the command."""
        del target
        source = self.source
        return GrantCredits(
            id=self.id,
            amount=self.amount.value,
            kind=self.kind,
            priority=self.priority,
            scope=tuple(dict.fromkeys(self.scope)),
            effective_at=moment(self.effective_at),
            expires_at=moment(self.expires_at),
            cost_basis=millionths(self.cost_basis),
            source=None if source is None else Source(source.type, source.id),
            metadata=self.metadata,
        )


class RevokeIn(Asked, frozen=True, kw_only=True):
    """How to take a grant back."""

    clawback: Annotated[
        bool, Meta(description="What was spent of it becomes debt: its payment was taken back.")
    ] = False
    reason: Reason | None = None

    def command(self, target: str | None) -> RevokeGrant:
        """Return the command."""
        assert target is not None
        return RevokeGrant(grant=target, clawback=self.clawback)


class GrantsQuery(PageQuery, frozen=True, kw_only=True):
    """Which grants to list."""

    status: GrantStatus | None = None


def _overlaid(row: GrantRow, grant: Grant | None) -> GrantRow:
    """Return a row with what the ledger knows of the grant by now, if it was asked."""
    if grant is None:
        return row
    buckets = {name: getattr(grant, name) for name in BUCKETS}
    return structs.replace(row, **buckets, status=grant.status, clawed_back=grant.clawed_back)


def _entry(row: GrantRow) -> GrantEntry:
    return GrantEntry(
        id=row.grant_id,
        account=row.account,
        amount=format_decimal(row.amount),
        available=format_decimal(row.available),
        pending=format_decimal(row.pending),
        reserved=format_decimal(row.reserved),
        consumed=format_decimal(row.consumed),
        expired=format_decimal(row.expired),
        revoked=format_decimal(row.revoked),
        status=row.status,
        kind=row.kind,
        priority=row.priority,
        scope=list(row.scope),
        effective_at=row.effective_at.astimezone(UTC),
        expires_at=row.expires_at and row.expires_at.astimezone(UTC),
        cost_basis=None if row.cost_basis is None else format_decimal(row.cost_basis),
        source=source_out(row.source),
        metadata=row.metadata,
        clawed_back=row.clawed_back,
        granted_by=row.granted_by,
        granted_at=row.granted_at.astimezone(UTC),
        reason=row.reason,
    )


async def _list(call: Call, query: GrantsQuery) -> Listed:
    async with looking(call, TABLES, query.position) as look:
        due = await is_due(call, look)
        try:
            found = await list_grants(
                look.connection,
                call.tenant,
                call.path["account"],
                # The rows of an account that is due have an old status: they are chosen below.
                status=None if due else query.status,
                cursor=query.cursor,
                limit=query.limit,
            )
        except InvalidCursor as error:
            raise bad_cursor(error) from None
    # Asked after the rows were read, so that what is laid over them is never older.
    now = {grant.id: grant for grant in (await opened(call)).grants} if due else {}
    rows = [_overlaid(row, now.get(row.grant_id)) for row in found.data]
    entries = [_entry(row) for row in rows if query.status in {None, row.status}]
    return listed(entries, found.next_cursor, look.position, look.as_of)


async def _read(call: Call, query: Position) -> GrantDetail:
    account, name = call.path["account"], call.path["grant"]

    async def read(look: Look) -> tuple[GrantRow, bool] | None:
        row = await read_grant(look.connection, call.tenant, account, name)
        return None if row is None else (row, await is_due(call, look))

    found, look = await find(call, TABLES, query.position, read)
    if found is None:
        raise GrantNotFound(grant=name)
    row, due = found
    now = {grant.id: grant for grant in (await opened(call)).grants} if due else {}
    entry = _entry(_overlaid(row, now.get(name)))
    members = {name: getattr(entry, name) for name in entry.__struct_fields__}
    return GrantDetail(**members, position=str(look.position), as_of=look.as_of)


CREATE_GRANT = Write(
    method="POST",
    path="/v1/accounts/{account}/grants",
    name="create_grant",
    tag="grants",
    summary="Give credits",
    details="Debt is repaid first. A grant that is effective in the future is `pending` till then.",
    roles=SPENDERS,
    refusals=(AccountNotFound, GrantExists, LimitReached, InvalidCommand, *WRITE_REFUSALS),
    op="grant",
    body=GrantIn,
    answer=GrantAnswer,
    statuses=(201,),
)
REVOKE_GRANT = Write(
    method="POST",
    path="/v1/accounts/{account}/grants/{grant}/revoke",
    name="revoke_grant",
    tag="grants",
    summary="Take back what is unspent of a grant",
    details="With `clawback`, what was spent of it becomes debt, and so does what is still set"
    " aside once it is spent.",
    roles=ADMIN,
    refusals=(AccountNotFound, GrantNotFound, GrantClosed, *WRITE_REFUSALS),
    op="revoke",
    target="grant",
    body=RevokeIn,
    answer=RevocationAnswer,
)
LIST_GRANTS = Read(
    method="GET",
    path="/v1/accounts/{account}/grants",
    name="list_grants",
    tag="grants",
    summary="List an account's grants, oldest first",
    details="A page may hold fewer than asked for; the list ends where `next_cursor` is null.",
    roles=READERS,
    refusals=READ_REFUSALS,
    query=GrantsQuery,
    handle=_list,
    answer=list_of(GrantEntry),
)
READ_GRANT = Read(
    method="GET",
    path="/v1/accounts/{account}/grants/{grant}",
    name="read_grant",
    tag="grants",
    summary="Read a grant",
    roles=READERS,
    refusals=(GrantNotFound, *READ_REFUSALS),
    query=Position,
    handle=_read,
    answer=GrantDetail,
)
