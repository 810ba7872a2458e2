"""One batch: what is decided together, written together, and answered together."""

from __future__ import annotations

import logging
from copy import copy
from datetime import datetime
from typing import cast

from msgspec import Struct, structs

from ledger.append import Append, Appended, Rows
from ledger.cache import Cache, Entry
from ledger.codec import NAME_OF, encode
from ledger.domain.catalog import Catalog
from ledger.domain.commands import AccountCommand, Settle, TenantCommand
from ledger.domain.decide import NO_PRICES, asks_catalog, decide, is_by_time, recalled_by
from ledger.domain.entities import Balance
from ledger.domain.errors import IdempotencyMismatch, InternalError, LedgerError
from ledger.domain.events import Event, subject_of
from ledger.domain.tenant import decide_tenant
from ledger.pending import Answer, Pending
from ledger.records import Order, Outcome, Recorded, stream_id
from ledger.store import Receipt, Session, StoredSnapshot

log = logging.getLogger(__name__)


class Spoiled(Exception):
    """A bug struck while a command's events were folded: this batch cannot be written as it is."""

    def __init__(self, pending: Pending) -> None:
        """Name the command."""
        super().__init__()
        self.pending = pending


class Own(Struct, gc=False):
    """The event that a command has caused, in the batch's row `row`: what its receipt will say."""

    row: int
    version: int
    name: str
    recorded_at: datetime
    event: Event
    balance: Balance | None


class Decided(Struct, gc=False):
    """A command that was decided but not answered: its own event, or a refusal, or nothing."""

    pending: Pending
    entry: Entry
    own: Own | None = None
    refusal: LedgerError | None = None


class Snap(Struct):
    """A snapshot to keep once the batch is written, and the row it was taken after."""

    entry: Entry
    row: int
    stored: StoredSnapshot


class Batch:
    """What one batch has decided so far."""

    def __init__(self, cache: Cache, number: int, now: datetime) -> None:
        """Start batch `number`, at the time `now`."""
        self.cache = cache
        self.number = number
        self.now = now
        self.rows = Rows()
        self.pendings: list[Pending] = []
        """All it was given."""
        self.answers: list[tuple[Pending, Answer]] = []
        self.decided: list[Decided] = []
        self.again: list[Pending] = []
        """What has to wait for the next batch, because its key is asked for in this one already."""
        self.snaps: list[Snap] = []
        self.entries: set[Entry] = set()
        """All streams it has to do with."""
        self._expected: dict[Entry, int] = {}
        """The streams that something was decided on, and which version has to be free there."""
        self._places: list[Entry] = []
        """Each row's stream."""
        self._guards: dict[Entry, None] = {}
        self._keys: set[tuple[Entry, str]] = set()

    def at_hand(self, pendings: list[Pending]) -> bool:
        """Tell whether these can be decided without the store, on streams that are ours alone.

        Their streams count as used.
        """
        for pending in pendings:
            order = pending.order
            if pending.attempts or pending.fault or order is None or pending.is_catalog:
                return False
            entry = self.cache.use(pending.stream)
            if entry is None or entry.unreadable or entry.shared_until >= self.number:
                return False
            command = cast("AccountCommand", order.command)
            recalled = recalled_by(command)
            if recalled is not None and entry.account.operation(recalled) is None:
                return False
            if asks_catalog(command):
                catalog = self.cache.use(stream_id(order.tenant, None))
                if catalog is None or catalog.unreadable or catalog.shared_until >= self.number:
                    return False
        return True

    def take(self, session: Session | None, pendings: list[Pending]) -> None:
        """Decide these on what is decided so far. Without a session, they must be at hand."""
        if session is not None:
            pendings = self._recognise(session, pendings)
            self._load(session, pendings)
            readings = [one for one in pendings if one.read is not None]
            self.answers += [(one, self._read(one)) for one in readings]
        for pending in pendings:
            if pending.read is None:
                self._decide(pending)

    def _recognise(self, session: Session, pendings: list[Pending]) -> list[Pending]:
        """Answer those that need no decision, and return the others.

        Keys are looked up once something had to be decided again: a used key stands in the way of
        its whole stream, and a stream whose every batch holds one would never be written.
        """
        self.answers += [(one, one.fault) for one in pendings if one.fault is not None]
        pendings = [pending for pending in pendings if pending.fault is None]
        if not any(pending.attempts for pending in pendings):
            return pendings
        receipts = session.receipts({one.key for one in pendings if one.key is not None})
        others = []
        for pending in pendings:
            receipt = receipts.get(pending.key) if pending.key else None
            if receipt is None:
                others.append(pending)
            else:
                self.answers.append((pending, _replay(pending, receipt)))
        return others

    def _load(self, session: Session, pendings: list[Pending]) -> None:
        """Have at hand all that deciding these will ask."""
        wanted = {pending.stream: pending.is_catalog for pending in pendings}
        for pending in pendings:
            order = pending.order
            if (
                order is not None
                and not pending.is_catalog
                and asks_catalog(cast("AccountCommand", order.command))
            ):
                wanted[stream_id(order.tenant, None)] = True
        reads = (pending.stream for pending in pendings if pending.read is not None)
        self.cache.load(session, wanted, self.number, wanted if session.locked else set(reads))
        self.entries.update(self.cache[stream] for stream in wanted)
        unknown = set()
        for pending in pendings:
            if pending.order is None or pending.is_catalog:
                continue
            recalled = recalled_by(cast("AccountCommand", pending.order.command))
            entry = self.cache[pending.stream]
            if recalled is None or entry.unreadable:
                continue
            if entry.account.operation(recalled) is None:
                unknown.add((pending.stream, recalled))
        if unknown:
            self.cache.recall(session, unknown)

    def _time(self, entry: Entry) -> datetime:
        """Return the time for a stream: it never runs backwards there, whatever the clocks say.

        Only there: one writer whose clock is fast must not hurry the accounts it did not write.
        """
        return max(self.now, entry.recorded_at)

    def _read(self, pending: Pending) -> Answer:
        """Return what a reading finds, before anything of this batch is decided."""
        assert pending.read is not None
        entry = self.cache[pending.stream]
        try:
            if entry.unreadable:
                raise entry.unreadable
            return cast("Answer", pending.read(entry, self._time(entry)))
        except LedgerError as refusal:
            return refusal

    def _decide(self, pending: Pending) -> None:
        """Decide one command on what the ones before it in this batch have left."""
        order = pending.order
        assert order is not None
        entry = self.cache[pending.stream]
        if order.key is not None:
            key = (entry, order.key)
            if key in self._keys:
                self.again.append(pending)
                return
            self._keys.add(key)
        decided = Decided(pending, entry)
        self.decided.append(decided)
        events: tuple[Event, ...] = ()
        has_own = False
        try:
            events, has_own = self._events(order, entry)
        except LedgerError as refusal:
            decided.refusal = refusal
        except Exception:
            # A bug ends its own command, not the others of the batch: deciding changes nothing.
            log.exception("batch.decide_failed")
            decided.refusal = InternalError()
        if order.key is not None and not has_own:
            # Refused, or nothing to do: which may be because this very command was done before.
            self.rows.probes.append((pending.stream, order.key))
        if entry.unreadable:
            # The state stopped short of the stream's end: to decide again would not help.
            return
        self._touch(entry)
        if events:
            if entry.shared_until >= self.number:
                entry.keep()
            try:
                self._record(decided, order, entry, events, has_own=has_own)
            except Exception as error:
                raise Spoiled(pending) from error

    def _events(self, order: Order, entry: Entry) -> tuple[tuple[Event, ...], bool]:
        """Return what happens, and whether the last of it is the command's own event."""
        command = order.command
        if entry.unreadable:
            raise entry.unreadable
        if order.account is None:
            said = decide_tenant(entry.catalog, cast("TenantCommand", command), self._time(entry))
            return (said,), True
        command = cast("AccountCommand", command)
        prices = self._prices(order.tenant) if asks_catalog(command) else NO_PRICES
        now = self._time(entry)
        events = decide(entry.account, command, now, key=order.key or "", prices=prices)
        # Some commands may have nothing to add to what is due, and a Settle never has.
        has_own = bool(events) and (isinstance(command, Settle) or not is_by_time(events[-1]))
        return events, has_own

    def _prices(self, tenant: str) -> Catalog:
        entry = self.cache[stream_id(tenant, None)]
        if entry.unreadable:
            raise entry.unreadable
        # Prices are part of the decision: if they are not the newest, nothing is written.
        self._guards[entry] = None
        self._touch(entry)
        return entry.catalog

    def _touch(self, entry: Entry) -> None:
        if entry not in self._expected:
            self._expected[entry] = entry.state.version + 1
            self.entries.add(entry)

    def _record(
        self,
        decided: Decided,
        order: Order,
        entry: Entry,
        events: tuple[Event, ...],
        *,
        has_own: bool,
    ) -> None:
        recorded_at = self._time(entry)
        own = len(events) - 1 if has_own else len(events)
        for place, event in enumerate(events):
            entry.evolve(event)
            is_own = place == own
            balance = None if order.account is None else entry.account.balance
            key = order.key if is_own else None
            name = NAME_OF[type(event)]
            entry.hash = self.rows.add(
                entry.hash,
                entry.stream,
                entry.state.version,
                name=name,
                state=encode(
                    event,
                    by=order.by,
                    reason=order.reason if is_own else None,
                    occurred_at=order.occurred_at if is_own else None,
                    balance=balance,
                ),
                recorded_at=recorded_at,
                tenant=order.tenant,
                account=order.account,
                subject=subject_of(event),
                key=key,
                content=order.content() if key is not None else None,
            )
            self._places.append(entry)
            if is_own:
                row, version = len(self._places) - 1, entry.state.version
                decided.own = Own(row, version, name, recorded_at, event, copy(balance))
        entry.recorded_at = recorded_at

    def depart(self, session: Session, snapshot_every: int) -> Append | None:
        """Send off what was decided; None if nothing was. Snapshots are taken of what it will be.

        Later batches may be decided on top of this one before it is written.
        """
        if not self.decided:
            return None
        last = {entry: row for row, entry in enumerate(self._places)}
        for entry, row in last.items():
            if entry.wants_snapshot(snapshot_every):
                self.snaps.append(Snap(entry, row, entry.snapshot()))
        self.rows.expected = {entry.stream: version for entry, version in self._expected.items()}
        self.rows.guards = [entry.stream for entry in self._guards]
        return session.append(self.rows)

    def arrive(self, session: Session, appended: Appended) -> set[Entry]:
        """Answer what there is to answer, and return the streams on which nothing was written.

        The commands on those streams are in `again`, save those whose key had been used.
        """
        undone = self._undone(appended) if appended.stale or appended.used else set()
        positions = self._positions(appended, undone)
        receipts = session.receipts(appended.used) if appended.used else {}
        for one in self.decided:
            pending = one.pending
            receipt = receipts.get(pending.key) if receipts and pending.key else None
            if receipt is not None:
                self.answers.append((pending, _replay(pending, receipt)))
            elif one.entry in undone:
                self.again.append(pending)
            elif one.refusal is not None:
                self.answers.append((pending, one.refusal))
            elif one.own is None:
                self.answers.append((pending, Outcome(None)))
            else:
                self.answers.append((pending, _outcome(one, positions[one.own.row])))
        self.snaps = [snap for snap in self.snaps if snap.entry not in undone]
        for snap in self.snaps:
            snap.stored = structs.replace(snap.stored, position=positions[snap.row])
        return undone

    def _undone(self, appended: Appended) -> set[Entry]:
        undone = {entry for entry in self._expected if entry.stream in appended.stale}
        undone.update(
            one.entry
            for one in self.decided
            if one.own is not None and one.pending.key in appended.used
        )
        if not undone.isdisjoint(self._guards):
            # Refusals too: the price that was not found may have been put meanwhile. And what was
            # priced may have been so by a price of this very batch, which is not written.
            undone.update(one.entry for one in self.decided)
        return undone

    def _positions(self, appended: Appended, undone: set[Entry]) -> list[int]:
        """Return a position for every row that was written, and tell the entries of theirs."""
        places = [place for place, entry in enumerate(self._places) if entry not in undone]
        assert len(places) == len(appended.positions), "all that could be written was written"
        positions = [0] * len(self._places)
        for place, position in zip(places, appended.positions, strict=True):
            positions[place] = position
            self._places[place].position = position
        return positions

    def count_written(self, undone: set[Entry]) -> int:
        """Return how many events were written."""
        return sum(entry not in undone for entry in self._places)


def _outcome(decided: Decided, position: int) -> Outcome:
    order, own = decided.pending.order, decided.own
    assert order is not None
    assert own is not None
    return Outcome(
        Recorded(
            position=position,
            stream=decided.entry.stream,
            version=own.version,
            tenant=order.tenant,
            account=order.account,
            name=own.name,
            recorded_at=own.recorded_at,
            key=order.key,
            by=order.by,
            reason=order.reason,
            occurred_at=order.occurred_at,
            event=own.event,
            balance=own.balance,
        )
    )


def _replay(pending: Pending, receipt: Receipt) -> Answer:
    assert pending.order is not None
    if pending.order.content() != receipt.content:
        return IdempotencyMismatch(key=pending.order.key)
    if isinstance(receipt.recorded, LedgerError):
        return receipt.recorded
    return Outcome(receipt.recorded, replayed=True)
