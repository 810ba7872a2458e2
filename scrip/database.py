"""The database of DATABASE_URL for a command: what it refuses is told in words, and ends with 1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from scrip.logging import configure_logging
from scrip.settings import read_settings

if TYPE_CHECKING:
    from psycopg import Connection

    from ledger.store import Store

CONNECT_SECONDS_MAX = 10
STATEMENT_SECONDS_MAX = 60


@contextmanager
def database() -> Iterator[Connection[Any]]:
    """Connect, for as long as it is needed."""
    from psycopg import Connection, Error  # noqa: PLC0415 - not before it is needed

    url = read_settings().database_url.get_secret_value()
    try:
        with Connection.connect(
            url, autocommit=True, connect_timeout=CONNECT_SECONDS_MAX
        ) as connection:
            yield connection
    except Error as error:
        typer.echo(f"the database refused: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(1) from None


@contextmanager
def ledger_store() -> Iterator[Store]:
    """Open the ledger, with time for reading much at once."""
    from eventsourcing.persistence import PersistenceError  # noqa: PLC0415 - not before needed
    from psycopg import OperationalError  # noqa: PLC0415

    from ledger.guard import RefusedToStart  # noqa: PLC0415
    from ledger.store import Store  # noqa: PLC0415

    settings = read_settings()
    configure_logging(settings.log_level, settings.log_format)
    try:
        store = Store.open(
            settings.database_url.get_secret_value(),
            statement_timeout_ms=STATEMENT_SECONDS_MAX * 1_000,
        )
    except (RefusedToStart, PersistenceError, OperationalError) as refusal:
        typer.echo(" ".join(str(refusal).split()), err=True)
        raise typer.Exit(1) from None
    try:
        yield store
    finally:
        store.close()
