"""Group commit: commands of all callers queue up, one thread decides and writes them in batches.

While a batch commits, the next gathers. Nothing is answered before its batch is committed, and
never is a batch sent before the one before it is answered for: versions are then without gaps.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from eventsourcing.persistence import PersistenceError
from msgspec import Struct

from ledger.batch import Answer, Batch, Pending, Reading, Spoiled
from ledger.cache import Cache, Entry
from ledger.domain.account import Account
from ledger.domain.catalog import Catalog
from ledger.domain.decide import settle
from ledger.domain.entities import Charge, Price
from ledger.domain.errors import (
    AccountBusy,
    InternalError,
    LedgerError,
    Overloaded,
    StoreUnavailable,
)
from ledger.domain.pricing import rate
from ledger.records import Order, Outcome, View, fault_of, stream_id
from ledger.store import Store, StoredSnapshot

log = logging.getLogger(__name__)

ATTEMPTS_OPTIMISTIC = 2
"""How often a command is decided before it is decided under the lock, where nobody can be first."""
ATTEMPTS_MAX = 8
RETRY_SECONDS_MAX = 0.5
SNAPSHOT_QUEUE_MAX = 256
NOWHERE = UUID(int=0)
"""The stream of an order that can be in none."""


def utc_now() -> datetime:
    """Return the time by the machine's clock."""
    return datetime.now(UTC)


class Stats(Struct):
    """Counters of the writer, for its metrics. They only grow, but for the last two."""

    batches: int = 0
    commands: int = 0
    events: int = 0
    refusals: int = 0
    replays: int = 0
    conflicts: int = 0
    failures: int = 0
    snapshots: int = 0
    last_batch_ms: float = 0.0
    cached_streams: int = 0


class Writer:
    """The only way to change the ledger. One thread writes; any thread may submit."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], datetime] = utc_now,
        queue_max: int = 10_000,
        batch_max: int = 1_000,
        account_cache_max: int = 100_000,
        snapshot_every: int = 500,
        command_timeout_seconds: float = 10.0,
    ) -> None:
        """Prepare to write to `store`; nothing happens before `start`."""
        self.store = store
        self.clock = clock
        self.queue_max = queue_max
        self.batch_max = self._take_max = batch_max
        self.snapshot_every = snapshot_every
        self.command_timeout_seconds = command_timeout_seconds
        self.stats = Stats()
        self._cache = Cache(account_cache_max)
        self._queue: deque[Pending] = deque()
        self._ready = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._snapshots: queue.Queue[StoredSnapshot | None] = queue.Queue(SNAPSHOT_QUEUE_MAX)
        self._keeper = threading.Thread(target=self._keep_snapshots, name="snapshots", daemon=True)

    # -- callers -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()
        self._keeper.start()

    def close(self) -> None:
        """Finish what waits, then stop. Further commands are refused as Overloaded."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        if self._thread.is_alive():
            self._thread.join()
        if self._keeper.is_alive():
            self._snapshots.put(None)
            self._keeper.join()
        for pending in self._queue:
            # Never started, or ended by a bug.
            pending.answer(StoreUnavailable())
        self._queue.clear()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    @property
    def alive(self) -> bool:
        """Tell whether commands are being written."""
        return self._thread.is_alive() and not self._closing

    @property
    def queue_length(self) -> int:
        """How many commands wait."""
        return len(self._queue)

    def submit(self, order: Order) -> Future[Outcome]:
        """Queue a command; the future holds its outcome, or the LedgerError that refused it.

        Raises Overloaded if too many wait.
        """
        future: Future[Outcome] = Future()
        self._enqueue([self.pending(order, partial(_resolve, future))])
        return future

    def hand_over(self, pendings: Sequence[Pending]) -> None:
        """Queue commands of several callers at once; whoever finds no room is told Overloaded."""
        with self._ready:
            waiting = len(self._queue)
            room = 0 if self._closing else max(0, self.queue_max - waiting)
            self._queue.extend(pendings[:room])
            self._ready.notify()
        for pending in pendings[room:]:
            pending.answer(Overloaded(waiting=waiting))

    def submit_many(self, orders: Sequence[Order], done: Callable[[list[Answer]], None]) -> None:
        """Queue commands; `done` gets all their answers, in order, from the writer's thread.

        They are decided in this order. Raises Overloaded if too many wait; then none is queued.
        """
        if not orders:
            done([])
            return
        answers: list[Any] = [None] * len(orders)
        left = len(orders)

        def answered(place: int, answer: Answer) -> None:
            nonlocal left
            answers[place] = answer
            left -= 1
            if left == 0:
                done(answers)

        self._enqueue(
            [self.pending(order, partial(answered, place)) for place, order in enumerate(orders)]
        )

    def view(self, tenant: str, account: str) -> Future[View]:
        """Return the account as the ledger has it, with all that is due by now."""
        return self._read(tenant, account, _view)

    def catalog(self, tenant: str) -> Future[Catalog]:
        """Return a copy of the tenant's catalog as the ledger has it."""
        return self._read(tenant, None, lambda entry, _: entry.fork())

    def quote(self, tenant: str, charge: Charge) -> Future[tuple[int, Price | None]]:
        """Return what a charge would cost now, by the rules that a reservation is priced by."""
        return self._read(tenant, None, lambda entry, _: rate(charge, entry.catalog))

    def _read(self, tenant: str, account: str | None, reading: Reading) -> Future[Any]:
        future: Future[Any] = Future()
        pending = Pending(
            stream_id(tenant, account),
            None,
            partial(_resolve, future),
            time.monotonic() + self.command_timeout_seconds,
            is_catalog=account is None,
            read=reading,
        )
        self._enqueue([pending])
        return future

    def pending(self, order: Order, answer: Callable[[Answer], None]) -> Pending:
        """Return a command to hand over; `answer` gets its answer from the writer's thread."""
        deadline = time.monotonic() + self.command_timeout_seconds
        fault = fault_of(order)
        stream = order.stream if fault is None else NOWHERE
        pending = Pending(stream, order, answer, deadline, is_catalog=order.is_for_catalog)
        pending.fault = fault
        return pending

    def _enqueue(self, pendings: list[Pending]) -> None:
        with self._ready:
            if self._closing or len(self._queue) + len(pendings) > self.queue_max:
                raise Overloaded(waiting=len(self._queue))
            self._queue.extend(pendings)
            self._ready.notify()

    # -- the writer's thread -----------------------------------------------------------------------

    def _run(self) -> None:
        number = 0
        while (pendings := self._take()) is not None:
            number += 1
            started = time.monotonic()
            locked = any(pending.attempts >= ATTEMPTS_OPTIMISTIC for pending in pendings)
            try:
                self._write(number, pendings, locked=locked)
                self._take_max = min(2 * self._take_max, self.batch_max)
            except PersistenceError as error:
                self._failed(pendings, error)
            except Spoiled as spoiled:
                log.exception("writer.batch_spoiled")
                spoiled.pending.answer(InternalError())
                self._put_back([one for one in pendings if one is not spoiled.pending])
            except BaseException:
                # A bug: nobody may wait for an answer that will not come.
                self._crashed(pendings)
                raise
            self.stats.batches += 1
            self.stats.last_batch_ms = (time.monotonic() - started) * 1_000
            self.stats.cached_streams = len(self._cache)

    def _take(self) -> list[Pending] | None:
        with self._ready:
            while not self._queue:
                if self._closing:
                    return None
                self._ready.wait()
            count = min(len(self._queue), self._take_max)
            return [self._queue.popleft() for _ in range(count)]

    def _write(self, number: int, pendings: list[Pending], *, locked: bool) -> None:
        batch = Batch(self._cache, number, self.clock())
        answers: list[tuple[Pending, Any]] = []
        undone: set[UUID] = set()
        stale: frozenset[UUID] = frozenset()
        order = {pending: place for place, pending in enumerate(pendings)}
        try:
            with self.store.session(locked=locked) as session:
                known, pendings = batch.recognise(session, pendings)
                answers += known
                batch.load(session, pendings)
                answers += [(one, batch.read(one)) for one in pendings if one.read is not None]
                for pending in pendings:
                    if pending.read is None:
                        batch.decide(pending)
                if batch.decided:
                    appended = session.append(batch.rows)
                    stale = appended.stale
                    answered, undone = batch.finish(session, appended)
                    answers += answered
        except BaseException:
            # Written or not, we do not know: the memory of these streams is worth nothing now.
            self._cache.forget(batch.streams)
            raise
        self._cache.undo(undone, stale, number)
        self._cache.settle(batch.streams)
        self._again(sorted(batch.again, key=order.__getitem__), undone)
        self._count(answers, batch, undone)
        for pending, answer in answers:
            pending.answer(answer)
        self._take_snapshots(batch)

    def _again(self, pendings: list[Pending], undone: set[UUID]) -> None:
        """Put back at the front what could not be answered, in its order."""
        waiting = []
        for pending in pendings:
            pending.attempts += pending.stream in undone
            if pending.attempts >= ATTEMPTS_MAX:
                pending.answer(AccountBusy())
            else:
                waiting.append(pending)
        self.stats.conflicts += len(undone)
        self._put_back(waiting)

    def _put_back(self, pendings: list[Pending]) -> None:
        with self._ready:
            self._queue.extendleft(reversed(pendings))

    def _failed(self, pendings: list[Pending], error: PersistenceError) -> None:
        """Try again what may still be answered in time; a key that was written finds itself."""
        self.stats.failures += 1
        log.warning("writer.batch_failed: %s", error)
        # One command that is too much for the database fails at last by itself, not all others.
        self._take_max = max(1, len(pendings) // 2)
        self.store.drop_broken_connections()
        now = time.monotonic()
        with self._ready:
            # Those behind this batch have waited too.
            everybody = [*pendings, *self._queue]
            late = {one for one in everybody if one.deadline <= now or self._closing}
            self._queue = deque(one for one in everybody if one not in late)
        for pending in late:
            pending.answer(StoreUnavailable())
        time.sleep(random.uniform(0.05, RETRY_SECONDS_MAX))  # noqa: S311 - jitter

    def _crashed(self, pendings: list[Pending]) -> None:
        log.critical("writer.crashed", exc_info=True)  # noqa: LOG014 - called by the handler
        with self._ready:
            self._closing = True
            pendings += self._queue
            self._queue.clear()
        for pending in pendings:
            pending.answer(StoreUnavailable())

    def _count(self, answers: list[tuple[Pending, Any]], batch: Batch, undone: set[UUID]) -> None:
        stats = self.stats
        stats.commands += len(answers)
        stats.events += sum(stream not in undone for stream in batch.rows.streams)
        for _, answer in answers:
            if isinstance(answer, LedgerError):
                stats.refusals += 1
            elif isinstance(answer, Outcome) and answer.replayed:
                stats.replays += 1

    # -- snapshots, in the background --------------------------------------------------------------

    def _take_snapshots(self, batch: Batch) -> None:
        for stream in set(batch.rows.streams):
            entry = self._cache.get(stream)
            if entry is None or not isinstance(entry.state, Account):
                continue
            # A larger account costs more to snapshot, so it is done less often.
            every = max(self.snapshot_every, len(entry.state.grants) + entry.state.open_count)
            if entry.state.version - entry.snapshot_version >= every:
                self._snapshot(entry)

    def _snapshot(self, entry: Entry) -> None:
        if self._snapshots.full():
            return
        self._snapshots.put(entry.snapshot())
        entry.snapshot_version = entry.state.version

    def _keep_snapshots(self) -> None:
        while (snapshot := self._snapshots.get()) is not None:
            try:
                self.store.save_snapshot(snapshot)
                self.stats.snapshots += 1
            except PersistenceError as error:
                log.warning("writer.snapshot_failed: %s", error)


def _resolve(future: Future[Any], answer: object) -> None:
    # From here on the caller cannot cancel: between a look and the answer he could have.
    if not future.set_running_or_notify_cancel():
        return
    if isinstance(answer, LedgerError):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def _view(entry: Entry, now: datetime) -> View:
    _, account = settle(entry.account, now)
    snapshot = account.snapshot()
    return View(
        position=entry.position,
        version=snapshot.version,
        opened=snapshot.opened,
        as_of=now,
        balance=snapshot.balance,
        grants=snapshot.grants,
        operations=snapshot.operations,
        label=snapshot.label,
        metadata=snapshot.metadata,
    )
