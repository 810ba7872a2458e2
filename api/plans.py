"""Plans: what a tenant sells by the period. Putting one makes a new version of it."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from api.catalog_receipts import plan_members
from api.fields import Amount, AmountOrZero, Moment, Reason, Text, millionths, moment
from api.offer_answers import PlanAnswer, PlanOut
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
from ledger.domain.catalog_events import PlanSet
from ledger.domain.commands import SetPlan
from ledger.domain.entities import GrantKind
from ledger.domain.errors import InvalidCommand
from ledger.domain.offers import Money, Period, Plan, ProviderIds, Rollover
from ledger.domain.values import (
    PRICE_MAX,
    PRIORITY_DEFAULT,
    PRIORITY_MAX,
    PROVIDER_IDS_MAX,
    TEXT_MAX,
    TRIAL_DAYS_MAX,
    URL_MAX,
)

ProviderId = Annotated[
    str, Meta(min_length=1, max_length=TEXT_MAX, extra_json_schema={"pattern": "^[!-~]+$"})
]
Ids = Annotated[list[ProviderId], Meta(max_length=PROVIDER_IDS_MAX)]
Priority = Annotated[int, Meta(ge=0, le=PRIORITY_MAX, description="Lower is spent first.")]
Effective = Annotated[
    Moment | None,
    Meta(description="From when; else at once. Not before that of the version before it."),
]
Retired = Annotated[bool, Meta(description="Sold no longer. What is paid for it still counts.")]


class MoneyIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A price in the currency's smallest unit: 1900 of EUR is 19 euros."""

    amount: Annotated[int, Meta(ge=1, le=PRICE_MAX)]
    currency: Annotated[
        str,
        Meta(min_length=3, max_length=3, extra_json_schema={"pattern": "^[A-Z]{3}$"}),
    ]

    def money(self) -> Money:
        """Return the price."""
        return Money(self.amount, self.currency)


class ProviderIdsIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Under which ids payment providers sell this. An id is of one plan or pack at a time.

    Keep an id here for as long as anybody pays under it: payments under others give no credits.
    """

    stripe: Annotated[Ids, Meta(description="Prices: `price_…`.")] = []
    clerk: Annotated[Ids, Meta(description="Plans: `cplan_…`.")] = []
    asaas: Annotated[
        Ids,
        Meta(description="What `externalReference` says after the account, or a link's id."),
    ] = []

    def ids(self) -> ProviderIds:
        """Return the ids."""
        return ProviderIds(
            stripe=tuple(self.stripe), clerk=tuple(self.clerk), asaas=tuple(self.asaas)
        )


class PlanIn(Asked, frozen=True, kw_only=True):
    """The terms of a plan, all of them: what is left out has its default again."""

    name: Text
    price: MoneyIn | None = None
    credits: Annotated[Amount, Meta(description="Credits of one period.")]
    period: Period = "month"
    rollover: Annotated[
        Rollover, Meta(description="What becomes of unspent credits when the next period begins.")
    ] = "none"
    rollover_max: Annotated[
        Amount | UnsetType | None,
        Meta(description="With `capped`: how much of the unspent goes over at most."),
    ] = UNSET
    kind: GrantKind = "paid"
    priority: Priority = PRIORITY_DEFAULT
    trial_credits: Annotated[AmountOrZero | UnsetType, Meta(description="With `trial_days`.")] = (
        UNSET
    )
    trial_days: Annotated[
        int, Meta(ge=0, le=TRIAL_DAYS_MAX, description="With `trial_credits`.")
    ] = 0
    checkout_url: Annotated[
        Annotated[
            str,
            Meta(
                min_length=1, max_length=URL_MAX, extra_json_schema={"pattern": "^https://[!-~]+$"}
            ),
        ]
        | None,
        Meta(description="Where it is bought: an https address, to be shown."),
    ] = None
    fallback: Annotated[
        bool,
        Meta(description="Accounts without a paid plan are on it: one plan only, without price."),
    ] = False
    providers: ProviderIdsIn = ProviderIdsIn()
    retired: Retired = False
    effective_at: Effective = None
    reason: Reason | None = None

    def command(self, target: str | None) -> SetPlan:
        """Return the command."""
        assert target is not None
        cap = UNSET if self.rollover_max is None else self.rollover_max
        terms = Plan(
            name=self.name,
            price=None if self.price is None else self.price.money(),
            credits=self.credits.value,
            period=self.period,
            rollover=self.rollover,
            rollover_max=millionths(cap),
            kind=self.kind,
            priority=self.priority,
            trial_credits=millionths(self.trial_credits) or 0,
            trial_days=self.trial_days,
            checkout_url=self.checkout_url,
            fallback=self.fallback,
            providers=self.providers.ids(),
        )
        return SetPlan(
            plan=target,
            terms=terms,
            effective_at=moment(self.effective_at),
            retired=self.retired,
        )


class PlanList(Struct, kw_only=True):
    """Plans by key, each in its newest version; or the versions of one, oldest first."""

    data: list[PlanOut]
    next_cursor: str | None


def _plan(entry: PlanSet) -> PlanOut:
    return PlanOut(**plan_members(entry))


async def _read(call: Call, query: OneVersion) -> PlanOut:
    catalog = await call.room.ledger.catalog(call.tenant)
    return _plan(one_version(catalog.plans.get(call.path["plan"], ()), query.version))


async def _list(call: Call, query: EntriesPage) -> PlanList:
    catalog = await call.room.ledger.catalog(call.tenant)
    found = page_of_newest("plans", catalog.plans, query)
    return PlanList(data=[_plan(entry) for entry in found.data], next_cursor=found.next_cursor)


async def _list_versions(call: Call, query: EntriesPage) -> PlanList:
    catalog = await call.room.ledger.catalog(call.tenant)
    found = page_of_versions("plan-versions", catalog.plans.get(call.path["plan"], ()), query)
    return PlanList(data=[_plan(entry) for entry in found.data], next_cursor=found.next_cursor)


async def _diff(call: Call, query: TwoVersions) -> Differences:
    catalog = await call.room.ledger.catalog(call.tenant)
    return differences(catalog.plans.get(call.path["plan"], ()), query, _plan)


PUT_PLAN = Write(
    method="PUT",
    path="/v1/catalog/plans/{plan}",
    name="put_plan",
    tag="catalog",
    summary="Put a new version of a plan: credits every period",
    roles=ADMIN,
    refusals=(InvalidCommand, *WRITE_REFUSALS),
    target="plan",
    body=PlanIn,
    answer=PlanAnswer,
)
READ_PLAN = Read(
    method="GET",
    path="/v1/catalog/plans/{plan}",
    name="read_plan",
    tag="catalog",
    summary="Read a plan, in its newest version or in any",
    details="The newest version may be in force only later: see `effective_at`.",
    roles=READERS,
    refusals=READ_REFUSALS,
    query=OneVersion,
    handle=_read,
    answer=PlanOut,
    money=False,
)
LIST_PLANS = Read(
    method="GET",
    path="/v1/catalog/plans",
    name="list_plans",
    tag="catalog",
    summary="List plans by key, each in its newest version",
    roles=READERS,
    refusals=READ_REFUSALS[1:],
    query=EntriesPage,
    handle=_list,
    answer=PlanList,
    money=False,
)
LIST_PLAN_VERSIONS = Read(
    method="GET",
    path="/v1/catalog/plans/{plan}/versions",
    name="list_plan_versions",
    tag="catalog",
    summary="List all versions of a plan, oldest first",
    roles=READERS,
    refusals=READ_REFUSALS,
    query=EntriesPage,
    handle=_list_versions,
    answer=PlanList,
    money=False,
)
DIFF_PLAN = Read(
    method="GET",
    path="/v1/catalog/plans/{plan}/diff",
    name="diff_plan",
    tag="catalog",
    summary="Compare two versions of a plan, field by field",
    roles=READERS,
    refusals=READ_REFUSALS,
    query=TwoVersions,
    handle=_diff,
    answer=Differences,
    money=False,
)
