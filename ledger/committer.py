"""The one thread of a process that changes the ledger: it decides batch after batch.

While a batch commits, the next gathers, and is decided on top of it if all that takes is in memory.
Never is a batch sent before the one before it has been answered for, so that versions are without
gaps; and if that one was not written as it was decided, what was decided on top of it is void.
Nothing is answered before its batch is committed.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime

from eventsourcing.persistence import PersistenceError
from msgspec import Struct

from ledger.append import Append
from ledger.backlog import Backlog
from ledger.batch import Batch, Spoiled
from ledger.cache import Cache, Entry
from ledger.domain.errors import AccountBusy, InternalError, LedgerError, StoreUnavailable
from ledger.pending import Pending
from ledger.records import Outcome
from ledger.snapshots import SnapshotKeeper
from ledger.store import Session, Store

log = logging.getLogger(__name__)

ATTEMPTS_OPTIMISTIC = 2
"""How often a command is decided before it is decided under the lock, where nobody can be first."""
ATTEMPTS_MAX = 8
RETRY_SECONDS_MAX = 0.5
GATHER_SECONDS = 0.001
CROWD_MIN, CROWD_SECONDS = 4, 0.005
"""From how many on, answered how long ago at most, the next batch gathers."""


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
    overlapped: int = 0
    last_batch_ms: float = 0.0
    cached_streams: int = 0


class Flight(Struct):
    """A batch that has been sent, and what it holds until it has landed."""

    batch: Batch
    session: Session
    append: Append | None
    held: ExitStack
    calm: bool
    """Whether the next may be decided meanwhile: nobody else writes these streams, it seems."""
    started: float


class Committer:
    """Takes commands from the backlog, and answers them."""

    def __init__(
        self,
        store: Store,
        backlog: Backlog,
        cache: Cache,
        keeper: SnapshotKeeper,
        *,
        clock: Callable[[], datetime],
        batch_max: int,
        snapshot_every: int,
    ) -> None:
        """Prepare; nothing happens before `run`."""
        self.stats = Stats()
        self._store = store
        self._backlog = backlog
        self._cache = cache
        self._keeper = keeper
        self._clock = clock
        self._batch_max = self._take_max = batch_max
        self._snapshot_every = snapshot_every
        self._number = 0
        self._crowd = (0, 0.0)
        """How many the newest batch has answered, and when."""
        self._at_work: list[Pending] = []
        """What was taken from the backlog and may not be answered yet."""

    def run(self) -> None:
        """Work until the backlog is closed and empty."""
        flight: Flight | None = None
        try:
            while True:
                pendings = self._backlog.take(self._take_max, wait=flight is None)
                if pendings is None:
                    return
                if flight is None and not self._backlog:
                    self._gather(pendings)
                self._at_work = [*(flight.batch.pendings if flight else ()), *pendings]
                flight = self._turn(flight, pendings)
        except BaseException:
            # A bug: nobody may wait for an answer that will not come.
            log.critical("writer.crashed", exc_info=True)
            self._backlog.close()
            for pending in [*self._at_work, *self._backlog.take_late(time.monotonic())]:
                pending.answer(StoreUnavailable())
            raise

    def _gather(self, pendings: list[Pending]) -> None:
        """Give those that were answered together a moment to ask again together.

        Each round trip has its price, for the database too. One caller alone never waits.
        """
        crowd, since = self._crowd
        recent = time.monotonic() - since < CROWD_SECONDS
        if recent and crowd >= CROWD_MIN and len(pendings) < crowd:
            time.sleep(GATHER_SECONDS)
            pendings += self._backlog.take(self._take_max - len(pendings), wait=False) or []

    def _turn(self, flight: Flight | None, pendings: list[Pending]) -> Flight | None:
        """See a batch home, and send the next, of these. Returns what is on its way then."""
        self._number += 1
        batch = Batch(self._cache, self._number, self._clock())
        if flight is not None:
            if pendings and flight.calm and batch.at_hand(pendings):
                return self._follow(flight, batch, pendings)
            if not self._land(flight, pendings):
                return None
        return self._launch(batch, pendings) if pendings else None

    def _follow(self, flight: Flight, batch: Batch, pendings: list[Pending]) -> Flight | None:
        """Decide these while the batch before them commits, then send them."""
        batch.pendings += pendings
        try:
            batch.take(None, pendings)
            self.stats.overlapped += 1
        except Spoiled as spoiled:
            others = self._without(spoiled, batch)
            if self._land(flight, others):
                self._backlog.put_back(others)
            return None
        if not self._land(flight, pendings):
            self._forget(batch)
            return None
        more: list[Pending] = []
        if 2 * len(batch.pendings) < len(flight.batch.pendings):
            # Each round trip has its price: a few commands do not go before those that came since.
            more = self._backlog.take(self._take_max - len(batch.pendings), wait=False) or []
            self._at_work += more
            if not batch.at_hand(more):
                self._backlog.put_back(more)
                more = []
        return self._launch(batch, more, needs_store=False)

    def _launch(
        self, batch: Batch, pendings: list[Pending], *, needs_store: bool = True
    ) -> Flight | None:
        """Decide these too, and send the batch. Nothing else is on its way."""
        batch.pendings += pendings
        started = time.monotonic()
        locked = any(pending.attempts >= ATTEMPTS_OPTIMISTIC for pending in pendings)
        try:
            with ExitStack() as held:
                session = held.enter_context(self._store.session(locked=locked))
                batch.take(session if needs_store else None, pendings)
                append = batch.depart(session, self._snapshot_every)
                calm = not locked and not any(
                    entry.shared_until >= batch.number for entry in batch.entries
                )
                return Flight(batch, session, append, held.pop_all(), calm, started)
        except PersistenceError as error:
            self._forget(batch)
            self._failed(batch.pendings, error)
        except Spoiled as spoiled:
            self._backlog.put_back(self._without(spoiled, batch))
        return None

    def _without(self, spoiled: Spoiled, batch: Batch) -> list[Pending]:
        """Answer the command that a bug struck, and return the others of its batch."""
        log.error("writer.batch_spoiled", exc_info=spoiled)
        self._forget(batch)
        spoiled.pending.answer(InternalError())
        return [pending for pending in batch.pendings if pending is not spoiled.pending]

    def _land(self, flight: Flight, behind: list[Pending]) -> bool:
        """Wait for a batch, and answer it.

        Returns False if not all of it could be: then what must be decided again stands in the
        backlog, and `behind`, which was taken after it, too.
        """
        batch = flight.batch
        undone: set[Entry] = set()
        try:
            with flight.held:
                if flight.append is not None:
                    appended = flight.append.result()
                    undone = batch.arrive(flight.session, appended)
                    self._cache.undo(undone, appended.stale, batch.number)
        except PersistenceError as error:
            # Written or not, we do not know: the memory of these streams is worth nothing now.
            self._forget(batch)
            self._failed([*batch.pendings, *behind], error)
            return False
        self._cache.settle(batch.entries)
        self._take_max = min(2 * self._take_max, self._batch_max)
        self._count(flight, undone)
        for pending, answer in batch.answers:
            pending.answer(answer)
        self._crowd = (len(batch.answers), time.monotonic())
        for snap in batch.snaps:
            self._keeper.keep(snap.stored)
        return not batch.again or self._again(batch, undone, behind)

    def _again(self, batch: Batch, undone: set[Entry], behind: list[Pending]) -> bool:
        """Put back, at the front and in its order, what could not be answered."""
        places = {pending: place for place, pending in enumerate(batch.pendings)}
        streams = {entry.stream for entry in undone}
        waiting = []
        for pending in sorted(batch.again, key=places.__getitem__):
            pending.attempts += pending.stream in streams
            if pending.attempts >= ATTEMPTS_MAX:
                pending.answer(AccountBusy())
            else:
                waiting.append(pending)
        self._backlog.put_back([*waiting, *behind])
        return False

    def _forget(self, batch: Batch) -> None:
        self._cache.forget([entry.stream for entry in batch.entries])

    def _failed(self, pendings: list[Pending], error: PersistenceError) -> None:
        """Try again what may still be answered in time; a key that was written finds itself."""
        self.stats.failures += 1
        log.warning("writer.batch_failed: %s", error)
        # One command that is too much for the database fails at last by itself, not all others.
        self._take_max = max(1, len(pendings) // 2)
        self._store.drop_broken_connections()
        self._backlog.put_back(pendings)
        # Those behind this batch have waited too.
        for pending in self._backlog.take_late(time.monotonic()):
            pending.answer(StoreUnavailable())
        time.sleep(random.uniform(0.05, RETRY_SECONDS_MAX))  # noqa: S311 - jitter

    def _count(self, flight: Flight, undone: set[Entry]) -> None:
        batch, stats = flight.batch, self.stats
        stats.batches += 1
        stats.last_batch_ms = (time.monotonic() - flight.started) * 1_000
        stats.cached_streams = len(self._cache)
        stats.conflicts += len(undone)
        stats.commands += len(batch.answers)
        stats.events += batch.count_written(undone)
        for _, answer in batch.answers:
            if isinstance(answer, Outcome):
                stats.replays += answer.replayed
            elif isinstance(answer, LedgerError):
                stats.refusals += 1
