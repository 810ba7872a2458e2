"""Usage: one row a deduction, and their sums by the hour (UTC), kept in the same transaction.

A deduction belongs to the hour in which it was recorded; its refunds belong to that hour as well.
Queries are in `projections.usage_queries`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from operator import attrgetter

from msgspec import Struct

from ledger.domain.costs import provider_cost
from ledger.domain.entities import Metered, Price
from ledger.domain.events import CreditsDeducted, CreditsRefunded, ReservationCaptured
from ledger.records import Recorded
from projections.arrays import Integer, Json
from projections.projection import Projection, Table, Target, as_json

CREATE_USAGE = """
CREATE TABLE {usage_v1} (
    tenant text COLLATE "C" NOT NULL,
    account text COLLATE "C" NOT NULL,
    deduction text COLLATE "C" NOT NULL,
    reservation text COLLATE "C",
    amount bigint NOT NULL CHECK (amount >= 0),
    debt bigint NOT NULL CHECK (debt BETWEEN 0 AND amount),
    refunded bigint NOT NULL CHECK (refunded BETWEEN 0 AND amount),
    feature text COLLATE "C",
    model text COLLATE "C",
    quantity bigint,
    input_tokens bigint,
    output_tokens bigint,
    cached_input_tokens bigint,
    price_version integer,
    price jsonb,
    provider_cost bigint,
    actor text COLLATE "C",
    job text COLLATE "C",
    metadata jsonb NOT NULL,
    occurred_at timestamptz,
    recorded_at timestamptz NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (tenant, account, deduction)
) WITH (fillfactor = 95)
"""
INDEX_TIME = "CREATE INDEX ON {usage_v1} (tenant, account, recorded_at, position)"
INDEX_JOB = """
CREATE INDEX ON {usage_v1} (tenant, account, job, recorded_at, position) WHERE job IS NOT NULL
"""
CREATE_HOURS = """
CREATE TABLE {usage_hours_v1} (
    tenant text COLLATE "C" NOT NULL,
    account text COLLATE "C" NOT NULL,
    hour timestamptz NOT NULL,
    feature text COLLATE "C",
    model text COLLATE "C",
    actor text COLLATE "C",
    amount numeric NOT NULL CHECK (amount >= 0),
    refunded numeric NOT NULL CHECK (refunded BETWEEN 0 AND amount),
    quantity numeric NOT NULL,
    input_tokens numeric NOT NULL,
    output_tokens numeric NOT NULL,
    cached_input_tokens numeric NOT NULL,
    count bigint NOT NULL,
    UNIQUE NULLS NOT DISTINCT (tenant, account, hour, feature, model, actor)
) WITH (fillfactor = 70)
"""
ADD_HOURS = """
INSERT INTO {usage_hours_v1} AS h (
    tenant, account, hour, feature, model, actor, amount, refunded, quantity, input_tokens,
    output_tokens, cached_input_tokens, count)
SELECT r.tenant, r.account, r.hour, r.feature, r.model, r.actor, r.amount, 0, r.quantity,
    r.input_tokens, r.output_tokens, r.cached_input_tokens, r.count
FROM unnest(
    %(tenant)b::text[], %(account)b::text[], %(hour)b::timestamptz[], %(feature)b::text[],
    %(model)b::text[], %(actor)b::text[], %(amount)b::numeric[], %(quantity)b::numeric[],
    %(input_tokens)b::numeric[], %(output_tokens)b::numeric[], %(cached_input_tokens)b::numeric[],
    %(count)b::bigint[])
AS r(tenant, account, hour, feature, model, actor, amount, quantity, input_tokens, output_tokens,
    cached_input_tokens, count)
ON CONFLICT (tenant, account, hour, feature, model, actor) DO UPDATE SET
    amount = h.amount + excluded.amount, quantity = h.quantity + excluded.quantity,
    input_tokens = h.input_tokens + excluded.input_tokens,
    output_tokens = h.output_tokens + excluded.output_tokens,
    cached_input_tokens = h.cached_input_tokens + excluded.cached_input_tokens,
    count = h.count + excluded.count
"""
REFUND = """
UPDATE {usage_v1} AS u SET refunded = u.refunded + r.amount
FROM unnest(
    %(tenant)b::text[], %(account)b::text[], %(deduction)b::text[], %(amount)b::bigint[])
AS r(tenant, account, deduction, amount)
WHERE u.tenant = r.tenant AND u.account = r.account AND u.deduction = r.deduction
"""
REFUND_HOURS = """
UPDATE {usage_hours_v1} AS h SET refunded = h.refunded + s.refunded
FROM (
    SELECT u.tenant, u.account, date_trunc('hour', u.recorded_at, 'UTC') AS hour, u.feature,
        u.model, u.actor, sum(r.amount) AS refunded
    FROM unnest(
        %(tenant)b::text[], %(account)b::text[], %(deduction)b::text[], %(amount)b::bigint[])
    AS r(tenant, account, deduction, amount)
    JOIN {usage_v1} AS u USING (tenant, account, deduction)
    GROUP BY u.tenant, u.account, hour, u.feature, u.model, u.actor
) AS s
WHERE h.tenant = s.tenant AND h.account = s.account AND h.hour = s.hour
    AND h.feature IS NOT DISTINCT FROM s.feature AND h.model IS NOT DISTINCT FROM s.model
    AND h.actor IS NOT DISTINCT FROM s.actor
"""


class NewUsage(Struct, kw_only=True, gc=False):
    """A row to insert."""

    tenant: str
    account: str
    deduction: str
    reservation: str | None
    amount: int
    debt: int
    refunded: int = 0
    feature: str | None
    model: str | None
    quantity: int | None
    input_tokens: int | None
    output_tokens: int | None
    cached_input_tokens: int | None
    price_version: Integer | None
    price: Json | None
    provider_cost: int | None
    actor: str | None
    job: str | None
    metadata: Json
    occurred_at: datetime | None
    recorded_at: datetime
    position: int


class HourSum(Struct, kw_only=True, gc=False):
    """What a batch adds to an hour of an account, for one feature, model and actor."""

    tenant: str
    account: str
    hour: datetime
    feature: str | None
    model: str | None
    actor: str | None
    amount: int = 0
    quantity: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    count: int = 0


class Refunded(Struct, kw_only=True, gc=False):
    """What a batch gives back of one deduction."""

    tenant: str
    account: str
    deduction: str
    amount: int


def fold(batch: Sequence[Recorded]) -> tuple[list[NewUsage], list[Refunded]]:
    """Return the rows that a batch adds, by position, and what it refunds, by key."""
    new: list[NewUsage] = []
    refunds: dict[tuple[str, str, str], int] = {}
    for recorded in batch:
        match recorded.event:
            case ReservationCaptured() as event:
                new.append(_captured(recorded, event))
            case CreditsDeducted() as event:
                new.append(_deducted(recorded, event))
            case CreditsRefunded() as event:
                assert recorded.account is not None
                key = (recorded.tenant, recorded.account, event.deduction)
                refunds[key] = refunds.get(key, 0) + event.amount
            case _:
                pass  # Nothing else is spending.
    return new, [
        Refunded(tenant=tenant, account=account, deduction=deduction, amount=amount)
        for (tenant, account, deduction), amount in sorted(refunds.items())
    ]


def roll_up(rows: Iterable[NewUsage]) -> list[HourSum]:
    """Return the sums of `rows` by hour, account, feature, model and actor, by account."""
    sums: dict[tuple[str, str, datetime, str | None, str | None, str | None], HourSum] = {}
    for row in rows:
        hour = row.recorded_at.replace(minute=0, second=0, microsecond=0)
        key = (row.tenant, row.account, hour, row.feature, row.model, row.actor)
        one = sums.get(key)
        if one is None:
            one = sums[key] = HourSum(
                tenant=row.tenant,
                account=row.account,
                hour=hour,
                feature=row.feature,
                model=row.model,
                actor=row.actor,
            )
        one.amount += row.amount
        one.quantity += row.quantity or 0
        one.input_tokens += row.input_tokens or 0
        one.output_tokens += row.output_tokens or 0
        one.cached_input_tokens += row.cached_input_tokens or 0
        one.count += 1
    return sorted(sums.values(), key=attrgetter("tenant", "account", "hour"))


def _captured(recorded: Recorded, event: ReservationCaptured) -> NewUsage:
    row = _row(recorded, event, event.deduction, event.metered)
    row.debt = event.overdraft + event.debt
    # What is added to a direct deduction is told as a capture as well, but has no deadline.
    row.reservation = event.reservation if event.expires_at is not None else None
    return row


def _deducted(recorded: Recorded, event: CreditsDeducted) -> NewUsage:
    row = _row(recorded, event, event.deduction, None)
    row.debt, row.metadata = event.debt, as_json(event.metadata) if event.metadata else "{}"
    return row


def _row(
    recorded: Recorded,
    event: ReservationCaptured | CreditsDeducted,
    deduction: str,
    increment: Metered | None,
) -> NewUsage:
    assert recorded.account is not None
    price = event.price
    metered = increment or (price.metered if price else Metered())
    counts, meters = _counted(price)
    return NewUsage(
        tenant=recorded.tenant,
        account=recorded.account,
        deduction=deduction,
        reservation=None,
        amount=event.amount,
        debt=0,
        feature=event.feature,
        model=price.model if price else None,
        quantity=metered.quantity if counts else None,
        input_tokens=metered.usage.input_tokens if meters else None,
        output_tokens=metered.usage.output_tokens if meters else None,
        cached_input_tokens=metered.usage.cached_input_tokens if meters else None,
        price_version=price.version if price else None,
        price=as_json(price) if price else None,
        provider_cost=_cost_of(price, metered),
        actor=event.actor,
        job=event.job,
        metadata="{}",
        occurred_at=recorded.occurred_at,
        recorded_at=recorded.recorded_at,
        position=recorded.position,
    )


def _cost_of(price: Price | None, metered: Metered) -> int | None:
    """Return what was metered now costs at the provider, in micro-USD, where that is known."""
    if price is None or price.rates is None or price.rates.provider is None:
        return None
    return provider_cost(price.rates.provider, metered.usage)


def _counted(price: Price | None) -> tuple[bool, bool]:
    """Tell whether a price counts a quantity, and whether it meters tokens."""
    if price is None:
        return False, False
    return price.quantity is not None, price.usage is not None


def apply(target: Target, batch: Sequence[Recorded]) -> None:
    """Write what a batch of events changes: new rows first, for a refund may be of one of them."""
    new, refunds = fold(batch)
    target.insert("usage_v1", new)
    target.change(ADD_HOURS, roll_up(new))
    target.change(REFUND, refunds)
    target.write(REFUND_HOURS, refunds)


USAGE = Projection(
    name="usage",
    tables=(
        Table(
            name="usage_v1",
            key=("tenant", "account", "deduction"),
            create=CREATE_USAGE,
            indexes=(INDEX_TIME, INDEX_JOB),
        ),
        Table(
            name="usage_hours_v1",
            key=("tenant", "account", "hour", "feature", "model", "actor"),
            create=CREATE_HOURS,
        ),
    ),
    apply=apply,
)
