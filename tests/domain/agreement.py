"""How an event and a target's state are held against the model."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import astuple

from ledger.domain.entities import Grant
from ledger.domain.events import (
    BalanceAdjusted,
    CreditsDeducted,
    CreditsReserved,
    Event,
    ReservationCaptured,
    ReservationExtended,
)
from tests.domain.model import Answer, Model
from tests.domain.model_books import Lot, merged
from tests.domain.targets import State

FAR = datetime.max.replace(tzinfo=UTC)
BUCKETS = ("available", "pending", "reserved", "consumed", "expired", "revoked")


def assert_same(state: State, model: Model) -> None:
    """Assert that a settled state is in every figure what the model has come to."""
    assert state.opened == model.opened
    assert state.balance.holds()
    balance = model.balance()
    assert {name: getattr(state.balance, name) for name in balance} == balance
    assert {grant.id: shape(grant) for grant in state.grants} == {
        lot.id: (*terms(lot), *(model.place(bucket, lot.id) for bucket in BUCKETS))
        for lot in model.lots.values()
    }
    assert {
        one.id: (one.amount, one.captured, one.overdraft, one.expires_at, pairs(one.pinned))
        for one in state.operations
    } == model.open_jobs()


def assert_drawn_in_order(event: Event, before: State, model: Model) -> None:
    """Assert that what was drawn is a prefix of those who could pay, each drained but the last."""
    feature: str | None = None
    match event:
        case CreditsReserved() | CreditsDeducted():
            draws, feature = event.draws, event.feature
        case ReservationExtended():
            draws, feature = event.draws, model.jobs[event.reservation].feature
        case ReservationCaptured():
            draws, feature = event.extra, model.jobs[event.reservation].feature
        case BalanceAdjusted():
            draws = event.draws
        case _:
            return
    payers = [
        grant
        for grant in before.grants
        if grant.available
        and (not grant.scope or feature in grant.scope or isinstance(event, BalanceAdjusted))
    ]
    payers.sort(key=documented_order)
    assert [draw.grant for draw in draws] == [grant.id for grant in payers[: len(draws)]]
    for draw, grant in zip(draws[:-1], payers, strict=False):
        assert draw.amount == grant.available


def documented_order(grant: Grant) -> tuple[object, ...]:
    """Place a grant as docs/decisions/0004-burn-down-order.md says."""
    return (
        grant.priority,
        not grant.scope,
        len(grant.scope),
        grant.expires_at is None,
        grant.expires_at or FAR,
        grant.kind != "promotional",
        grant.cost_basis or 0,
        grant.effective_at,
        grant.sequence,
    )


def terms(grant: Grant | Lot) -> tuple[object, ...]:
    """Return what was agreed of a grant, and what has become of it."""
    return (
        grant.amount,
        grant.kind,
        grant.priority,
        grant.scope,
        grant.effective_at,
        grant.expires_at,
        grant.cost_basis,
        grant.status,
        grant.clawed_back,
        grant.reversed,
        grant.taken,
        grant.owing,
        grant.clawed,
        grant.revision,
    )


def shape(grant: Grant) -> tuple[object, ...]:
    """Return a grant's terms, and where its credits are."""
    return (*terms(grant), *(getattr(grant, bucket) for bucket in BUCKETS))


def pairs(slices: Sequence[Any]) -> list[tuple[str, int]]:
    """Return draws or returns as pairs, neighbours of the same grant as one."""
    return merged([(one.grant, one.amount) for one in slices])


def assert_says(event: Event, expected: Answer) -> None:
    """Assert that an event says what the model expects of it."""
    for field, value in expected.items():
        assert said(event, field) == value, (field, value, event)


def said(event: Any, field: str) -> object:
    """Return what an event says, in the model's shape."""
    if field == "returned":
        return sum(one.amount for one in event.returns) + event.overdraft_returned
    if field == "regranted":
        return [(regrant.instead_of, regrant.amount) for regrant in event.regrants]
    if field == "counted":
        metered = event.metered or (event.price.metered if event.price else None)
        return metered and (metered.quantity, *astuple(metered.usage))
    value = getattr(event, field)
    if field in {"draws", "extra", "returns", "pinned"}:
        return pairs(value)
    if field == "price" and value is not None:
        return value.feature, value.version, value.model, value.amount
    return value
