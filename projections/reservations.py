"""Reservations: one row a reservation, with what is left of it and which grants it drew on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from ledger.domain.entities import Draw, OperationStatus, Price
from ledger.domain.events import (
    CreditsReserved,
    ReservationCaptured,
    ReservationExpired,
    ReservationExtended,
    ReservationReleased,
)
from ledger.records import Recorded
from projections.arrays import Json
from projections.cursors import Page, decode_cursor, page
from projections.projection import Projection, Table, Target, as_json

CREATE = """
CREATE TABLE {reservations_v2} (
    tenant text COLLATE "C" NOT NULL,
    account text COLLATE "C" NOT NULL,
    reservation text COLLATE "C" NOT NULL,
    created_position bigint NOT NULL,
    created_at timestamptz NOT NULL,
    status text NOT NULL,
    amount bigint NOT NULL CHECK (amount >= 0),
    captured bigint NOT NULL CHECK (captured >= 0),
    remaining bigint NOT NULL CHECK (remaining >= 0),
    expires_at timestamptz NOT NULL,
    draws jsonb NOT NULL,
    pinned jsonb NOT NULL,
    feature text,
    price jsonb,
    actor text,
    job text,
    metadata jsonb NOT NULL,
    updated_at timestamptz NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (tenant, account, reservation),
    CHECK (status = 'open' OR remaining = 0)
) WITH (fillfactor = 65)
"""
CREATE_OPEN = """
CREATE TABLE {open_reservations_v1} (
    tenant text COLLATE "C" NOT NULL,
    account text COLLATE "C" NOT NULL,
    reservation text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, account, reservation)
)
"""
INDEX_LIST = "CREATE INDEX ON {reservations_v2} (tenant, account, created_position)"
INDEX_JOB = """
CREATE INDEX ON {reservations_v2} (tenant, account, job, created_position) WHERE job IS NOT NULL
"""
CHANGE = """
UPDATE {reservations_v2} AS r SET
    status = COALESCE(c.status, r.status), amount = COALESCE(c.amount, r.amount),
    captured = COALESCE(c.captured, r.captured),
    remaining = c.remaining, expires_at = COALESCE(c.expires_at, r.expires_at),
    draws = CASE WHEN c.draws IS NULL THEN r.draws ELSE r.draws || c.draws END,
    pinned = c.pinned,
    updated_at = c.updated_at, position = c.position
FROM unnest(
    %(tenant)b::text[], %(account)b::text[], %(reservation)b::text[], %(status)b::text[],
    %(amount)b::bigint[], %(captured)b::bigint[], %(remaining)b::bigint[],
    %(expires_at)b::timestamptz[], %(draws)b::jsonb[], %(pinned)b::jsonb[],
    %(updated_at)b::timestamptz[], %(position)b::bigint[])
AS c(tenant, account, reservation, status, amount, captured, remaining, expires_at, draws, pinned,
    updated_at, position)
WHERE r.tenant = c.tenant AND r.account = c.account AND r.reservation = c.reservation
"""
CLOSE = """
DELETE FROM {open_reservations_v1} AS o
USING unnest(%(tenant)b::text[], %(account)b::text[], %(reservation)b::text[])
AS c(tenant, account, reservation)
WHERE o.tenant = c.tenant AND o.account = c.account AND o.reservation = c.reservation
"""
COLUMNS = """
    tenant, account, reservation, created_position, created_at, status, amount, captured, remaining,
    expires_at, draws, pinned, feature, price, actor, job, metadata, updated_at, position
"""
SELECT_ONE = (
    "SELECT" + COLUMNS + "FROM projections.reservations_v2"
    " WHERE tenant = %(tenant)s AND account = %(account)s AND reservation = %(reservation)s"
)
SELECT_PAGE = (
    "SELECT" + COLUMNS + "FROM projections.reservations_v2"
    " WHERE tenant = %(tenant)s AND account = %(account)s AND created_position < %(before)s"
    " AND (%(status)s::text IS NULL OR status = %(status)s)"
    " AND (%(job)s::text IS NULL OR job = %(job)s)"
    " ORDER BY created_position DESC LIMIT %(rows)s"
)
SELECT_OPEN = SELECT_PAGE.replace(
    " WHERE", " JOIN projections.open_reservations_v1 USING (tenant, account, reservation) WHERE"
)
POSITION_MAX = 2**63 - 1


class ReservationRow(Struct, frozen=True, kw_only=True):
    """A reservation after the event at `position`. Amounts in micro-credits.

    `draws` are all slices it ever drew, in order; `pinned` are those still set aside. What remains
    beyond the pinned slices is set aside on the overdraft.
    """

    tenant: str
    account: str
    reservation: str
    created_position: int
    created_at: datetime
    status: OperationStatus
    amount: int
    captured: int
    remaining: int
    expires_at: datetime
    draws: tuple[Draw, ...]
    pinned: tuple[Draw, ...]
    feature: str | None
    price: Price | None
    actor: str | None
    job: str | None
    metadata: dict[str, str]
    updated_at: datetime
    position: int


class State(Struct, kw_only=True, gc=False):
    """What changes in the life of a reservation. None: a batch left it alone."""

    status: str | None = None
    amount: int | None = None
    captured: int | None = None
    remaining: int | None = None
    expires_at: datetime | None = None
    draws: tuple[Draw, ...] = ()
    pinned: tuple[Draw, ...] = ()
    updated_at: datetime
    position: int


class Key(Struct, kw_only=True, gc=False):
    """Which reservation is opened, or closed."""

    tenant: str
    account: str
    reservation: str


class NewReservation(Key, kw_only=True, gc=False):
    """A row to insert."""

    status: str | None
    amount: int | None
    captured: int | None
    remaining: int | None
    expires_at: datetime | None
    draws: Json
    pinned: Json
    updated_at: datetime
    position: int
    created_position: int
    created_at: datetime
    feature: str | None
    price: Json | None
    actor: str | None
    job: str | None
    metadata: Json


class Change(Key, kw_only=True, gc=False):
    """What becomes of a row that was there before the batch."""

    status: str | None
    amount: int | None
    captured: int | None
    remaining: int | None
    expires_at: datetime | None
    draws: Json | None
    pinned: Json
    updated_at: datetime
    position: int


ReservationEvent = (
    CreditsReserved
    | ReservationExtended
    | ReservationCaptured
    | ReservationReleased
    | ReservationExpired
)


def fold(batch: Sequence[Recorded]) -> tuple[list[NewReservation], list[Change]]:
    """Return the reservations that a batch makes, and what it changes in older ones, by key."""
    new: dict[tuple[str, str, str], Recorded] = {}
    states: dict[tuple[str, str, str], State] = {}
    for recorded in batch:
        event = recorded.event
        if not isinstance(event, ReservationEvent) or _is_direct(event):
            continue
        assert recorded.account is not None
        key = (recorded.tenant, recorded.account, event.reservation)
        state = states.get(key)
        if state is None:
            state = states[key] = State(updated_at=recorded.recorded_at, position=recorded.position)
        if isinstance(event, CreditsReserved):
            new[key] = recorded
        _change(state, event)
        state.updated_at, state.position = recorded.recorded_at, recorded.position
    keys = sorted(states)
    return (
        [_new(new[key], states[key]) for key in keys if key in new],
        [_changed(key, states[key]) for key in keys if key not in new],
    )


def _is_direct(event: ReservationEvent) -> bool:
    """Tell whether this adds to a direct deduction, which is no reservation and has no deadline."""
    return isinstance(event, ReservationCaptured) and event.expires_at is None


def _change(state: State, event: ReservationEvent) -> None:
    match event:
        case CreditsReserved():
            state.status, state.captured = "open", 0
            state.amount = state.remaining = event.amount
            state.draws = state.pinned = event.draws
            state.expires_at = event.expires_at
        case ReservationExtended():
            state.amount, state.expires_at = event.reserved, event.expires_at
            state.draws += event.draws
            _left(state, event.pinned, event.overdraft_pinned)
        case ReservationCaptured():
            state.status, state.captured = event.status, event.captured
            _left(state, event.pinned, event.overdraft_pinned)
        case ReservationReleased():
            state.status = event.status
            _left(state, (), 0)
        case ReservationExpired():
            state.status = "expired"
            _left(state, (), 0)


def _left(state: State, pinned: tuple[Draw, ...], overdraft: int) -> None:
    state.pinned = pinned
    state.remaining = sum(draw.amount for draw in pinned) + overdraft


def _slices(draws: tuple[Draw, ...]) -> Json:
    return as_json(draws) if draws else "[]"


def _new(recorded: Recorded, state: State) -> NewReservation:
    event = recorded.event
    assert isinstance(event, CreditsReserved)
    assert recorded.account is not None
    return NewReservation(
        tenant=recorded.tenant,
        account=recorded.account,
        reservation=event.reservation,
        status=state.status,
        amount=state.amount,
        captured=state.captured,
        remaining=state.remaining,
        expires_at=state.expires_at,
        draws=_slices(state.draws),
        pinned=_slices(state.pinned),
        updated_at=state.updated_at,
        position=state.position,
        created_position=recorded.position,
        created_at=recorded.recorded_at,
        feature=event.feature,
        price=as_json(event.price) if event.price else None,
        actor=event.actor,
        job=event.job,
        metadata=as_json(event.metadata) if event.metadata else "{}",
    )


def _changed(key: tuple[str, str, str], state: State) -> Change:
    tenant, account, reservation = key
    return Change(
        tenant=tenant,
        account=account,
        reservation=reservation,
        status=state.status,
        amount=state.amount,
        captured=state.captured,
        remaining=state.remaining,
        expires_at=state.expires_at,
        draws=as_json(state.draws) if state.draws else None,
        pinned=_slices(state.pinned),
        updated_at=state.updated_at,
        position=state.position,
    )


def apply(target: Target, batch: Sequence[Recorded]) -> None:
    """Write what a batch of events changes."""
    new, changes = fold(batch)
    target.insert("reservations_v2", new)
    target.change(CHANGE, changes)
    target.insert("open_reservations_v1", [_key(row) for row in new if row.status == "open"])
    # One that had expired is not there: a late capture closes it again.
    target.write(CLOSE, [_key(row) for row in changes if row.status not in {None, "open"}])


def _key(row: NewReservation | Change) -> Key:
    return Key(tenant=row.tenant, account=row.account, reservation=row.reservation)


RESERVATIONS = Projection(
    name="reservations",
    tables=(
        Table(
            name="reservations_v2",
            key=("tenant", "account", "reservation"),
            create=CREATE,
            indexes=(INDEX_LIST, INDEX_JOB),
        ),
        # An index of what is open would have every row that closes written anew in all indexes.
        Table(
            name="open_reservations_v1",
            key=("tenant", "account", "reservation"),
            create=CREATE_OPEN,
        ),
    ),
    apply=apply,
)


async def read_reservation(
    conn: AsyncConnection[Any], tenant: str, account: str, reservation: str
) -> ReservationRow | None:
    """Return one reservation; None if it has not come so far."""
    parameters = {"tenant": tenant, "account": account, "reservation": reservation}
    async with conn.cursor(row_factory=dict_row) as cursor:
        row = await (await cursor.execute(SELECT_ONE, parameters)).fetchone()
    return msgspec.convert(row, ReservationRow) if row else None


async def list_reservations(
    conn: AsyncConnection[Any],
    tenant: str,
    account: str,
    *,
    status: OperationStatus | None = None,
    job: str | None = None,
    cursor: str | None = None,
    limit: int = 100,
) -> Page[ReservationRow]:
    """Return an account's reservations, newest first. Raises InvalidCursor."""
    parameters = {
        "tenant": tenant,
        "account": account,
        "status": status,
        "job": job,
        "before": decode_cursor("reservations", int, cursor) if cursor else POSITION_MAX,
        "rows": limit + 1,
    }
    async with conn.cursor(row_factory=dict_row) as rows:
        query = SELECT_OPEN if status == "open" else SELECT_PAGE
        found = await (await rows.execute(query, parameters, prepare=False)).fetchall()
    return page(
        "reservations",
        msgspec.convert(found, list[ReservationRow]),
        limit,
        lambda row: row.created_position,
    )
