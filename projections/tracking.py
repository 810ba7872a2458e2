"""Where each projection stands: a row written in the same transaction as the projection's rows.

A position that does not advance is refused, so that each event counts exactly once.
"""

from __future__ import annotations

from typing import Any

from eventsourcing.persistence import Tracking
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
POSITION_IF_FREE = """
SELECT notification_id FROM projections.tracking
WHERE application_name = %(name)s FOR UPDATE SKIP LOCKED
"""
POSITION_LOCKED = """
SELECT notification_id FROM projections.tracking WHERE application_name = %(name)s FOR UPDATE
"""


class TrackingRecorder(PostgresTrackingRecorder):
    """The library's tracking recorder, with its table among the projections."""

    def __init__(self, datastore: PostgresDatastore) -> None:
        """Use the ledger's datastore; only cursors that are passed in are written with."""
        super().__init__(datastore, tracking_table_name="tracking")
        self.insert_tracking_statement = SQL(
            "INSERT INTO projections.tracking AS t"
            " VALUES (%(application_name)s, %(notification_id)s)"
            " ON CONFLICT (application_name) DO UPDATE SET notification_id = %(notification_id)s"
            " WHERE t.notification_id < %(notification_id)s"
            " RETURNING notification_id"
        ).format()
        self.max_tracking_id_statement = SQL(
            "SELECT max(notification_id) FROM projections.tracking WHERE application_name = %s"
        ).format()

    def create_table(self) -> None:
        """Do nothing: the tables are made together, see `projections.tables`."""

    def advance(self, cursor: Cursor[Any], name: str, position: int) -> None:
        """Move a projection to `position`, in the caller's transaction.

        Raises the library's IntegrityError where the projection is there already, or beyond.
        """
        self._insert_tracking(cursor, Tracking(name, position))


def position_of(connection: Connection[Any], name: str) -> int:
    """Return the position that is tracked under this name, 0 if none is."""
    row = connection.execute(POSITION, {"name": name}).fetchone()
    return row[0] if row else 0


async def reached(conn: AsyncConnection[Any], name: str) -> int:
    """Return how far a projection has come: all events up to this position are in its rows."""
    row = await (await conn.execute(POSITION, {"name": find(name).tracked_as})).fetchone()
    return row[0] if row else 0
