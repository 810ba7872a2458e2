"""One batch of the writer: decide every command in memory, append all their events at once.

A batch never answers from a state that is not the store's: what was decided on a stale stream is
decided again, a refusal included; a key that has been used gets its first answer, whatever the
command would be told now. And it never ends for others what one command or one stream spoils.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct, structs

from ledger.append import Appended, Rows
from ledger.cache import Cache, Entry
from ledger.codec import NAME_OF, encode
from ledger.domain.catalog import Catalog, decide_catalog
from ledger.domain.commands import (
    AccountCommand,
    Capture,
    CaptureUpTo,
    CatalogCommand,
    Deduct,
    Refund,
    Reserve,
)
from ledger.domain.decide import NO_PRICES, decide, recalled_by, settle
from ledger.domain.errors import (
    IdempotencyMismatch,
    InternalError,
    LedgerError,
)
from ledger.domain.events import Event, subject_of
from ledger.records import Order, Outcome, Recorded, stream_id
from ledger.store import Receipt, Session

log = logging.getLogger(__name__)

Answer = Outcome | LedgerError
Reading = Callable[[Entry, datetime], Any]


class Pending:
    """A command that waits for its answer, or a reading of a stream (`read` is set)."""

    __slots__ = (
        "_answer",
        "attempts",
        "deadline",
        "fault",
        "is_catalog",
        "key",
        "order",
        "read",
        "stream",
    )

    def __init__(
        self,
        stream: UUID,
        order: Order | None,
        answer: Callable[[Any], None],
        deadline: float,
        *,
        is_catalog: bool = False,
        read: Reading | None = None,
    ) -> None:
        """Wait until `deadline`, a time of the monotonic clock."""
        self.is_catalog = is_catalog
        self.stream = stream
        self.order = order
        self._answer: Callable[[Any], None] | None = answer
        self.deadline = deadline
        self.read = read
        self.attempts = 0
        self.fault: LedgerError | None = None
        """Why it cannot even be asked."""
        self.key: tuple[UUID, str] | None = None
        """The command's idempotency key, in its stream."""
        if order is not None and order.key is not None:
            self.key = (stream, order.key)

    def answer(self, answer: object) -> None:
        """Answer, once. A caller who cannot take the answer does not keep others from theirs."""
        deliver, self._answer = self._answer, None
        if deliver is None:
            return
        try:
            deliver(answer)
        except Exception:
            log.exception("batch.answer_not_taken")


class Spoiled(Exception):
    """A bug struck while a command's events were folded: this batch cannot be written as it is."""

    def __init__(self, pending: Pending) -> None:
        """Name the command."""
        super().__init__()
        self.pending = pending


class Decided(Struct):
    """A command that was decided but not answered: its own event, or a refusal, or nothing."""

    pending: Pending
    recorded: Recorded | None = None
    row: int = -1
    refusal: LedgerError | None = None


class Batch:
    """What one batch has decided so far."""

    def __init__(self, cache: Cache, number: int, now: datetime) -> None:
        """Start batch `number`, at the time `now`."""
        self.cache = cache
        self.number = number
        self.now = now
        self.rows = Rows()
        self.decided: list[Decided] = []
        self.again: list[Pending] = []
        """What has to wait for the next batch, because its key is asked for in this one already."""
        self.streams: dict[UUID, bool] = {}
        self._keys: set[tuple[UUID, str]] = set()
        self._written: set[UUID] = set()

    def recognise(
        self, session: Session, pendings: list[Pending]
    ) -> tuple[list[tuple[Pending, Answer]], list[Pending]]:
        """Return the answers to those that need no decision, and the others.

        Keys are looked up once something had to be decided again: a used key stands in the way of
        its whole stream, and a stream whose every batch holds one would never be written.
        """
        answers: list[tuple[Pending, Answer]] = [
            (pending, pending.fault) for pending in pendings if pending.fault is not None
        ]
        pendings = [pending for pending in pendings if pending.fault is None]
        keys = {pending.key for pending in pendings if pending.key is not None}
        if not keys or not any(pending.attempts for pending in pendings):
            return answers, pendings
        receipts = session.receipts(keys)
        others = []
        for pending in pendings:
            receipt = receipts.get(pending.key) if pending.key else None
            if receipt is None:
                others.append(pending)
            else:
                answers.append((pending, _replay(pending, receipt)))
        return answers, others

    def load(self, session: Session, pendings: list[Pending]) -> None:
        """Have at hand all that deciding these will ask."""
        recalls: list[tuple[UUID, str]] = []
        reads = set()
        for pending in pendings:
            if pending.read is not None:
                reads.add(pending.stream)
            self.streams[pending.stream] = pending.is_catalog
            if pending.order is None or pending.is_catalog:
                continue
            command = pending.order.command
            assert isinstance(command, AccountCommand)
            prices = catalog_for(pending.order)
            if prices is not None:
                self.streams[prices] = True
            recalled = recalled_by(command)
            if recalled is not None:
                recalls.append((pending.stream, recalled))
        fresh = set(self.streams) if session.locked else reads
        self.cache.load(session, self.streams, self.number, fresh)
        unknown = {
            (stream, name)
            for stream, name in recalls
            if not self.cache[stream].unreadable
            and name not in self.cache[stream].account.operations
        }
        if unknown:
            self.cache.recall(session, unknown)

    def _time(self, entry: Entry) -> datetime:
        """Return the time for a stream: it never runs backwards there, whatever the clocks say.

        Only there: one writer whose clock is fast must not hurry the accounts it did not write.
        """
        return max(self.now, entry.recorded_at)

    def read(self, pending: Pending) -> object:
        """Return what a reading finds, before anything of this batch is decided."""
        assert pending.read is not None
        entry = self.cache[pending.stream]
        try:
            if entry.unreadable:
                raise entry.unreadable
            return pending.read(entry, self._time(entry))
        except LedgerError as refusal:
            return refusal

    def decide(self, pending: Pending) -> None:
        """Decide one command on what the ones before it in this batch have left."""
        order = pending.order
        assert order is not None
        if pending.key is not None:
            if pending.key in self._keys:
                self.again.append(pending)
                return
            self._keys.add(pending.key)
        entry = self.cache[pending.stream]
        decided = Decided(pending)
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
        if pending.key is not None and not has_own:
            # Refused, or nothing to do: which may be because this very command was done before.
            self.rows.probes.append(pending.key)
        if entry.unreadable:
            # The state stopped short of the stream's end: to decide again would not help.
            return
        if decided.refusal is not None:
            self.rows.expected.setdefault(pending.stream, entry.state.version + 1)
            return
        first = entry.state.version + 1
        if pending.stream not in self._written:
            # Overwrites what a refusal before it expected: the version is the same.
            self.rows.expected[pending.stream] = first
        if events:
            if entry.shared_until >= self.number:
                entry.keep()
            self._written.add(pending.stream)
            try:
                self._record(decided, order, entry, events, has_own=has_own)
            except Exception as error:
                raise Spoiled(pending) from error

    def _events(self, order: Order, entry: Entry) -> tuple[tuple[Event, ...], bool]:
        """Return what happens, and whether the last of it is the command's own event."""
        command = order.command
        if entry.unreadable:
            raise entry.unreadable
        if isinstance(command, CatalogCommand):
            return (decide_catalog(entry.catalog, command),), True
        prices = NO_PRICES
        catalog_stream = catalog_for(order)
        if catalog_stream is not None:
            prices = self._prices(catalog_stream)
        now = self._time(entry)
        events = decide(entry.account, command, now, key=order.key or "", prices=prices)
        if isinstance(command, CaptureUpTo):  # It may have nothing to add to what is due.
            return events, len(events) > len(settle(entry.account, now)[0])
        return events, bool(events)

    def _prices(self, stream: UUID) -> Catalog:
        unreadable = self.cache[stream].unreadable
        if unreadable:
            raise unreadable
        catalog = self.cache[stream].catalog
        if stream not in self.rows.guards:
            # Prices are part of the decision: if they are not the newest, nothing is written.
            self.rows.guards.append(stream)
        self.rows.expected.setdefault(stream, catalog.version + 1)
        return catalog

    def _record(
        self,
        decided: Decided,
        order: Order,
        entry: Entry,
        events: tuple[Event, ...],
        *,
        has_own: bool,
    ) -> None:
        own = len(events) - 1 if has_own else len(events)
        recorded_at = self._time(entry)
        for place, event in enumerate(events):
            entry.evolve(event)
            is_own = place == own
            balance = None
            if not order.is_for_catalog:
                balance = structs.replace(entry.account.balance)
            key = order.key if is_own else None
            name = NAME_OF[type(event)]
            occurred_at = order.occurred_at if is_own else None
            reason = order.reason if is_own else None
            state = encode(
                event, by=order.by, reason=reason, occurred_at=occurred_at, balance=balance
            )
            entry.hash = self.rows.add(
                entry.hash,
                entry.stream,
                entry.state.version,
                name=name,
                state=state,
                recorded_at=recorded_at,
                tenant=order.tenant,
                account=order.account,
                subject=subject_of(event),
                key=key,
                content=order.content() if key is not None else None,
            )
            entry.recorded_at = recorded_at
        if not has_own:
            return
        decided.row = len(self.rows.streams) - 1
        decided.recorded = Recorded(
            position=0,
            stream=entry.stream,
            version=entry.state.version,
            tenant=order.tenant,
            account=order.account,
            name=name,
            recorded_at=recorded_at,
            key=key,
            by=order.by,
            reason=reason,
            occurred_at=occurred_at,
            event=event,
            balance=balance,
        )

    def finish(
        self, session: Session, appended: Appended
    ) -> tuple[list[tuple[Pending, Answer]], set[UUID]]:
        """Return the answers there are, and the streams on which nothing was written.

        The commands on those streams are in `again`, save those whose key had been used.
        """
        undone = set(appended.stale)
        undone.update(
            one.pending.stream
            for one in self.decided
            if one.recorded is not None and one.pending.key in appended.used
        )
        if undone.intersection(self.rows.guards):
            # Refusals too: the price that was not found may have been put meanwhile. And what was
            # priced may have been so by a price of this very batch, which is not written.
            undone.update(one.pending.stream for one in self.decided)
        positions = self._positions(appended, undone)
        receipts = session.receipts(appended.used) if appended.used else {}
        answers: list[tuple[Pending, Answer]] = []
        for one in self.decided:
            receipt = receipts.get(one.pending.key) if one.pending.key else None
            if receipt is not None:
                answers.append((one.pending, _replay(one.pending, receipt)))
            elif one.pending.stream in undone:
                self.again.append(one.pending)
            elif one.refusal is not None:
                answers.append((one.pending, one.refusal))
            elif one.recorded is None:
                answers.append((one.pending, Outcome(None)))
            else:
                recorded = structs.replace(one.recorded, position=positions[one.row])
                answers.append((one.pending, Outcome(recorded)))
        return answers, undone

    def _positions(self, appended: Appended, undone: set[UUID]) -> list[int]:
        """Return a position for every row that was written, and tell the entries of theirs."""
        places = [place for place, s in enumerate(self.rows.streams) if s not in undone]
        assert len(places) == len(appended.positions), "all that could be written was written"
        positions = [0] * len(self.rows.streams)
        for place, position in zip(places, appended.positions, strict=True):
            positions[place] = position
            self.cache[self.rows.streams[place]].position = position
        return positions


def catalog_for(order: Order) -> UUID | None:
    """Return the stream of the catalog that deciding `order` asks, None if it asks none."""
    match order.command:
        case Reserve(charge=charge) | Deduct(charge=charge) | Capture(charge=charge):
            asks = charge.amount is None
        case CaptureUpTo(charge=maybe):
            asks = maybe is not None and maybe.amount is None
        case Refund():
            asks = True
        case _:
            asks = False
    return stream_id(order.tenant, None) if asks else None


def _replay(pending: Pending, receipt: Receipt) -> Answer:
    assert pending.order is not None
    if pending.order.content() != receipt.content:
        return IdempotencyMismatch(key=pending.order.key)
    if isinstance(receipt.recorded, LedgerError):
        return receipt.recorded
    return Outcome(receipt.recorded, replayed=True)
