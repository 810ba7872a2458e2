"""Grants: one row a grant, with where its credits are now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from msgspec import Struct

from ledger.domain.burndown import BUCKET_OF
from ledger.domain.entities import Draw, Return, Source
from ledger.domain.events import (
    BalanceAdjusted,
    CreditsDeducted,
    CreditsGranted,
    CreditsRefunded,
    CreditsReserved,
    GrantActivated,
    GrantExpired,
    GrantRevoked,
    PaymentApplied,
    Regrant,
    ReservationCaptured,
    ReservationExpired,
    ReservationExtended,
    ReservationReleased,
)
from ledger.records import Recorded
from projections.arrays import Integer, Json
from projections.projection import Projection, Table, Target, as_json

CREATE = """
CREATE TABLE {grants_v1} (
    tenant text COLLATE "C" NOT NULL,
    account text COLLATE "C" NOT NULL,
    grant_id text COLLATE "C" NOT NULL,
    sequence bigint NOT NULL,
    amount bigint NOT NULL,
    available bigint NOT NULL CHECK (available >= 0),
    pending bigint NOT NULL CHECK (pending >= 0),
    reserved bigint NOT NULL CHECK (reserved >= 0),
    consumed bigint NOT NULL CHECK (consumed >= 0),
    expired bigint NOT NULL CHECK (expired >= 0),
    revoked bigint NOT NULL CHECK (revoked >= 0),
    status text NOT NULL,
    clawed_back boolean NOT NULL,
    kind text NOT NULL,
    priority integer NOT NULL,
    scope jsonb NOT NULL,
    effective_at timestamptz NOT NULL,
    expires_at timestamptz,
    cost_basis bigint,
    source jsonb,
    instead_of text,
    metadata jsonb NOT NULL,
    granted_by text NOT NULL,
    reason text,
    granted_at timestamptz NOT NULL,
    granted_position bigint NOT NULL,
    updated_at timestamptz NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (tenant, account, grant_id),
    UNIQUE (tenant, account, sequence, grant_id),
    CHECK (amount = available + pending + reserved + consumed + expired + revoked)
) WITH (fillfactor = 70)
"""
MOVE = """
UPDATE {grants_v1} AS g SET
    available = g.available + m.available, pending = g.pending + m.pending,
    reserved = g.reserved + m.reserved, consumed = g.consumed + m.consumed,
    expired = g.expired + m.expired, revoked = g.revoked + m.revoked,
    status = COALESCE(m.status, g.status), clawed_back = COALESCE(m.clawed_back, g.clawed_back),
    updated_at = m.updated_at, position = m.position
FROM unnest(
    %(tenant)b::text[], %(account)b::text[], %(grant_id)b::text[], %(available)b::bigint[],
    %(pending)b::bigint[], %(reserved)b::bigint[], %(consumed)b::bigint[], %(expired)b::bigint[],
    %(revoked)b::bigint[], %(status)b::text[], %(clawed_back)b::boolean[],
    %(updated_at)b::timestamptz[], %(position)b::bigint[])
AS m(tenant, account, grant_id, available, pending, reserved, consumed, expired, revoked, status,
    clawed_back, updated_at, position)
WHERE g.tenant = m.tenant AND g.account = m.account AND g.grant_id = m.grant_id
"""
# The credits that a payment adds lie among the revoked until MOVE, right after, says where they go.
RETELL = """
UPDATE {grants_v1} AS g SET
    amount = g.amount + r.added, revoked = g.revoked + r.added, kind = r.kind,
    priority = r.priority, scope = r.scope::jsonb, expires_at = r.expires_at,
    cost_basis = r.cost_basis, source = r.source::jsonb
FROM unnest(
    %(tenant)b::text[], %(account)b::text[], %(grant_id)b::text[], %(added)b::bigint[],
    %(kind)b::text[], %(priority)b::int[], %(scope)b::text[], %(expires_at)b::timestamptz[],
    %(cost_basis)b::bigint[], %(source)b::text[])
AS r(tenant, account, grant_id, added, kind, priority, scope, expires_at, cost_basis, source)
WHERE g.tenant = r.tenant AND g.account = r.account AND g.grant_id = r.grant_id
"""


class NewGrant(Struct, kw_only=True, gc=False):
    """A row to insert. It is still changed by what happens to the grant in the same batch."""

    tenant: str
    account: str
    grant_id: str
    sequence: int
    amount: int
    available: int = 0
    pending: int = 0
    reserved: int = 0
    consumed: int = 0
    expired: int = 0
    revoked: int = 0
    status: str | None = "active"
    clawed_back: bool | None = False
    kind: str
    priority: Integer
    scope: Json = "[]"
    effective_at: datetime
    expires_at: datetime | None
    cost_basis: int | None = None
    source: Json | None = None
    instead_of: str | None = None
    metadata: Json = "{}"
    granted_by: str
    reason: str | None
    granted_at: datetime
    granted_position: int
    updated_at: datetime
    position: int


class Move(Struct, kw_only=True, gc=False):
    """What a batch adds to the buckets of a grant that was there before it."""

    tenant: str
    account: str
    grant_id: str
    available: int = 0
    pending: int = 0
    reserved: int = 0
    consumed: int = 0
    expired: int = 0
    revoked: int = 0
    status: str | None = None
    clawed_back: bool | None = None
    updated_at: datetime
    position: int


class Retold(Struct, kw_only=True, gc=False):
    """The terms of a payment's grant as they were told last, and what a batch adds to it."""

    tenant: str
    account: str
    grant_id: str
    added: int
    kind: str
    priority: Integer
    scope: Json
    expires_at: datetime | None
    cost_basis: int | None
    source: Json | None


class Moves:
    """What a batch of events does to grants."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.new: dict[tuple[str, str, str], NewGrant] = {}
        self.moves: dict[tuple[str, str, str], Move] = {}
        self.retold: dict[tuple[str, str, str], Retold] = {}

    def fold(self, recorded: Recorded) -> None:
        """Add one event of an account."""
        event = recorded.event
        match event:
            case CreditsReserved() | ReservationExtended():
                self._draw(recorded, event.draws, "available", "reserved")
            case ReservationCaptured():
                self._draw(recorded, event.draws, "reserved", "consumed")
                self._draw(recorded, event.extra, "available", "consumed")
                self._give_back(recorded, event.returns, "reserved")
            case ReservationReleased() | ReservationExpired():
                self._give_back(recorded, event.returns, "reserved")
            case CreditsDeducted():
                self._draw(recorded, event.draws, "available", "consumed")
            case CreditsGranted():
                self._granted(recorded, event)
            case GrantActivated():
                row = self._row(recorded, event.grant)
                row.pending -= event.amount
                row.available += event.amount - event.debt_repaid
                row.consumed += event.debt_repaid
                row.status = "active"
            case GrantExpired():
                bucket = "pending" if event.frozen else "available"
                row = self._move(recorded, event.grant, event.amount, bucket, "expired")
                row.status = "expired"
            case GrantRevoked():
                bucket = "pending" if event.pending else "available"
                row = self._move(recorded, event.grant, event.amount, bucket, "revoked")
                row.status, row.clawed_back = "revoked", event.clawback
            case PaymentApplied():
                self._applied(recorded, event)
            case CreditsRefunded():
                self._give_back(recorded, event.returns, "consumed")
                for regrant in event.regrants:
                    self._regranted(recorded, regrant, Source("refund", event.refund), {})
            case BalanceAdjusted():
                self._draw(recorded, event.draws, "available", "revoked")
                if event.grant is not None:
                    source = Source("adjustment", event.adjustment)
                    self._regranted(recorded, event.grant, source, event.metadata)
            case _:
                pass  # No other event moves a grant.

    def _row(self, recorded: Recorded, grant: str) -> NewGrant | Move:
        assert recorded.account is not None
        key = (recorded.tenant, recorded.account, grant)
        row = self.new.get(key) or self.moves.get(key)
        if row is None:
            row = self.moves[key] = Move(
                tenant=recorded.tenant,
                account=recorded.account,
                grant_id=grant,
                updated_at=recorded.recorded_at,
                position=recorded.position,
            )
        row.updated_at, row.position = recorded.recorded_at, recorded.position
        return row

    def _move(
        self, recorded: Recorded, grant: str, amount: int, source: str, to: str
    ) -> NewGrant | Move:
        row = self._row(recorded, grant)
        setattr(row, source, getattr(row, source) - amount)
        setattr(row, to, getattr(row, to) + amount)
        return row

    def _draw(self, recorded: Recorded, draws: Iterable[Draw], source: str, to: str) -> None:
        for draw in draws:
            self._move(recorded, draw.grant, draw.amount, source, to)

    def _give_back(self, recorded: Recorded, returns: Iterable[Return], source: str) -> None:
        for back in returns:
            self._move(recorded, back.grant, back.amount, source, back.to)

    def _granted(self, recorded: Recorded, event: CreditsGranted) -> None:
        row = _new(recorded, event)
        row.source = as_json(event.source) if event.source else None
        row.metadata = as_json(event.metadata) if event.metadata else "{}"
        if event.pending:
            row.status, row.available, row.pending = "pending", 0, event.amount
        self.new[row.tenant, row.account, row.grant_id] = row

    def _applied(self, recorded: Recorded, event: PaymentApplied) -> None:
        assert recorded.account is not None
        key = (recorded.tenant, recorded.account, event.grant)
        if event.added == event.amount:
            self.new[key] = _new(recorded, event)
        row = self._row(recorded, event.grant)
        self._retell(row, event)
        setattr(row, event.before, getattr(row, event.before) - event.unspent_before)
        lies = BUCKET_OF[event.status]
        setattr(row, lies, getattr(row, lies) + event.unspent)
        row.consumed += event.debt_repaid
        row.revoked += event.taken - event.restored
        row.status, row.clawed_back = event.status, event.reversed == event.amount
        if event.regrant is not None:
            self._regranted(recorded, event.regrant, Source("payment", event.grant), {})

    def _retell(self, row: NewGrant | Move, event: PaymentApplied) -> None:
        terms = Retold(
            tenant=row.tenant,
            account=row.account,
            grant_id=row.grant_id,
            added=event.added,
            kind=event.kind,
            priority=event.priority,
            scope=as_json(event.scope) if event.scope else "[]",
            expires_at=event.expires_at,
            cost_basis=event.cost_basis,
            source=as_json(event.source) if event.source else None,
        )
        if isinstance(row, NewGrant):
            for name in ("kind", "priority", "scope", "expires_at", "cost_basis", "source"):
                setattr(row, name, getattr(terms, name))
            row.amount = event.amount
            return
        key = (row.tenant, row.account, row.grant_id)
        before = self.retold.get(key)
        if before is not None:
            terms.added += before.added
        self.retold[key] = terms
        row.revoked -= event.added

    def _regranted(
        self, recorded: Recorded, regrant: Regrant, source: Source, metadata: dict[str, str]
    ) -> None:
        row = _new(recorded, regrant)
        row.source, row.instead_of = as_json(source), regrant.instead_of
        row.metadata = as_json(metadata) if metadata else "{}"
        self.new[row.tenant, row.account, row.grant_id] = row


def _new(recorded: Recorded, granted: CreditsGranted | Regrant | PaymentApplied) -> NewGrant:
    assert recorded.account is not None
    applied = isinstance(granted, PaymentApplied)
    return NewGrant(
        tenant=recorded.tenant,
        account=recorded.account,
        grant_id=granted.grant,
        sequence=recorded.version,
        amount=granted.amount,
        available=0 if applied else granted.amount - granted.debt_repaid,
        consumed=0 if applied else granted.debt_repaid,
        kind=granted.kind,
        priority=granted.priority,
        effective_at=granted.effective_at,
        expires_at=granted.expires_at,
        scope=as_json(granted.scope) if granted.scope else "[]",
        cost_basis=granted.cost_basis,
        granted_by=recorded.by,
        reason=recorded.reason,
        granted_at=recorded.recorded_at,
        granted_position=recorded.position,
        updated_at=recorded.recorded_at,
        position=recorded.position,
    )


def fold(batch: Sequence[Recorded]) -> tuple[list[NewGrant], list[Retold], list[Move]]:
    """Return the grants that a batch makes, and what it says of those there were, by key."""
    moves = Moves()
    for recorded in batch:
        moves.fold(recorded)
    return (
        [row for _, row in sorted(moves.new.items())],
        [row for _, row in sorted(moves.retold.items())],
        [row for _, row in sorted(moves.moves.items())],
    )


def apply(target: Target, batch: Sequence[Recorded]) -> None:
    """Write what a batch of events changes."""
    new, retold, moves = fold(batch)
    target.insert("grants_v1", new)
    target.change(RETELL, retold)
    target.change(MOVE, moves)


GRANTS = Projection(
    name="grants",
    tables=(Table(name="grants_v1", key=("tenant", "account", "grant_id"), create=CREATE),),
    apply=apply,
)
