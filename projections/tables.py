"""Making the tables that are missing, and the connections that fill them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Final

from psycopg import Connection

from ledger.records import Recorded
from ledger.store import Store
from projections.arrays import register
from projections.projection import Projection, Target, create, drop, exists, index
from projections.registry import PROJECTIONS
from projections.tracking import BEGIN, CREATE_TABLES, FORGET, TrackingRecorder, check_advanced

LOCKS: Final = 730_580
RUNNER_LOCK, TABLES_LOCK = 1, 2
REBUILD_LOCKS: Final = 730_581
NEXT, CHECK = "_next", "_check"
"""What the names of tables beside the live ones end in: to replace them, to compare."""

STATEMENT_TIMEOUT_MS = 120_000
LOCK_TIMEOUT_MS = 2_000
SETTINGS = """
SELECT set_config('application_name', 'scrip projections', false),
    set_config('statement_timeout', %(statement)s, false),
    set_config('lock_timeout', %(lock)s, false),
    set_config('timezone', 'UTC', false),
    -- What a crash takes back is replayed: rows and position go together, and only they.
    set_config('synchronous_commit', 'off', false)
"""
LOCK_TABLES = "SELECT pg_advisory_xact_lock(%(lock)s, %(number)s)"
TRY_LOCK = "SELECT pg_try_advisory_lock(%(lock)s, %(number)s)"
UNLOCK = "SELECT pg_advisory_unlock(%(lock)s, %(number)s)"


def connect(store: Store) -> Connection[Any]:
    """Open a connection of one's own to the ledger's database, for writing projections."""
    connection = store.connect()
    timeouts = {"statement": str(STATEMENT_TIMEOUT_MS), "lock": str(LOCK_TIMEOUT_MS)}
    connection.execute(SETTINGS, timeouts)
    register(connection)
    return connection


def prepare(
    connection: Connection[Any], projections: tuple[Projection, ...] = PROJECTIONS
) -> list[str]:
    """Make the tables that are missing, empty and at position 0; return whose they are.

    Any number of processes may do this at once.
    """
    made = []
    with connection.transaction():
        connection.execute(LOCK_TABLES, {"lock": LOCKS, "number": TABLES_LOCK})
        connection.execute(CREATE_TABLES)
        for projection in projections:
            if not exists(connection, projection):
                drop(connection, projection)
                connection.execute(FORGET, {"name": projection.tracked_as})
                create(connection, projection)
                index(connection, projection)
                made.append(projection.name)
            connection.execute(BEGIN, {"name": projection.tracked_as})
    return made


def write_batch(
    recorder: TrackingRecorder,
    connection: Connection[Any],
    projections: Sequence[Projection],
    batch: Sequence[Recorded],
) -> None:
    """Apply a batch to projections that stand before it, and move them over it.

    All in the caller's transaction. While the server works on one, the next is folded. Raises
    Inconsistent, the library's IntegrityError, and whatever else one of them cannot digest.
    """
    position = batch[-1].position
    names = [projection.tracked_as for projection in projections]
    targets = [Target(connection, projection) for projection in projections]
    with connection.pipeline():
        moved = recorder.advance(connection, names, position)
        for projection, target in zip(projections, targets, strict=True):
            projection.apply(target, batch)
    check_advanced(moved, len(names))
    for target in targets:
        target.check()


def claim(connection: Connection[Any], lock: int, number: int) -> bool:
    """Take an advisory lock for as long as the connection lives, unless somebody has it."""
    row = connection.execute(TRY_LOCK, {"lock": lock, "number": number}).fetchone()
    return bool(row and row[0])


def unclaim(connection: Connection[Any], lock: int, number: int) -> None:
    """Give an advisory lock back."""
    connection.execute(UNLOCK, {"lock": lock, "number": number})


def rebuild_number(projection: Projection, suffix: str) -> int:
    """Return the number of the lock under which tables with this suffix are built."""
    return zlib.crc32(f"{projection.name}{suffix}".encode()) & 0x7FFF_FFFF
