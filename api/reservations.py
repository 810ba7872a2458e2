"""Reservations: set credits aside, spend them as the work goes on, give the rest back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from msgspec import UNSET, Meta, UnsetType, structs

from api.answers import CaptureAnswer, ReservationAnswer, ReservationChange
from api.charges import Charged
from api.fields import Amount, Metadata, Name, Reason, Text, Ttl, millionths
from api.looking import find, is_due, looking
from api.paging import Listed, PageQuery, Position, bad_cursor, list_of, listed
from api.problems import ProjectionBehind
from api.read_answers import ReservationDetail, ReservationEntry
from api.receipts import price_out, slices
from api.routes import READERS, SPENDERS, WRITE_REFUSALS, Asked, Call, Read, Write
from ledger.domain.commands import Capture, Extend, Release, Reserve
from ledger.domain.entities import OperationStatus, Overage
from ledger.domain.errors import (
    AccountNotFound,
    CaptureExceedsReservation,
    InsufficientCredits,
    InvalidCommand,
    LimitReached,
    OperationExists,
    Overloaded,
    PriceNotFound,
    ReservationClosed,
    ReservationExpiredAlready,
    ReservationNotFound,
    StoreUnavailable,
)
from ledger.domain.values import TTL_SECONDS_DEFAULT, format_decimal
from projections.balances import BALANCES
from projections.cursors import InvalidCursor
from projections.reservations import (
    RESERVATIONS,
    ReservationRow,
    list_reservations,
    read_reservation,
)

TABLES = (RESERVATIONS, BALANCES)
READ_REFUSALS = (AccountNotFound, ProjectionBehind, Overloaded, StoreUnavailable)
OpenOnly = (ReservationNotFound, ReservationClosed, ReservationExpiredAlready)
NewId = Annotated[Name | None, Meta(description="Your own id; else one is made.")]
AtLeast = Annotated[
    Amount | UnsetType, Meta(description="If there is less than asked for, this much will do.")
]


class ReservationIn(Charged, frozen=True, kw_only=True):
    """What to set aside: an `amount`, or what a `quantity` or a `usage` of a feature would cost."""

    id: NewId = None
    at_least: AtLeast = UNSET
    ttl_seconds: Ttl = TTL_SECONDS_DEFAULT
    actor: Text | None = None
    job: Text | None = None
    metadata: Metadata = {}

    def command(self, target: str | None) -> Reserve:
        """Return the command."""
        del target
        return Reserve(
            id=self.id,
            charge=self.charge,
            at_least=millionths(self.at_least),
            ttl_seconds=self.ttl_seconds,
            actor=self.actor,
            job=self.job,
            metadata=self.metadata,
        )


class CaptureIn(Charged, frozen=True, kw_only=True):
    """What to spend. The feature and the model are the reservation's, unless others are named."""

    final: Annotated[bool, Meta(description="Close the reservation and give the rest back.")] = True
    overage: Annotated[
        Overage | None,
        Meta(
            description="If it is more than is still set aside, or the reservation has expired:"
            " refuse, draw on what is available, or make debt. Null: as the feature says."
        ),
    ] = None

    def command(self, target: str | None) -> Capture:
        """Return the command."""
        assert target is not None
        return Capture(
            reservation=target, charge=self.charge, final=self.final, overage=self.overage
        )


class ReleaseIn(Asked, frozen=True, kw_only=True):
    """Nothing needs to be said to release a reservation."""

    reason: Reason | None = None

    def command(self, target: str | None) -> Release:
        """Return the command."""
        assert target is not None
        return Release(reservation=target)


class ExtendIn(Asked, frozen=True, kw_only=True):
    """How much more to set aside, or how many seconds from now it shall expire, or both."""

    amount: Amount | UnsetType = UNSET
    ttl_seconds: Ttl | UnsetType = UNSET

    def command(self, target: str | None) -> Extend:
        """Return the command."""
        assert target is not None
        ttl_seconds = None if isinstance(self.ttl_seconds, UnsetType) else self.ttl_seconds
        return Extend(reservation=target, amount=millionths(self.amount), ttl_seconds=ttl_seconds)


class ReservationsQuery(PageQuery, frozen=True, kw_only=True):
    """Which reservations to list."""

    status: OperationStatus | None = None
    job: Text | None = None


def _at(row: ReservationRow, now: datetime) -> ReservationRow:
    """Return a row as it is at `now`: once its time is over, a reservation holds nothing."""
    if row.status != "open" or row.expires_at > now:
        return row
    return structs.replace(row, status="expired", remaining=0, pinned=())


def _entry(row: ReservationRow) -> ReservationEntry:
    pinned = sum(draw.amount for draw in row.pinned)
    return ReservationEntry(
        id=row.reservation,
        account=row.account,
        status=row.status,
        amount=format_decimal(row.amount),
        captured=format_decimal(row.captured),
        remaining=format_decimal(row.remaining),
        expires_at=row.expires_at.astimezone(UTC),
        draws=slices(row.pinned),
        overdraft=format_decimal(row.remaining - pinned),
        feature=row.feature,
        price=price_out(row.price),
        actor=row.actor,
        job=row.job,
        metadata=row.metadata,
        created_at=row.created_at.astimezone(UTC),
        updated_at=row.updated_at.astimezone(UTC),
    )


async def _list(call: Call, query: ReservationsQuery) -> Listed:
    async with looking(call, TABLES, query.position) as look:
        due = await is_due(call, look)
        try:
            found = await list_reservations(
                look.connection,
                call.tenant,
                call.path["account"],
                # The rows of an account that is due have an old status: they are chosen below.
                status=None if due else query.status,
                job=query.job,
                cursor=query.cursor,
                limit=query.limit,
            )
        except InvalidCursor as error:
            raise bad_cursor(error) from None
    rows = [_at(row, look.as_of) for row in found.data]
    entries = [_entry(row) for row in rows if query.status in {None, row.status}]
    return listed(entries, found.next_cursor, look.position, look.as_of)


async def _read(call: Call, query: Position) -> ReservationDetail:
    account, name = call.path["account"], call.path["reservation"]
    row, look = await find(
        call,
        TABLES,
        query.position,
        lambda look: read_reservation(look.connection, call.tenant, account, name),
    )
    if row is None:
        raise ReservationNotFound(reservation=name)
    entry = _entry(_at(row, look.as_of))
    members = {field: getattr(entry, field) for field in entry.__struct_fields__}
    return ReservationDetail(**members, position=str(look.position), as_of=look.as_of)


CREATE_RESERVATION = Write(
    method="POST",
    path="/v1/accounts/{account}/reservations",
    name="create_reservation",
    tag="reservations",
    summary="Set credits aside for work in progress",
    details="Nothing else can spend them until they are captured, released, or expire.",
    roles=SPENDERS,
    refusals=(
        AccountNotFound,
        OperationExists,
        LimitReached,
        InvalidCommand,
        PriceNotFound,
        InsufficientCredits,
        *WRITE_REFUSALS,
    ),
    op="reserve",
    body=ReservationIn,
    answer=ReservationAnswer,
    statuses=(201,),
)
CAPTURE = Write(
    method="POST",
    path="/v1/accounts/{account}/reservations/{reservation}/capture",
    name="capture_reservation",
    tag="reservations",
    summary="Spend some or all of a reservation",
    details="May be repeated with `final: false`, as a stream goes on. A reservation that was made"
    " at a price is captured at that version of it.",
    roles=SPENDERS,
    refusals=(
        AccountNotFound,
        *OpenOnly,
        CaptureExceedsReservation,
        LimitReached,
        InvalidCommand,
        PriceNotFound,
        InsufficientCredits,
        *WRITE_REFUSALS,
    ),
    op="capture",
    target="reservation",
    body=CaptureIn,
    answer=CaptureAnswer,
)
RELEASE = Write(
    method="POST",
    path="/v1/accounts/{account}/reservations/{reservation}/release",
    name="release_reservation",
    tag="reservations",
    summary="Give back what a reservation still holds, and close it",
    roles=SPENDERS,
    refusals=(AccountNotFound, *OpenOnly, *WRITE_REFUSALS),
    op="release",
    target="reservation",
    body=ReleaseIn,
    answer=ReservationChange,
)
EXTEND = Write(
    method="POST",
    path="/v1/accounts/{account}/reservations/{reservation}/extend",
    name="extend_reservation",
    tag="reservations",
    summary="Set more aside, or for longer",
    roles=SPENDERS,
    refusals=(
        AccountNotFound,
        *OpenOnly,
        LimitReached,
        InvalidCommand,
        InsufficientCredits,
        *WRITE_REFUSALS,
    ),
    op="extend",
    target="reservation",
    body=ExtendIn,
    answer=ReservationChange,
)
LIST_RESERVATIONS = Read(
    method="GET",
    path="/v1/accounts/{account}/reservations",
    name="list_reservations",
    tag="reservations",
    summary="List an account's reservations, newest first",
    details="A page may hold fewer than asked for; the list ends where `next_cursor` is null.",
    roles=READERS,
    refusals=READ_REFUSALS,
    query=ReservationsQuery,
    handle=_list,
    answer=list_of(ReservationEntry),
)
READ_RESERVATION = Read(
    method="GET",
    path="/v1/accounts/{account}/reservations/{reservation}",
    name="read_reservation",
    tag="reservations",
    summary="Read a reservation",
    roles=READERS,
    refusals=(ReservationNotFound, *READ_REFUSALS),
    query=Position,
    handle=_read,
    answer=ReservationDetail,
)
