"""Where each projection stands: a row written in the same transaction as the projection's rows.

A position that does not advance is refused, so that each event counts exactly once.
"""

from __future__ import annotations

from typing import Any

from eventsourcing.persistence import IntegrityError
from eventsourcing.postgres import PostgresDatastore, PostgresTrackingRecorder
from psycopg import AsyncConnection, Connection, Cursor
from psycopg.sql import SQL

from projections.registry import find

CREATE_TABLES = """
CREATE TABLE IF NOT EXISTS projections.tracking (
    application_name text PRIMARY KEY,
    notification_id bigint NOT NULL CHECK (notification_id >= 0)
) WITH (fillfactor = 50);
CREATE TABLE IF NOT EXISTS projections.failures (
    projection text PRIMARY KEY,
    position bigint NOT NULL,
    event text,
    error text NOT NULL,
    failed_at timestamptz NOT NULL DEFAULT now()
)
"""
BEGIN = "INSERT INTO projections.tracking VALUES (%(name)s, 0) ON CONFLICT DO NOTHING"
FORGET = "DELETE FROM projections.tracking WHERE application_name = %(name)s"
MOVE = """
UPDATE projections.tracking SET notification_id = %(position)s WHERE application_name = %(name)s
"""
RECOVERED = "DELETE FROM projections.failures WHERE projection = %(name)s"
POSITION = "SELECT notification_id FROM projections.tracking WHERE application_name = %(name)s"
POSITIONS = """
SELECT application_name, notification_id FROM projections.tracking
WHERE application_name = ANY(%(names)s)
"""
POSITIONS_IF_FREE = POSITIONS + "FOR UPDATE SKIP LOCKED"
POSITION_LOCKED = """
SELECT notification_id FROM projections.tracking WHERE application_name = %(name)s FOR UPDATE
"""


class TrackingRecorder(PostgresTrackingRecorder):
    """The library's tracking recorder, with its table among the projections."""

    def __init__(self, datastore: PostgresDatastore) -> None:
        """Use the ledger's datastore; what is written goes over connections that are passed in."""
        super().__init__(datastore, tracking_table_name="tracking")
        self.insert_tracking_statement = SQL(
            # All projections that stand together move together: their rows are there already.
            "UPDATE projections.tracking SET notification_id = %(notification_id)s"
            " WHERE application_name = ANY(%(application_names)s)"
            " AND notification_id < %(notification_id)s"
        ).format()
        self.max_tracking_id_statement = SQL(
            "SELECT max(notification_id) FROM projections.tracking WHERE application_name = %s"
        ).format()

    def create_table(self) -> None:
        """Do nothing: the tables are made together, see `projections.tables`."""

    def advance(self, connection: Connection[Any], names: list[str], position: int) -> Cursor[Any]:
        """Move projections to `position`, in the caller's transaction; in a pipeline, later.

        `check_advanced` tells whether they were, from the cursor that this returns.
        """
        parameters = {"application_names": names, "notification_id": position}
        return connection.execute(self.insert_tracking_statement, parameters, prepare=True)


def check_advanced(cursor: Cursor[Any], projections: int) -> None:
    """Raise the library's IntegrityError where one was at its new position already, or beyond."""
    if cursor.rowcount != projections:
        raise IntegrityError("a projection was to be moved to where it has been already")


def position_of(connection: Connection[Any], name: str) -> int:
    """Return the position that is tracked under this name, 0 if none is."""
    row = connection.execute(POSITION, {"name": name}).fetchone()
    return row[0] if row else 0


def free_positions(connection: Connection[Any], names: list[str]) -> dict[str, int]:
    """Lock the tracking rows of these names, and return what they say, but for those in use."""
    return dict(connection.execute(POSITIONS_IF_FREE, {"names": names}, prepare=True).fetchall())


def positions_of(connection: Connection[Any], names: list[str]) -> dict[str, int]:
    """Return the positions that are tracked under these names, of those there are."""
    return dict(connection.execute(POSITIONS, {"names": names}, prepare=True).fetchall())


async def reached(conn: AsyncConnection[Any], name: str) -> int:
    """Return how far a projection has come: all events up to this position are in its rows."""
    row = await (await conn.execute(POSITION, {"name": find(name).tracked_as})).fetchone()
    return row[0] if row else 0
