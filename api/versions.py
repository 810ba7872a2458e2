"""Reading entries of the catalog: any version, a page of entries or versions, what has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from api.paging import PAGE_DEFAULT, CursorIn, Limit, bad_cursor
from ledger.domain.catalog_events import (
    FeatureSet,
    PackSet,
    PlanSet,
    RateCardSet,
    ReferralRewardSet,
    RefundPolicySet,
)
from ledger.domain.errors import CatalogEntryNotFound, Overloaded, StoreUnavailable
from projections.cursors import InvalidCursor, Page, decode_cursor, page

VERSION_MAX = 2**31
READ_REFUSALS = (CatalogEntryNotFound, Overloaded, StoreUnavailable)
Version = Annotated[int, Meta(ge=1, le=VERSION_MAX)]
Keyed = TypeVar("Keyed", FeatureSet, RateCardSet, PlanSet, PackSet)
Entry = TypeVar(
    "Entry", FeatureSet, RateCardSet, PlanSet, PackSet, RefundPolicySet, ReferralRewardSet
)
Key = TypeVar("Key", int, str)


class OneVersion(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which version to read; without one, the newest."""

    version: Version | None = None


class TwoVersions(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"from_": "from"}
):
    """Which versions to compare; without them, the newest and the one before it."""

    from_: Annotated[
        Version | None, Meta(description="The older version; else the one before `to`.")
    ] = None
    to: Annotated[Version | None, Meta(description="The newer version; else the newest.")] = None


class EntriesPage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which page to read."""

    cursor: CursorIn | None = None
    limit: Limit = PAGE_DEFAULT


class FieldChange(Struct, kw_only=True, rename={"from_": "from"}):
    """What one field says in the older and in the newer version; null where it is absent."""

    field: Annotated[str, Meta(description="Its path, such as `price.amount`.")]
    from_: Any
    to: Any


class Differences(Struct, kw_only=True, rename={"from_": "from"}):
    """What has changed between two versions of an entry, field by field."""

    from_: int
    to: int
    changes: list[FieldChange]


def one_version(versions: Sequence[Entry], asked: int | None) -> Entry:
    """Return the version asked for, or the newest. Raises CatalogEntryNotFound."""
    if not versions or (asked is not None and asked > len(versions)):
        raise CatalogEntryNotFound
    return versions[(asked or len(versions)) - 1]


def page_of_newest(
    name: str, entries: Mapping[str, list[Keyed]], query: EntriesPage
) -> Page[Keyed]:
    """Return a page of entries by key, each in its newest version."""
    after = _after(name, str, query, "")
    rows = [entries[key][-1] for key in sorted(entries) if key > after]
    return page(name, rows, query.limit, key_of)


def key_of(entry: FeatureSet | RateCardSet | PlanSet | PackSet) -> str:
    """Return what an entry is called in its part of the catalog."""
    match entry:
        case PlanSet():
            return entry.plan
        case PackSet():
            return entry.pack
        case _:
            return entry.feature


def page_of_versions(name: str, versions: Sequence[Keyed], query: EntriesPage) -> Page[Keyed]:
    """Return a page of the versions of one entry, oldest first. Raises CatalogEntryNotFound."""
    if not versions:
        raise CatalogEntryNotFound
    after = _after(name, int, query, 0)
    return page(name, versions[max(0, after) :], query.limit, lambda entry: entry.version)


def _after(name: str, kind: type[Key], query: EntriesPage, start: Key) -> Key:
    if query.cursor is None:
        return start
    try:
        return decode_cursor(name, kind, query.cursor)
    except InvalidCursor as error:
        raise bad_cursor(error) from None


def differences(
    versions: Sequence[Keyed], query: TwoVersions, out: Callable[[Keyed], Struct]
) -> Differences:
    """Return what has changed between two versions. Raises CatalogEntryNotFound."""
    newer = one_version(versions, query.to)
    older = one_version(versions, query.from_ or max(1, newer.version - 1))
    changes = [
        FieldChange(field=field, from_=was, to=will_be)
        for field, was, will_be in changes_between(_said(out(older)), _said(out(newer)))
    ]
    return Differences(from_=older.version, to=newer.version, changes=changes)


def _said(entry: Struct) -> dict[str, Any]:
    """Return what an entry says, as JSON, but for which version it is."""
    said: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(entry))
    del said["version"]
    return said


def changes_between(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return the fields in which two records differ: the path, what was so, what is so now.

    Records in records are taken apart, lists are not. What is absent is None.
    """
    was, will_be = dict(_leaves("", old)), dict(_leaves("", new))
    return [
        (field, was.get(field), will_be.get(field))
        for field in dict.fromkeys((*was, *will_be))
        if was.get(field) != will_be.get(field)
    ]


def _leaves(path: str, record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in record.items():
        field = f"{path}.{name}" if path else name
        if isinstance(value, Mapping):
            yield from _leaves(field, value)
        else:
            yield field, value
