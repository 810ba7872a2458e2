"""Building a projection again from the first event: beside the live one, compared, then switched.

The runner and the writers go on meanwhile. What a killed rebuild leaves behind, the next one drops.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final

import psycopg
from msgspec import Struct
from psycopg import Connection
from psycopg.sql import SQL, Identifier

from ledger.records import Recorded
from ledger.store import Store
from projections.compare import Difference, compare, count_rows
from projections.projection import SCHEMA, Filling, Projection, create, drop, index
from projections.registry import find
from projections.tables import (
    CHECK,
    NEXT,
    REBUILD_LOCKS,
    claim,
    connect,
    prepare,
    rebuild_number,
    unclaim,
)
from projections.tracking import (
    BEGIN,
    FORGET,
    MOVE,
    POSITION_LOCKED,
    RECOVERED,
    TrackingRecorder,
    check_advanced,
    position_of,
)

BATCH_MAX: Final = 20_000
BATCH_FIRST: Final = 1_000
DIFFERENCES_SHOWN: Final = 100
SWITCH_ATTEMPTS: Final = 60
SWITCH_PAUSE_SECONDS: Final = 0.5

Progress = Callable[[int, int], None]

RENAME = SQL("ALTER TABLE {} RENAME TO {}")
LOCK_LIVE = SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE")


class RebuildRunning(Exception):
    """This projection is being rebuilt or checked already, by another process."""


class RebuildReport(Struct, frozen=True, kw_only=True):
    """What a rebuild did. `differences` are the first of the `differing` rows that were wrong.

    `compared_at` is the position at which the rows were compared; None if they could not be, since
    the live projection was ahead of the ledger.
    """

    name: str
    position: int
    rows: int
    seconds: float
    compared_at: int | None
    differing: int
    differences: tuple[Difference, ...]


class Copy:
    """A projection's tables beside the live ones, being filled from the ledger."""

    def __init__(
        self, store: Store, connection: Connection[Any], projection: Projection, suffix: str
    ) -> None:
        """Fill over `connection`; call `begin` first."""
        self.store = store
        self.connection = connection
        self.projection = projection
        self.suffix = suffix
        self.name = projection.tracked_as + suffix
        self.position = 0
        self._recorder = TrackingRecorder(store.recorder.datastore)

    def begin(self) -> None:
        """Make empty tables in place of what may be left of an earlier attempt."""
        self.discard()
        with self.connection.transaction():
            create(self.connection, self.projection, self.suffix)
            self.connection.execute(BEGIN, {"name": self.name})

    def discard(self) -> None:
        """Drop the tables, and forget where they stood."""
        with self.connection.transaction():
            drop(self.connection, self.projection, self.suffix)
            self.connection.execute(FORGET, {"name": self.name})

    def fill(self, until: int, progress: Progress | None = None) -> None:
        """Apply all events up to position `until`, reading the next batch while one is written."""
        if self.position >= until:
            return
        with ThreadPoolExecutor(1, "rebuild") as reader:
            coming = reader.submit(self.store.events_after, self.position, BATCH_FIRST)
            while batch := _up_to(until, coming.result()):
                last = batch[-1].position
                if last < until:
                    coming = reader.submit(self.store.events_after, last, BATCH_MAX)
                self._write(batch)
                if progress is not None:
                    progress(self.position, until)
                if last >= until:
                    break

    def _write(self, batch: list[Recorded]) -> None:
        position = batch[-1].position
        target = Filling(self.connection, self.projection, self.suffix)
        with self.connection.transaction():
            check_advanced(self._recorder.advance(self.connection, [self.name], position), 1)
            self.projection.apply(target, batch)
            target.check()
        self.position = position


def _up_to(until: int, batch: list[Recorded]) -> list[Recorded]:
    if batch and batch[-1].position > until:
        return [recorded for recorded in batch if recorded.position <= until]
    return batch


def rebuild(store: Store, name: str, *, progress: Progress | None = None) -> RebuildReport:
    """Build projection `name` again from position 0, compare it with the live one, and switch.

    `progress` is told the position reached and the one to reach. Raises UnknownProjection, and
    RebuildRunning if another process is at it.
    """
    projection = find(name)
    started = time.monotonic()
    with _copy(store, projection, NEXT) as copy:
        live = position_of(copy.connection, projection.tracked_as)
        head = store.max_position()
        copy.fill(min(live, head), progress)
        index(copy.connection, projection, NEXT)
        differing, shown, compared_at = 0, [], None
        if live <= head:
            found = _differences(copy)
            compared_at = next(found)
            shown = list(islice(found, DIFFERENCES_SHOWN))
            differing = len(shown) + sum(1 for _ in found)
        copy.fill(store.max_position(), progress)
        rows = sum(count_rows(copy.connection, table, NEXT) for table in projection.tables)
        _switch(copy)
        return RebuildReport(
            name=name,
            position=copy.position,
            rows=rows,
            seconds=time.monotonic() - started,
            compared_at=compared_at,
            differing=differing,
            differences=tuple(shown),
        )


def differences(
    store: Store, name: str, *, progress: Progress | None = None
) -> Iterator[Difference]:
    """Yield the live rows of projection `name` that are not what its events make of them.

    Raises UnknownProjection, and RebuildRunning if another process is at it.
    """
    projection = find(name)
    with _copy(store, projection, CHECK) as copy:
        live = position_of(copy.connection, projection.tracked_as)
        copy.fill(min(live, store.max_position()), progress)
        found = _differences(copy)
        next(found)
        yield from found


@contextmanager
def _copy(store: Store, projection: Projection, suffix: str) -> Iterator[Copy]:
    with connect(store) as connection:
        number = rebuild_number(projection, suffix)
        if not claim(connection, REBUILD_LOCKS, number):
            raise RebuildRunning(f"projection {projection.name} is being built by another process")
        prepare(connection)
        copy = Copy(store, connection, projection, suffix)
        copy.begin()
        try:
            yield copy
        finally:
            if not connection.closed:
                copy.discard()
                unclaim(connection, REBUILD_LOCKS, number)


def _differences(copy: Copy) -> Iterator[Any]:
    """Yield the position at which rows are compared, then the differences.

    The live rows are read in one snapshot, so that they may go on changing; the copy is brought to
    the very position of that snapshot.
    """
    with connect(copy.store) as live, live.transaction():
        live.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        position = position_of(live, copy.projection.tracked_as)
        copy.fill(position)
        yield position
        with copy.connection.transaction():
            for table in copy.projection.tables:
                yield from compare(live, copy.connection, table, copy.suffix)


def _switch(copy: Copy) -> None:
    """Put the copy in the place of the live tables, at a position that is not behind theirs."""
    for attempt in range(SWITCH_ATTEMPTS):
        try:
            with copy.connection.transaction():
                _switch_once(copy)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            # Somebody reads the old tables at length. Whoever waits behind us must not wait longer.
            if attempt == SWITCH_ATTEMPTS - 1:
                raise
            copy.position = position_of(copy.connection, copy.name)
            time.sleep(SWITCH_PAUSE_SECONDS)
        else:
            return


def _switch_once(copy: Copy) -> None:
    projection, connection = copy.projection, copy.connection
    name = projection.tracked_as
    row = connection.execute(POSITION_LOCKED, {"name": name}).fetchone()
    assert row is not None
    head = copy.store.max_position()
    copy.fill(min(row[0], head))
    connection.execute(
        LOCK_LIVE.format(
            SQL(", ").join(Identifier(SCHEMA, table.name) for table in projection.tables)
        )
    )
    drop(connection, projection)
    for table in projection.tables:
        built = Identifier(SCHEMA, table.name + copy.suffix)
        connection.execute(RENAME.format(built, Identifier(table.name)))
    connection.execute(MOVE, {"name": name, "position": copy.position})
    connection.execute(FORGET, {"name": copy.name})
    connection.execute(RECOVERED, {"name": name})
