"""What changes the ledger: it decides batch after batch, on one event loop.

While a batch commits, the next is decided on top of it, if all that takes is in memory. Never is a
batch sent before the one before it has been answered for, so that versions are without gaps; and if
that one was not written as it was decided, what was decided on top of it is void. Nothing is
answered before its batch is committed.

The loop never waits for the database: what has to is done by a thread beside it, one thing at a
time, and meanwhile nothing else here is touched.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Final, TypeVar

import psycopg
from eventsourcing.persistence import PersistenceError
from msgspec import Struct

from ledger.append import Append, Appended
from ledger.backlog import Backlog
from ledger.batch import Batch, Spoiled
from ledger.bell import Bell
from ledger.cache import Cache, Entry
from ledger.domain.errors import AccountBusy, InternalError, LedgerError, StoreUnavailable
from ledger.pending import Pending
from ledger.records import Outcome
from ledger.snapshots import SnapshotKeeper
from ledger.store import Session, Store
from ledger.wire import Flight

log = logging.getLogger(__name__)

ATTEMPTS_OPTIMISTIC: Final = 2
"""How often a command is decided before it is decided under the lock, where nobody can be first."""
ATTEMPTS_MAX: Final = 8
RETRY_SECONDS_MAX: Final = 0.5
DECIDED_AT_ONCE: Final = 64
"""Commands that are decided before others on the loop have their turn."""
CROWD: Final = 32
"""More commands than this go half by half: some are decided while the others commit."""
FAILURES: Final = (psycopg.Error, PersistenceError)
Result = TypeVar("Result")


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


class Sent(Struct):
    """A batch that has been sent, and what it holds until it has landed."""

    batch: Batch
    started: float
    append: Append | None = None
    calm: bool = False
    """Whether the next may be decided meanwhile: nobody else writes these streams, it seems."""
    landed: bool = False
    failure: Exception | None = None


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
        self._session: Session | None = None
        self._sent: Sent | None = None
        self._next: Batch | None = None
        """What has been decided on top of the batch that is on its way."""
        self._stuck = False
        """Whether what waits cannot be decided before that one has landed."""
        self._at_work: list[Pending] = []
        """What may be in no batch of the above, nor in the backlog; some of it may be answered."""

    async def run(self) -> None:
        """Work until the backlog is closed and empty."""
        self._bell = Bell()
        self._beside = ThreadPoolExecutor(1, "writer-store")
        self._backlog.tell(self._bell.ring)
        try:
            while self._sent or self._backlog or not self._backlog.closed:
                if self._sent is not None and self._sent.landed:
                    await self._land(self._sent)
                elif self._backlog and self._sent is None:
                    await self._launch()
                elif self._backlog and not self._stuck:
                    self._follow()
                    await asyncio.sleep(0)
                else:
                    await self._bell.heard()
        except BaseException:
            # A bug: nobody may wait for an answer that will not come.
            log.critical("writer.crashed", exc_info=True)
            self._backlog.close()
            self._give_up()
            raise
        finally:
            self._beside.shutdown(wait=False)
            if self._session is not None:
                self._session.close()

    def _give_up(self) -> None:
        batches = [self._sent.batch if self._sent else None, self._next]
        given = [pending for batch in batches if batch for pending in batch.pendings]
        for pending in [*given, *self._at_work, *self._backlog.take_late(time.monotonic())]:
            pending.answer(StoreUnavailable())

    async def _waited(self, ask: Callable[[], Result]) -> Result:
        """Have something done that waits for the database, beside the loop."""
        return await asyncio.get_running_loop().run_in_executor(self._beside, ask)

    def _room(self, batch: Batch, other: int) -> int:
        """Return how many may join `batch`, while `other` commands are in the one before it.

        So that the two share all there are evenly; but whoever is no crowd goes at once.
        """
        half = (len(batch.pendings) + other + len(self._backlog)) // 2
        most = min(self._take_max, max(CROWD, half)) - len(batch.pendings)
        return max(0, min(most, DECIDED_AT_ONCE))

    def _taken(self, most: int) -> list[Pending]:
        self._at_work = self._backlog.take(most)
        return self._at_work

    def _new_batch(self) -> Batch:
        self._number += 1
        return Batch(self._cache, self._number, self._clock())

    # -- on the way out ------------------------------------------------------------------------

    async def _launch(self) -> None:
        """Decide what waits, and send it. Nothing is on its way."""
        batch = self._new_batch()
        pendings = self._taken(self._room(batch, 0))
        batch.pendings = pendings
        try:
            if self._session is not None and batch.at_hand(pendings):
                batch.take(None, pendings)
            else:
                # No matter how long it takes, beside the loop.
                pendings += self._backlog.take(self._take_max - len(pendings))
                session = await self._connected()
                if any(pending.attempts >= ATTEMPTS_OPTIMISTIC for pending in pendings):
                    await self._write_locked(session, batch)
                    return
                await self._waited(partial(batch.take, session, pendings))
        except FAILURES as error:
            self._forget(batch)
            await self._failed(pendings, error)
        except Spoiled as spoiled:
            self._backlog.put_back(self._without(spoiled, batch))
        else:
            self._send(batch)

    async def _connected(self) -> Session:
        if self._session is None:
            self._session = await self._waited(self._store.session)
        return self._session

    def _send(self, batch: Batch) -> None:
        """Send what was decided; what needs nothing to be written is answered at once."""
        assert self._session is not None
        sent = Sent(batch, time.monotonic())
        try:
            sent.append = batch.depart(self._session, self._snapshot_every)
        except psycopg.Error as error:
            sent.landed, sent.failure = True, error
        else:
            if sent.append is None:
                self._settle(batch, set(), [])
                self._answer(batch, set(), sent.started)
                return
            sent.calm = not any(entry.shared_until >= batch.number for entry in batch.entries)
            self._watch(sent, sent.append.flight)
        self._sent = sent

    async def _write_locked(self, session: Session, batch: Batch) -> None:
        """Decide and write under the lock, where nobody can be first, waiting for all of it."""
        started = time.monotonic()

        def write() -> Appended | None:
            with session.lock():
                batch.take(session, batch.pendings)
                append = batch.depart(session, self._snapshot_every)
                return None if append is None else append.land()

        appended = await self._waited(write)
        undone = await self._arrived(session, batch, appended) if appended else set()
        self._settle(batch, undone, [])
        self._answer(batch, undone, started)

    def _follow(self) -> None:
        """Decide what waits while the batch before it commits, as far as it is at hand."""
        assert self._sent is not None
        batch = self._next or self._new_batch()
        pendings = self._taken(self._room(batch, len(self._sent.batch.pendings)))
        if not pendings or not self._sent.calm or not batch.at_hand(pendings):
            self._backlog.put_back(pendings)
            self._stuck = True
            return
        if self._next is None:
            self.stats.overlapped += 1
        self._next = batch
        batch.pendings += pendings
        self._at_work = []
        try:
            batch.take(None, pendings)
        except Spoiled as spoiled:
            self._next, self._stuck = None, True
            self._backlog.put_back(self._without(spoiled, batch))

    # -- on the way home -----------------------------------------------------------------------

    def _watch(self, sent: Sent, flight: Flight) -> None:
        """Have `landed` set once all of the answer is there."""
        loop = asyncio.get_running_loop()
        loop.add_reader(flight.socket, self._advance, sent, flight)
        if flight.unsent:
            loop.add_writer(flight.socket, self._advance, sent, flight)

    def _advance(self, sent: Sent, flight: Flight) -> None:
        loop, socket = asyncio.get_running_loop(), flight.socket
        try:
            sent.landed = flight.advance()
        except Exception as error:  # noqa: BLE001 - raised where it is landed
            sent.landed, sent.failure = True, error
        if sent.landed or not flight.unsent:
            loop.remove_writer(socket)
        if sent.landed:
            loop.remove_reader(socket)
            self._bell.ring()

    async def _land(self, sent: Sent) -> None:
        """See a batch home, send what was decided on top of it, and answer."""
        assert self._session is not None
        self._sent, self._stuck = None, False
        batch, following, self._next = sent.batch, self._next, None
        behind = following.pendings if following is not None else []
        self._at_work = [*batch.pendings, *behind]
        try:
            if sent.failure is not None:
                raise sent.failure
            assert sent.append is not None
            undone = await self._arrived(self._session, batch, sent.append.result())
        except FAILURES as error:
            # Written or not, we do not know: the memory of these streams is worth nothing now.
            for lost in (batch, following):
                if lost is not None:
                    self._forget(lost)
            await self._failed(self._at_work, error)
            return
        if following is not None and (undone or batch.again):
            self._forget(following)
            self._settle(batch, undone, behind)
        else:
            self._settle(batch, undone, [])
            if following is not None:
                self._send(following)
        self._answer(batch, undone, sent.started)

    async def _arrived(self, session: Session, batch: Batch, appended: Appended) -> set[Entry]:
        """Take in what an append did, and return the streams on which nothing was written."""
        arrive = partial(batch.arrive, session, appended)
        # What stands under keys that were used has to be looked up.
        undone = await self._waited(arrive) if appended.used else arrive()
        self._cache.undo(undone, appended.stale, batch.number)
        return undone

    def _settle(self, batch: Batch, undone: set[Entry], behind: list[Pending]) -> None:
        """Accept what a batch did; what could not be answered stands in front again, in order.

        So does `behind`, which was taken after it and is void.
        """
        self._cache.settle(batch.entries)
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

    def _answer(self, batch: Batch, undone: set[Entry], started: float) -> None:
        self._take_max = min(2 * self._take_max, self._batch_max)
        self._count(batch, undone, started)
        for pending, answer in batch.answers:
            pending.answer(answer)
        for snap in batch.snaps:
            self._keeper.keep(snap.stored)

    # -- when it goes wrong --------------------------------------------------------------------

    def _forget(self, batch: Batch) -> None:
        self._cache.forget([entry.stream for entry in batch.entries])

    def _without(self, spoiled: Spoiled, batch: Batch) -> list[Pending]:
        """Answer the command that a bug struck, and return the others of its batch."""
        log.error("writer.batch_spoiled", exc_info=spoiled)
        self._forget(batch)
        spoiled.pending.answer(InternalError())
        return [pending for pending in batch.pendings if pending is not spoiled.pending]

    async def _failed(self, pendings: list[Pending], error: Exception) -> None:
        """Try again what may still be answered in time; a key that was written finds itself."""
        self.stats.failures += 1
        log.warning("writer.batch_failed: %s", error)
        # One command that is too much for the database fails at last by itself, not all others.
        self._take_max = max(1, len(pendings) // 2)
        self._backlog.put_back(pendings)
        await self._waited(self._disconnect)
        # Those behind this batch have waited too.
        for pending in self._backlog.take_late(time.monotonic()):
            pending.answer(StoreUnavailable())
        await asyncio.sleep(random.uniform(0.05, RETRY_SECONDS_MAX))  # noqa: S311 - jitter

    def _disconnect(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()
        self._store.drop_broken_connections()

    def _count(self, batch: Batch, undone: set[Entry], started: float) -> None:
        stats = self.stats
        stats.batches += 1
        stats.last_batch_ms = (time.monotonic() - started) * 1_000
        stats.cached_streams = len(self._cache)
        stats.conflicts += len(undone)
        stats.commands += len(batch.answers)
        stats.events += batch.count_written(undone)
        for _, answer in batch.answers:
            if isinstance(answer, Outcome):
                stats.replays += answer.replayed
            elif isinstance(answer, LedgerError):
                stats.refusals += 1
