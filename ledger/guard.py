"""What must be so before a service may start. Wrong settings lose money silently: refused."""

from __future__ import annotations

from typing import Any

from psycopg import Connection, Cursor
from psycopg.errors import InsufficientPrivilege, UndefinedTable
from psycopg.rows import scalar_row

from ledger.migrate import SELECT_VERSIONS, known_migrations

REQUIRED = {
    "fsync": {"on"},
    "full_page_writes": {"on"},
    "synchronous_commit": {"on", "remote_apply"},
    "server_encoding": {"UTF8"},
}
"""Each setting and its safe values. With others, an acknowledged commit can be lost, or misread."""

SELECT_MAY_CHANGE = """
SELECT true WHERE has_any_column_privilege('scrip.ledger_events', 'UPDATE')
    OR has_table_privilege('scrip.ledger_events', 'DELETE, TRUNCATE, TRIGGER')
"""


class RefusedToStart(Exception):
    """The database is not fit to hold a ledger; the text says why and what to do."""


def check(connection: Connection[Any]) -> None:
    """Raise RefusedToStart unless the database keeps what it acknowledges and has our schema."""
    if connection.info.encoding == "ascii":
        # It gives text back as bytes: no comparison below would be right.
        raise RefusedToStart("PostgreSQL has server_encoding = SQL_ASCII; it must be UTF8")
    with connection.cursor(row_factory=scalar_row) as cursor:
        for setting, safe in REQUIRED.items():
            parameters = {"setting": setting}
            value = cursor.execute("SELECT current_setting(%(setting)s)", parameters).fetchone()
            if value not in safe:
                wanted = " or ".join(sorted(safe))
                raise RefusedToStart(f"PostgreSQL has {setting} = {value}; it must be {wanted}")
        _check_schema(cursor)


def _check_schema(cursor: Cursor[str]) -> None:
    try:
        applied = cursor.execute(SELECT_VERSIONS).fetchall()
    except (UndefinedTable, InsufficientPrivilege) as error:
        raise RefusedToStart("the database has no schema yet; run: scrip migrate") from error
    known = known_migrations()
    if applied != known:
        newer = sorted(set(applied) - set(known))
        advice = "use a newer Scrip" if newer else "run: scrip migrate"
        raise RefusedToStart(f"the schema is at {applied}, this Scrip needs {known}; {advice}")
    if cursor.execute(SELECT_MAY_CHANGE).fetchone():
        raise RefusedToStart("this role may change events; connect as the services' role")
