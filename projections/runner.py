"""The thread that follows the ledger: one read feeds all projections, each in its own transaction.

Only one process at a time does it; the others stand by. An exception in one projection stops that
one alone, at the very event, until a rebuild moves it or the process starts again. A connection
that was lost is made again, for ever.
"""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import msgspec
import psycopg
import structlog
from eventsourcing import persistence
from msgspec import Struct
from psycopg import Connection

from ledger.codec import UnknownEvent
from ledger.records import Recorded
from ledger.store import Store
from projections.projection import Projection, tidy
from projections.registry import PROJECTIONS
from projections.status import Failure, ProjectionStatus, read_status
from projections.tables import LOCKS, RUNNER_LOCK, claim, connect, prepare, write_batch
from projections.tracking import RECOVERED, TrackingRecorder, free_positions, positions_of

log = structlog.get_logger(__name__)

IDLE_MS_MAX: Final = 50
BUSY_SECONDS_MAX: Final = 0.1
"""The longest pause after a round."""
CROWDED_EVENTS: Final = 50
"""From how many events in a round on the pause grows with them, until there are many in each."""
STANDBY_SECONDS: Final = 1.0
REFRESH_SECONDS: Final = 1.0
RECONNECT_SECONDS_MAX: Final = 5.0
TRANSIENT = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
    persistence.OperationalError,
    persistence.InterfaceError,
)
"""What passes: a server that is away, a lock that is held, a statement that took too long."""

NEXT_EVENT = """
SELECT notification_id, topic FROM scrip.ledger_events
WHERE notification_id > %(position)s ORDER BY notification_id LIMIT 1
"""
FAIL = """
INSERT INTO projections.failures (projection, position, event, error)
VALUES (%(projection)s, %(position)s, %(event)s, %(error)s)
ON CONFLICT (projection) DO UPDATE SET position = excluded.position, event = excluded.event,
    error = excluded.error, failed_at = now()
"""


class Follower(Struct):
    """One projection, where it stands, and what stopped it there."""

    projection: Projection
    position: int = 0
    failure: Failure | None = None

    @property
    def name(self) -> str:
        """The name that its position is tracked under."""
        return self.projection.tracked_as


class Runner:
    """Keeps the projections up with the ledger, in one thread."""

    def __init__(
        self,
        store: Store,
        *,
        batch_max: int = 5_000,
        poll_ms: int = 5,
        projections: tuple[Projection, ...] = PROJECTIONS,
    ) -> None:
        """Prepare to follow; nothing happens before `start`. `poll_ms` is how often, while busy."""
        self.store = store
        self.batch_max = batch_max
        self.poll_ms = poll_ms
        self._projections = projections
        self._followers = [Follower(projection) for projection in projections]
        self._recorder = TrackingRecorder(store.recorder.datastore)
        self._ahead: tuple[int, Future[list[Recorded]]] | None = None
        """After which position the next batch is being read, while the one before it is written."""
        self._reader = ThreadPoolExecutor(1, "projections-reader")
        self._active = False
        self._is_behind = False
        """Whether the newest round has read a full batch, so that more waits."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="projections", daemon=True)
        self._last_status: list[ProjectionStatus] = []

    @property
    def active(self) -> bool:
        """Tell whether this process is the one that follows."""
        return self._active

    @property
    def alive(self) -> bool:
        """Tell whether the thread runs, active or standing by."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def close(self) -> None:
        """Finish the batch at hand, then stop."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._reader.shutdown()

    def status(self) -> list[ProjectionStatus]:
        """Return how each projection is doing; what was known last while the database is away."""
        try:
            with self.store.recorder.datastore.get_connection() as connection:
                found = read_status(connection, self._projections)
        except TRANSIENT:
            found = [msgspec.structs.replace(one, state="standby") for one in self._last_status]
        if not self._active:
            found = [msgspec.structs.replace(one, state="standby") for one in found]
        self._last_status = found
        return found

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                with connect(self.store) as connection:
                    while not self._stop.is_set():
                        failures = 0
                        if claim(connection, LOCKS, RUNNER_LOCK):
                            self._follow(connection)
                        self._stop.wait(STANDBY_SECONDS)
            except TRANSIENT as error:
                jitter = random.uniform(0.5, 1.0)  # noqa: S311 - no secret
                pause = min(RECONNECT_SECONDS_MAX, 0.05 * 2**failures) * jitter
                failures = min(failures + 1, 10)
                log.warning("projections.disconnected", error=str(error), retry_seconds=pause)
                self._stop.wait(pause)
            finally:
                self._active = False

    def _follow(self, connection: Connection[Any]) -> None:
        """Follow until told to stop, on the connection that holds the lock: they end together."""
        for name in prepare(connection, self._projections):
            log.info("projection.created", projection=name)
        self._active = True
        for follower in self._followers:
            follower.failure = None
            connection.execute(RECOVERED, {"name": follower.name})
        self._refresh(connection)
        log.info("projections.active")
        refreshed, idle_ms = time.monotonic(), self.poll_ms
        while not self._stop.is_set():
            began = time.monotonic()
            moved = self._round(connection)
            took = time.monotonic() - began
            idle_ms = self.poll_ms if moved else min(IDLE_MS_MAX, idle_ms * 2)
            if time.monotonic() - refreshed > REFRESH_SECONDS:
                self._refresh(connection)
                for projection in self._projections:
                    tidy(connection, projection)
                refreshed = time.monotonic()
            # What a round takes is part of the pause: a busy ledger is visible the sooner. But the
            # busier it is, the more a round takes in: few large ones cost far less than many.
            pause = max(idle_ms / 1_000 - took, took * max(1.0, moved / CROWDED_EVENTS))
            self._stop.wait(0.0 if self._is_behind else min(pause, BUSY_SECONDS_MAX))

    def _refresh(self, connection: Connection[Any]) -> None:
        """Read where the projections stand. One that a rebuild has moved goes on from there."""
        positions = positions_of(connection, [follower.name for follower in self._followers])
        head = self.store.max_position()
        for follower in self._followers:
            position = positions.get(follower.name, 0)
            if position != follower.position:
                follower.position, follower.failure = position, None
            if position > head and follower.failure is None:
                error = f"the ledger ends at position {head}, before this projection: rebuild it"
                self._fail(connection, follower, Failure(position, None, error))

    def _round(self, connection: Connection[Any]) -> int:
        """Take every projection one batch further. Return how many events the largest had."""
        standing: dict[int, list[Follower]] = {}
        for follower in self._followers:
            if follower.failure is None:
                standing.setdefault(follower.position, []).append(follower)
        moved = 0
        self._is_behind = False
        for position, followers in sorted(standing.items()):
            batch = self._read(connection, position, followers)
            if batch:
                self._apply(connection, followers, batch)
                moved = max(moved, len(batch))
        return moved

    def _read(
        self, connection: Connection[Any], position: int, followers: list[Follower]
    ) -> list[Recorded]:
        """Return the next batch; up to the first event that this version of Scrip cannot read."""
        limit = self.batch_max
        while True:
            try:
                return self._next(position, limit)
            except (UnknownEvent, msgspec.MsgspecError) as error:
                if limit == 1:
                    row = connection.execute(NEXT_EVENT, {"position": position}).fetchone()
                    at, name = row or (position + 1, None)
                    cause = Failure(at, name, str(error))
                    for follower in followers:
                        self._fail(connection, follower, cause)
                    return []
                limit = max(1, limit // 2)

    def _next(self, position: int, limit: int) -> list[Recorded]:
        """Read a batch, and begin to read the one after it if this one is full."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == position:
            batch = ahead[1].result()
        else:
            batch = self.store.events_after(position, limit)
        if len(batch) == self.batch_max:
            self._is_behind = True
            last = batch[-1].position
            self._ahead = (last, self._reader.submit(self.store.events_after, last, limit))
        return batch

    def _apply(
        self, connection: Connection[Any], followers: list[Follower], batch: list[Recorded]
    ) -> None:
        """Apply a batch to all of them at once. If that fails, to each alone, and what it can take.

        Whichever cannot take all takes what there is before the very event at which it fails.
        """
        try:
            self._write(connection, followers, batch)
        except TRANSIENT:
            raise
        except Exception as error:  # noqa: BLE001 - a bug stops one projection, and no other
            if len(followers) > 1:
                for follower in followers:
                    self._apply(connection, [follower], batch)
                return
            (follower,) = followers
            if len(batch) == 1:
                cause = f"{type(error).__name__}: {error}"
                self._fail(connection, follower, Failure(batch[0].position, batch[0].name, cause))
                return
            middle = len(batch) // 2
            self._apply(connection, followers, batch[:middle])
            if follower.failure is None and follower.position == batch[middle - 1].position:
                self._apply(connection, followers, batch[middle:])

    def _write(
        self, connection: Connection[Any], followers: list[Follower], batch: list[Recorded]
    ) -> None:
        """Apply a batch to all that still stand before it, in one transaction."""
        with connection.transaction():
            found = free_positions(connection, [follower.name for follower in followers])
            there = [one for one in followers if found.get(one.name) == one.position]
            if there:
                write_batch(self._recorder, connection, [one.projection for one in there], batch)
        for follower in there:
            found[follower.name] = batch[-1].position
        for follower in followers:
            # Where there is none, a rebuild is switching its tables just now.
            follower.position = found.get(follower.name, follower.position)

    def _fail(self, connection: Connection[Any], follower: Follower, failure: Failure) -> None:
        follower.failure = failure
        name = follower.projection.name
        log.error(
            "projection.stopped",
            projection=name,
            position=failure.position,
            event_name=failure.event,
            error=failure.error,
        )
        parameters = {
            "projection": follower.name,
            "position": failure.position,
            "event": failure.event,
            "error": failure.error[:2_000],
        }
        connection.execute(FAIL, parameters)
