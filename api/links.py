"""Links: which account somebody is whom a payment provider or a user system names.

One payment or subscription can be linked as well: where its customer names nobody, or wrongly.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct, structs
from psycopg import AsyncConnection
from psycopg.rows import class_row

from api.fields import Name
from api.paging import bad_cursor
from api.problems import LinkNotFound, invalid
from api.routes import READERS, SPENDERS, Call, Change, Read
from api.versions import EntriesPage
from ledger.domain.errors import AccountNotFound, Overloaded, StoreUnavailable
from projections.cursors import InvalidCursor, decode_cursor, page

LIST: Final = "links"
OWNER_RULE: Final = (
    "must say who names whom, such as stripe:customer:…, clerk:user:…, clerk:organization:… or"
    " asaas:customer:…; or one payment or subscription, such as stripe:session:…"
)
_OWNER = re.compile(
    r"(?:stripe:(?:customer|session|pi|charge|invoice|subscription)"
    r"|clerk:(?:user|organization|item|subscription|payment)"
    r"|asaas:(?:customer|payment|subscription)):.+"
)

PUT_ROW = """
INSERT INTO scrip.account_links (tenant, owner, account, by)
VALUES (%(tenant)s, %(owner)s, %(account)s, %(by)s)
ON CONFLICT (tenant, owner) DO UPDATE
SET account = excluded.account, by = excluded.by, linked_at = now()
RETURNING owner, account, by, linked_at
"""
DELETE_ROW = """
DELETE FROM scrip.account_links WHERE tenant = %(tenant)s AND owner = %(owner)s
RETURNING owner, account, by, linked_at
"""
SELECT_ONE = """
SELECT owner, account, by, linked_at FROM scrip.account_links
WHERE tenant = %(tenant)s AND owner = %(owner)s
"""
SELECT_PAGE = """
SELECT owner, account, by, linked_at FROM scrip.account_links
WHERE tenant = %(tenant)s AND (%(account)s::text IS NULL OR account = %(account)s)
  AND owner > %(after)s
ORDER BY owner LIMIT %(rows)s
"""


class LinkIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which account the owner is, from now on."""

    account: Name


class LinkOut(Struct, frozen=True, kw_only=True):
    """An owner, as a provider names it, and the account it is."""

    owner: str
    account: str
    by: Annotated[str, Meta(description="Who said so: a key, or the fact that named both.")]
    linked_at: datetime


class LinkDeleted(Struct, frozen=True, kw_only=True):
    """The link is gone. What was granted by it stays where it is."""

    owner: str
    deleted: Literal[True] = True


class LinkList(Struct, frozen=True, kw_only=True):
    """Links by owner."""

    data: list[LinkOut]
    next_cursor: str | None


class LinksQuery(EntriesPage, frozen=True, kw_only=True):
    """Which links to list."""

    account: Annotated[Name | None, Meta(description="Only those of this account.")] = None


async def put_link(
    connection: AsyncConnection[Any], *, tenant: str, owner: str, account: str, by: str
) -> LinkOut:
    """Say which account an owner is, whatever was said before. Moves nothing that was granted."""
    parameters = {"tenant": tenant, "owner": owner, "account": account, "by": by}
    link = await _one(connection, PUT_ROW, parameters)
    assert link is not None
    return link


async def links_of(
    connection: AsyncConnection[Any],
    tenant: str,
    *,
    account: str | None = None,
    after: str = "",
    limit: int,
) -> list[LinkOut]:
    """Return links by owner, of one account or of all (None), from after that owner on."""
    parameters = {"tenant": tenant, "account": account, "after": after, "rows": limit}
    async with connection.cursor(row_factory=class_row(LinkOut)) as cursor:
        # Never prepared: the plan for one account is not the plan for all.
        found = await cursor.execute(SELECT_PAGE, parameters, prepare=False)
        return [_utc(row) for row in await found.fetchall()]


async def _put(call: Call, connection: AsyncConnection[Any], asked: LinkIn) -> LinkOut:
    owner = call.path["owner"]
    if _OWNER.fullmatch(owner) is None:
        raise invalid("owner", "invalid", OWNER_RULE)
    view = await call.room.ledger.view(call.tenant, asked.account)
    if not view.opened:
        raise AccountNotFound
    return await put_link(
        connection, tenant=call.tenant, owner=owner, account=asked.account, by=call.by
    )


async def _delete(call: Call, connection: AsyncConnection[Any], _: object) -> LinkDeleted:
    owner = call.path["owner"]
    if await _one(connection, DELETE_ROW, {"tenant": call.tenant, "owner": owner}) is None:
        raise LinkNotFound(owner=owner)
    return LinkDeleted(owner=owner)


async def _read(call: Call, _: object) -> LinkOut:
    owner = call.path["owner"]
    async with call.room.deps.pool.connection() as connection:
        link = await _one(connection, SELECT_ONE, {"tenant": call.tenant, "owner": owner})
    if link is None:
        raise LinkNotFound(owner=owner)
    return link


async def _list(call: Call, query: LinksQuery) -> LinkList:
    after = ""
    if query.cursor is not None:
        try:
            after = decode_cursor(LIST, str, query.cursor)
        except InvalidCursor as error:
            raise bad_cursor(error) from None
    async with call.room.deps.pool.connection() as connection:
        rows = await links_of(
            connection, call.tenant, account=query.account, after=after, limit=query.limit + 1
        )
    found = page(LIST, rows, query.limit, lambda row: row.owner)
    return LinkList(data=list(found.data), next_cursor=found.next_cursor)


async def _one(
    connection: AsyncConnection[Any], query: Any, parameters: dict[str, Any]
) -> LinkOut | None:
    async with connection.cursor(row_factory=class_row(LinkOut)) as cursor:
        row = await (await cursor.execute(query, parameters)).fetchone()
    return row and _utc(row)


def _utc(link: LinkOut) -> LinkOut:
    return structs.replace(link, linked_at=link.linked_at.astimezone(UTC))


PUT_LINK = Change(
    method="PUT",
    path="/v1/links/{owner}",
    name="put_link",
    tag="links",
    summary="Say which account somebody is whom a payment provider names",
    details="Payments that waited for this are then applied. What has been granted stays with the"
    " account that has it, also when an owner becomes another account.",
    roles=SPENDERS,
    refusals=(AccountNotFound, Overloaded, StoreUnavailable),
    body=LinkIn,
    handle=_put,
    answer=LinkOut,
)
READ_LINK = Read(
    method="GET",
    path="/v1/links/{owner}",
    name="read_link",
    tag="links",
    summary="Read which account an owner is",
    roles=READERS,
    refusals=(LinkNotFound,),
    handle=_read,
    answer=LinkOut,
)
DELETE_LINK = Change(
    method="DELETE",
    path="/v1/links/{owner}",
    name="delete_link",
    tag="links",
    summary="Remove a link",
    details="Payments that name no more than this owner wait from then on.",
    roles=SPENDERS,
    refusals=(LinkNotFound,),
    handle=_delete,
    answer=LinkDeleted,
)
LIST_LINKS = Read(
    method="GET",
    path="/v1/links",
    name="list_links",
    tag="links",
    summary="List links by owner",
    roles=READERS,
    query=LinksQuery,
    handle=_list,
    answer=LinkList,
)
