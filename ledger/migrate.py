"""Migrations: plain SQL, forward only, one at a time under a lock, by the owner's role."""

from __future__ import annotations

from importlib.resources import files
from typing import LiteralString, cast

import psycopg
from psycopg import sql

LOCK = 7_305_804_385_212
"""The advisory lock of whoever migrates: any number of processes may start at once."""

CREATE_SCHEMA = """
CREATE SCHEMA IF NOT EXISTS scrip
"""
CREATE_VERSIONS = """
CREATE TABLE IF NOT EXISTS scrip.schema_versions (
    name text PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
SELECT_VERSIONS = "SELECT name FROM scrip.schema_versions ORDER BY name"
INSERT_VERSION = "INSERT INTO scrip.schema_versions (name) VALUES (%(name)s)"


class MigrationRefused(Exception):
    """The database has migrations that this version of Scrip does not know."""


def known_migrations() -> list[str]:
    """Return the names of all migrations, in the order in which they are applied."""
    folder = files("ledger") / "migrations"
    return sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))


def migrate(owner_url: str, app_role: str) -> list[str]:
    """Bring the schema up to date and return the names of the migrations applied now.

    `app_role` is the role of the services: it is granted what they need and nothing else.
    Raises MigrationRefused where the database is newer than this code.
    """
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%(lock)s)", {"lock": LOCK})
        connection.execute(CREATE_SCHEMA)
        connection.execute(CREATE_VERSIONS)
        applied = {name for (name,) in connection.execute(SELECT_VERSIONS)}
        unknown = applied - set(known_migrations())
        if unknown:
            raise MigrationRefused(f"the database has unknown migrations: {sorted(unknown)}")
        missing = [name for name in known_migrations() if name not in applied]
        for name in missing:
            _apply(connection, name, app_role)
        return missing


def _apply(connection: psycopg.Connection, name: str, app_role: str) -> None:
    text = (files("ledger") / "migrations" / name).read_text("utf-8")
    statements = sql.SQL(cast("LiteralString", text)).format(app_role=sql.Identifier(app_role))  # type: ignore[redundant-cast]
    with connection.transaction():
        connection.execute(statements)
        connection.execute(INSERT_VERSION, {"name": name})
