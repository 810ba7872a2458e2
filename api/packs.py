"""Packs: what a tenant sells once. Putting one makes a new version of it."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from api.catalog_receipts import pack_members
from api.fields import Amount, AmountOrZero, Reason, Text, millionths, moment
from api.offer_answers import PackAnswer, PackOut
from api.plans import Effective, MoneyIn, Priority, ProviderIdsIn, Retired
from api.routes import ADMIN, READERS, WRITE_REFUSALS, Asked, Call, Read, Write
from api.versions import (
    READ_REFUSALS,
    Differences,
    EntriesPage,
    OneVersion,
    TwoVersions,
    differences,
    one_version,
    page_of_newest,
    page_of_versions,
)
from ledger.domain.catalog_events import PackSet
from ledger.domain.commands import SetPack
from ledger.domain.errors import InvalidCommand
from ledger.domain.offers import Pack
from ledger.domain.values import EXPIRES_DAYS_MAX, PRIORITY_DEFAULT

ExpiresDays = Annotated[
    Annotated[int, Meta(ge=1, le=EXPIRES_DAYS_MAX)] | None,
    Meta(description="How many days the credits live; null: they never expire."),
]


class PackIn(Asked, frozen=True, kw_only=True):
    """The terms of a pack, all of them: what is left out has its default again."""

    name: Text
    price: MoneyIn | None = None
    credits: Amount
    bonus: Annotated[
        AmountOrZero | UnsetType,
        Meta(description="Given beside them, as a promotional grant with the same life."),
    ] = UNSET
    expires_days: ExpiresDays = None
    priority: Priority = PRIORITY_DEFAULT
    providers: ProviderIdsIn = ProviderIdsIn()
    retired: Retired = False
    effective_at: Effective = None
    reason: Reason | None = None

    def command(self, target: str | None) -> SetPack:
        """Return the command."""
        assert target is not None
        terms = Pack(
            name=self.name,
            price=None if self.price is None else self.price.money(),
            credits=self.credits.value,
            bonus=millionths(self.bonus) or 0,
            expires_days=self.expires_days,
            priority=self.priority,
            providers=self.providers.ids(),
        )
        return SetPack(
            pack=target,
            terms=terms,
            effective_at=moment(self.effective_at),
            retired=self.retired,
        )


class PackList(Struct, kw_only=True):
    """Packs by key, each in its newest version; or the versions of one, oldest first."""

    data: list[PackOut]
    next_cursor: str | None


def _pack(entry: PackSet) -> PackOut:
    return PackOut(**pack_members(entry))


async def _read(call: Call, query: OneVersion) -> PackOut:
    catalog = await call.room.ledger.catalog(call.tenant)
    return _pack(one_version(catalog.packs.get(call.path["pack"], ()), query.version))


async def _list(call: Call, query: EntriesPage) -> PackList:
    catalog = await call.room.ledger.catalog(call.tenant)
    found = page_of_newest("packs", catalog.packs, query)
    return PackList(data=[_pack(entry) for entry in found.data], next_cursor=found.next_cursor)


async def _list_versions(call: Call, query: EntriesPage) -> PackList:
    catalog = await call.room.ledger.catalog(call.tenant)
    found = page_of_versions("pack-versions", catalog.packs.get(call.path["pack"], ()), query)
    return PackList(data=[_pack(entry) for entry in found.data], next_cursor=found.next_cursor)


async def _diff(call: Call, query: TwoVersions) -> Differences:
    catalog = await call.room.ledger.catalog(call.tenant)
    return differences(catalog.packs.get(call.path["pack"], ()), query, _pack)


PUT_PACK = Write(
    method="PUT",
    path="/v1/catalog/packs/{pack}",
    name="put_pack",
    tag="catalog",
    summary="Put a new version of a pack: credits once, for one payment",
    roles=ADMIN,
    refusals=(InvalidCommand, *WRITE_REFUSALS),
    target="pack",
    body=PackIn,
    answer=PackAnswer,
)
READ_PACK = Read(
    method="GET",
    path="/v1/catalog/packs/{pack}",
    name="read_pack",
    tag="catalog",
    summary="Read a pack, in its newest version or in any",
    details="The newest version may be in force only later: see `effective_at`.",
    roles=READERS,
    refusals=READ_REFUSALS,
    query=OneVersion,
    handle=_read,
    answer=PackOut,
    money=False,
)
LIST_PACKS = Read(
    method="GET",
    path="/v1/catalog/packs",
    name="list_packs",
    tag="catalog",
    summary="List packs by key, each in its newest version",
    roles=READERS,
    refusals=READ_REFUSALS[1:],
    query=EntriesPage,
    handle=_list,
    answer=PackList,
    money=False,
)
LIST_PACK_VERSIONS = Read(
    method="GET",
    path="/v1/catalog/packs/{pack}/versions",
    name="list_pack_versions",
    tag="catalog",
    summary="List all versions of a pack, oldest first",
    roles=READERS,
    refusals=READ_REFUSALS,
    query=EntriesPage,
    handle=_list_versions,
    answer=PackList,
    money=False,
)
DIFF_PACK = Read(
    method="GET",
    path="/v1/catalog/packs/{pack}/diff",
    name="diff_pack",
    tag="catalog",
    summary="Compare two versions of a pack, field by field",
    roles=READERS,
    refusals=READ_REFUSALS,
    query=TwoVersions,
    handle=_diff,
    answer=Differences,
    money=False,
)
