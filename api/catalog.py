"""The catalog: what features cost. Putting an entry makes a new version; every version can be read.

Reads ask the ledger itself, so that a price just put is the price that is read.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from api.answers import (
    FeatureAnswer,
    FeatureOut,
    RateCardAnswer,
    RateCardOut,
    RefundPolicyAnswer,
    RefundPolicyOut,
)
from api.catalog_receipts import feature_members, rate_card_members
from api.fields import AmountOrZero, Reason, Text, millionths
from api.model_prices import load_if_asked
from api.rates import RatesIn
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
from ledger.domain.catalog_events import FeatureSet, RateCardSet
from ledger.domain.commands import SetFeature, SetRateCard, SetRefundPolicy
from ledger.domain.entities import Overage
from ledger.domain.errors import InvalidCommand
from ledger.domain.values import REGRANT_DAYS_MAX

MODELS_MAX = 500


class FeatureIn(Asked, frozen=True, kw_only=True):
    """A feature: what it is called, what its unit is, and what one unit costs."""

    name: Text
    unit: Text = "unit"
    unit_price: Annotated[
        AmountOrZero | UnsetType | None,
        Meta(description="0 is a price: free. Without one, a quantity cannot be priced."),
    ] = UNSET
    overage: Annotated[
        Overage,
        Meta(description="Of captures and deductions that do not say it: refuse what is too much."),
    ] = "reject"
    reason: Reason | None = None

    def command(self, target: str | None) -> SetFeature:
        """Return the command."""
        assert target is not None
        price = UNSET if self.unit_price is None else self.unit_price
        return SetFeature(
            feature=target,
            name=self.name,
            unit=self.unit,
            unit_price=millionths(price),
            overage=self.overage,
        )


class RateCardIn(Asked, frozen=True, kw_only=True):
    """The rates of every model of a feature. A model that is not named has no price."""

    models: Annotated[dict[Text, RatesIn], Meta(min_length=1, max_length=MODELS_MAX)]
    reason: Reason | None = None

    def command(self, target: str | None) -> SetRateCard:
        """Return the command."""
        assert target is not None
        models = {model: rates.rates(model) for model, rates in self.models.items()}
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


class FeatureList(Struct, kw_only=True):
    """Features by name, each in its newest version; or the versions of one, oldest first."""

    data: list[FeatureOut]
    next_cursor: str | None


class RateCardList(Struct, kw_only=True):
    """Rate cards by feature, each in its newest version; or the versions of one, oldest first."""

    data: list[RateCardOut]
    next_cursor: str | None


def _feature(entry: FeatureSet) -> FeatureOut:
    return FeatureOut(**feature_members(entry))


def _rate_card(entry: RateCardSet) -> RateCardOut:
    return RateCardOut(**rate_card_members(entry))


async def _read_feature(call: Call, query: OneVersion) -> FeatureOut:
    catalog = await call.room.ledger.catalog(call.tenant)
    return _feature(one_version(catalog.features.get(call.path["feature"], ()), query.version))


async def _read_rate_card(call: Call, query: OneVersion) -> RateCardOut:
    catalog = await call.room.ledger.catalog(call.tenant)
    return _rate_card(one_version(catalog.rate_cards.get(call.path["feature"], ()), query.version))


async def _diff_feature(call: Call, query: TwoVersions) -> Differences:
    catalog = await call.room.ledger.catalog(call.tenant)
    return differences(catalog.features.get(call.path["feature"], ()), query, _feature)


async def _diff_rate_card(call: Call, query: TwoVersions) -> Differences:
    catalog = await call.room.ledger.catalog(call.tenant)
    return differences(catalog.rate_cards.get(call.path["feature"], ()), query, _rate_card)


async def _list_features(call: Call, query: EntriesPage) -> FeatureList:
    catalog = await call.room.ledger.catalog(call.tenant)
    found = page_of_newest("features", catalog.features, query)
    return FeatureList(
        data=[_feature(entry) for entry in found.data], next_cursor=found.next_cursor
    )


async def _list_rate_cards(call: Call, query: EntriesPage) -> RateCardList:
    catalog = await call.room.ledger.catalog(call.tenant)
    found = page_of_newest("rate-cards", catalog.rate_cards, query)
    data = [_rate_card(entry) for entry in found.data]
    return RateCardList(data=data, next_cursor=found.next_cursor)


async def _list_feature_versions(call: Call, query: EntriesPage) -> FeatureList:
    catalog = await call.room.ledger.catalog(call.tenant)
    versions = catalog.features.get(call.path["feature"], ())
    found = page_of_versions("feature-versions", versions, query)
    return FeatureList(
        data=[_feature(entry) for entry in found.data], next_cursor=found.next_cursor
    )


async def _list_rate_card_versions(call: Call, query: EntriesPage) -> RateCardList:
    catalog = await call.room.ledger.catalog(call.tenant)
    versions = catalog.rate_cards.get(call.path["feature"], ())
    found = page_of_versions("rate-card-versions", versions, query)
    data = [_rate_card(entry) for entry in found.data]
    return RateCardList(data=data, next_cursor=found.next_cursor)


async def _read_refund_policy(call: Call, query: OneVersion) -> RefundPolicyOut:
    catalog = await call.room.ledger.catalog(call.tenant)
    policies = catalog.refund_policies
    if not policies and query.version is None:
        return RefundPolicyOut(version=0, regrant_days=None)
    policy = one_version(policies, query.version)
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
DIFF_FEATURE = Read(
    method="GET",
    path="/v1/catalog/features/{feature}/diff",
    name="diff_feature",
    tag="catalog",
    summary="Compare two versions of a feature, field by field",
    roles=READERS,
    refusals=READ_REFUSALS,
    query=TwoVersions,
    handle=_diff_feature,
    answer=Differences,
    money=False,
)
PUT_RATE_CARD = Write(
    method="PUT",
    path="/v1/catalog/rate-cards/{feature}",
    name="put_rate_card",
    tag="catalog",
    summary="Put a new version of a feature's token rates",
    details="With `cost_plus` and no `provider`, the provider's price is looked up now and kept: a"
    " later change of it changes nothing until the card is put again. Prices that depend on the"
    " time of day or on how long a call is are refused: state one.",
    roles=ADMIN,
    refusals=(InvalidCommand, *WRITE_REFUSALS),
    target="feature",
    body=RateCardIn,
    load=load_if_asked,
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
DIFF_RATE_CARD = Read(
    method="GET",
    path="/v1/catalog/rate-cards/{feature}/diff",
    name="diff_rate_card",
    tag="catalog",
    summary="Compare two versions of a feature's token rates, field by field",
    roles=READERS,
    refusals=READ_REFUSALS,
    query=TwoVersions,
    handle=_diff_rate_card,
    answer=Differences,
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
