"""The catalog: what features cost. Putting an entry makes a new version; every version can be read.

Reads ask the ledger itself, so that a price just put is the price that is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType

from api.answers import (
    FeatureAnswer,
    FeatureOut,
    RateCardAnswer,
    RateCardOut,
    RefundPolicyAnswer,
    RefundPolicyOut,
)
from api.fields import AmountOrZero, Reason, Text, millionths
from api.paging import PAGE_DEFAULT, CursorIn, Limit, bad_cursor
from api.receipts import feature_members, rate_card_members
from api.routes import ADMIN, READERS, WRITE_REFUSALS, Asked, Call, Read, Write
from ledger.domain.commands import SetFeature, SetRateCard, SetRefundPolicy
from ledger.domain.entities import Rates
from ledger.domain.errors import (
    CatalogEntryNotFound,
    InvalidCommand,
    Overloaded,
    StoreUnavailable,
)
from ledger.domain.events import FeatureSet, RateCardSet
from ledger.domain.values import REGRANT_DAYS_MAX
from projections.cursors import InvalidCursor, Page, decode_cursor, page

MODELS_MAX = 500
VERSION_MAX = 2**31
Entry = TypeVar("Entry", FeatureSet, RateCardSet)
READ_REFUSALS = (CatalogEntryNotFound, Overloaded, StoreUnavailable)


class FeatureIn(Asked, frozen=True, kw_only=True):
    """A feature: what it is called, what its unit is, and what one unit costs."""

    name: Text
    unit: Text = "unit"
    unit_price: Annotated[
        AmountOrZero | UnsetType | None,
        Meta(description="0 is a price: free. Without one, a quantity cannot be priced."),
    ] = UNSET
    reason: Reason | None = None

    def command(self, target: str | None) -> SetFeature:
        """Return the command."""
        assert target is not None
        price = UNSET if self.unit_price is None else self.unit_price
        return SetFeature(
            feature=target, name=self.name, unit=self.unit, unit_price=millionths(price)
        )


class RatesIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Credits for a million tokens of each kind, and what a call costs at least."""

    input_per_million: AmountOrZero
    output_per_million: AmountOrZero
    cached_input_per_million: AmountOrZero
    minimum: AmountOrZero | UnsetType = UNSET


class RateCardIn(Asked, frozen=True, kw_only=True):
    """The rates of every model of a feature. A model that is not named has no price."""

    models: Annotated[dict[Text, RatesIn], Meta(min_length=1, max_length=MODELS_MAX)]
    reason: Reason | None = None

    def command(self, target: str | None) -> SetRateCard:
        """Return the command."""
        assert target is not None
        models = {
            model: Rates(
                input_per_million=rates.input_per_million.value,
                output_per_million=rates.output_per_million.value,
                cached_input_per_million=rates.cached_input_per_million.value,
                minimum=millionths(rates.minimum) or 0,
            )
            for model, rates in self.models.items()
        }
        return SetRateCard(feature=target, models=models)


class RefundPolicyIn(Asked, frozen=True, kw_only=True):
    """What a refund does with slices of expired grants."""

    regrant_days: Annotated[
        Annotated[int, Meta(ge=1, le=REGRANT_DAYS_MAX)] | None,
        Meta(description="They come back as a grant that lives this many days; null: they lapse."),
    ]
    reason: Reason | None = None

    def command(self, target: str | None) -> SetRefundPolicy:
        """Return the command."""
        del target
        return SetRefundPolicy(regrant_days=self.regrant_days)


class OneVersion(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which version to read; without one, the newest."""

    version: Annotated[int, Meta(ge=1, le=VERSION_MAX)] | None = None


class EntriesPage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which page to read."""

    cursor: CursorIn | None = None
    limit: Limit = PAGE_DEFAULT


class FeatureList(Struct, kw_only=True):
    """Features by name, each in its newest version; or the versions of one, oldest first."""

    data: list[FeatureOut]
    next_cursor: str | None


class RateCardList(Struct, kw_only=True):
    """Rate cards by feature, each in its newest version; or the versions of one, oldest first."""

    data: list[RateCardOut]
    next_cursor: str | None


def _version(versions: Sequence[Entry], asked: int | None) -> Entry:
    if not versions or (asked is not None and asked > len(versions)):
        raise CatalogEntryNotFound
    return versions[(asked or len(versions)) - 1]


def _page(name: str, entries: dict[str, list[Entry]], query: EntriesPage) -> Page[Entry]:
    after = _after(name, str, query, "")
    rows = [entries[feature][-1] for feature in sorted(entries) if feature > after]
    return page(name, rows, query.limit, lambda entry: entry.feature)


def _versions(name: str, versions: Sequence[Entry], query: EntriesPage) -> Page[Entry]:
    if not versions:
        raise CatalogEntryNotFound
    after = _after(name, int, query, 0)
    return page(name, versions[max(0, after) :], query.limit, lambda entry: entry.version)


Key = TypeVar("Key", int, str)


def _after(name: str, kind: type[Key], query: EntriesPage, start: Key) -> Key:
    if query.cursor is None:
        return start
    try:
        return decode_cursor(name, kind, query.cursor)
    except InvalidCursor as error:
        raise bad_cursor(error) from None


def _feature(entry: FeatureSet) -> FeatureOut:
    return FeatureOut(**feature_members(entry))


def _rate_card(entry: RateCardSet) -> RateCardOut:
    return RateCardOut(**rate_card_members(entry))


async def _read_feature(call: Call, query: OneVersion) -> FeatureOut:
    catalog = await call.room.ledger.catalog(call.tenant)
    return _feature(_version(catalog.features.get(call.path["feature"], ()), query.version))


async def _read_rate_card(call: Call, query: OneVersion) -> RateCardOut:
    catalog = await call.room.ledger.catalog(call.tenant)
    return _rate_card(_version(catalog.rate_cards.get(call.path["feature"], ()), query.version))


async def _list_features(call: Call, query: EntriesPage) -> FeatureList:
    catalog = await call.room.ledger.catalog(call.tenant)
    found = _page("features", dict(catalog.features), query)
    return FeatureList(
        data=[_feature(entry) for entry in found.data], next_cursor=found.next_cursor
    )


async def _list_rate_cards(call: Call, query: EntriesPage) -> RateCardList:
    catalog = await call.room.ledger.catalog(call.tenant)
    found = _page("rate-cards", dict(catalog.rate_cards), query)
    data = [_rate_card(entry) for entry in found.data]
    return RateCardList(data=data, next_cursor=found.next_cursor)


async def _list_feature_versions(call: Call, query: EntriesPage) -> FeatureList:
    catalog = await call.room.ledger.catalog(call.tenant)
    versions = catalog.features.get(call.path["feature"], ())
    found = _versions("feature-versions", versions, query)
    return FeatureList(
        data=[_feature(entry) for entry in found.data], next_cursor=found.next_cursor
    )


async def _list_rate_card_versions(call: Call, query: EntriesPage) -> RateCardList:
    catalog = await call.room.ledger.catalog(call.tenant)
    versions = catalog.rate_cards.get(call.path["feature"], ())
    found = _versions("rate-card-versions", versions, query)
    data = [_rate_card(entry) for entry in found.data]
    return RateCardList(data=data, next_cursor=found.next_cursor)


async def _read_refund_policy(call: Call, query: OneVersion) -> RefundPolicyOut:
    catalog = await call.room.ledger.catalog(call.tenant)
    policies = catalog.refund_policies
    if not policies and query.version is None:
        return RefundPolicyOut(version=0, regrant_days=None)
    if not policies or (query.version or 0) > len(policies):
        raise CatalogEntryNotFound
    policy = policies[(query.version or len(policies)) - 1]
    return RefundPolicyOut(version=policy.version, regrant_days=policy.regrant_days)


PUT_FEATURE = Write(
    method="PUT",
    path="/v1/catalog/features/{feature}",
    name="put_feature",
    tag="catalog",
    summary="Put a new version of a feature and its price for one unit",
    roles=ADMIN,
    refusals=(InvalidCommand, *WRITE_REFUSALS),
    target="feature",
    body=FeatureIn,
    answer=FeatureAnswer,
)
READ_FEATURE = Read(
    method="GET",
    path="/v1/catalog/features/{feature}",
    name="read_feature",
    tag="catalog",
    summary="Read a feature, in its newest version or in any",
    roles=READERS,
    refusals=READ_REFUSALS,
    query=OneVersion,
    handle=_read_feature,
    answer=FeatureOut,
    money=False,
)
LIST_FEATURES = Read(
    method="GET",
    path="/v1/catalog/features",
    name="list_features",
    tag="catalog",
    summary="List features by name, each in its newest version",
    roles=READERS,
    refusals=READ_REFUSALS[1:],
    query=EntriesPage,
    handle=_list_features,
    answer=FeatureList,
    money=False,
)
LIST_FEATURE_VERSIONS = Read(
    method="GET",
    path="/v1/catalog/features/{feature}/versions",
    name="list_feature_versions",
    tag="catalog",
    summary="List all versions of a feature, oldest first",
    roles=READERS,
    refusals=READ_REFUSALS,
    query=EntriesPage,
    handle=_list_feature_versions,
    answer=FeatureList,
    money=False,
)
PUT_RATE_CARD = Write(
    method="PUT",
    path="/v1/catalog/rate-cards/{feature}",
    name="put_rate_card",
    tag="catalog",
    summary="Put a new version of a feature's token rates",
    roles=ADMIN,
    refusals=(InvalidCommand, *WRITE_REFUSALS),
    target="feature",
    body=RateCardIn,
    answer=RateCardAnswer,
)
READ_RATE_CARD = Read(
    method="GET",
    path="/v1/catalog/rate-cards/{feature}",
    name="read_rate_card",
    tag="catalog",
    summary="Read a feature's token rates, in their newest version or in any",
    roles=READERS,
    refusals=READ_REFUSALS,
    query=OneVersion,
    handle=_read_rate_card,
    answer=RateCardOut,
    money=False,
)
LIST_RATE_CARDS = Read(
    method="GET",
    path="/v1/catalog/rate-cards",
    name="list_rate_cards",
    tag="catalog",
    summary="List rate cards by feature, each in its newest version",
    roles=READERS,
    refusals=READ_REFUSALS[1:],
    query=EntriesPage,
    handle=_list_rate_cards,
    answer=RateCardList,
    money=False,
)
LIST_RATE_CARD_VERSIONS = Read(
    method="GET",
    path="/v1/catalog/rate-cards/{feature}/versions",
    name="list_rate_card_versions",
    tag="catalog",
    summary="List all versions of a feature's token rates, oldest first",
    roles=READERS,
    refusals=READ_REFUSALS,
    query=EntriesPage,
    handle=_list_rate_card_versions,
    answer=RateCardList,
    money=False,
)
PUT_REFUND_POLICY = Write(
    method="PUT",
    path="/v1/catalog/refund-policy",
    name="put_refund_policy",
    tag="catalog",
    summary="Say what refunds do with slices of expired grants",
    roles=ADMIN,
    refusals=(InvalidCommand, *WRITE_REFUSALS),
    body=RefundPolicyIn,
    answer=RefundPolicyAnswer,
)
READ_REFUND_POLICY = Read(
    method="GET",
    path="/v1/catalog/refund-policy",
    name="read_refund_policy",
    tag="catalog",
    summary="Read what refunds do with slices of expired grants",
    roles=READERS,
    refusals=READ_REFUSALS,
    query=OneVersion,
    handle=_read_refund_policy,
    answer=RefundPolicyOut,
    money=False,
)
