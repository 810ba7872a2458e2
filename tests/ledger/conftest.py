"""A migrated database for each test, cloned from a template; stores and writers on it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import psycopg
import pytest

from ledger.migrate import migrate
from ledger.store import Store
from ledger.writer import Writer
from scrip.embedded import DatabaseUrls, EmbeddedPostgres
from tests.ledger.room import Clock

APP = "scrip_app"
TEMPLATE = "ledger_template"
_numbers = itertools.count(1)


class NewWriter(Protocol):
    """Starts a writer with a store of its own; both end with the test."""

    def __call__(self, url: str = "", /, **settings: Any) -> Writer: ...


@pytest.fixture(scope="session")
def template(postgres_server: EmbeddedPostgres) -> str:
    """Return the name of a database that is migrated and empty."""
    urls = postgres_server.create_database(TEMPLATE)
    migrate(urls.owner_url, APP)
    return TEMPLATE


@pytest.fixture
def database(postgres_server: EmbeddedPostgres, template: str) -> Iterator[DatabaseUrls]:
    """Return a migrated, empty database of the test's own."""
    name = f"ledger_{next(_numbers)}"
    yield postgres_server.create_database(name, template)
    postgres_server.drop_database(name)


@pytest.fixture
def clock() -> Clock:
    """Return a clock that is set by hand."""
    return Clock()


@pytest.fixture
def store(database: DatabaseUrls) -> Iterator[Store]:
    """Return the store, as the services' role."""
    store = Store.open(database.app_url)
    yield store
    store.close()


@pytest.fixture
def new_writer(database: DatabaseUrls, clock: Clock) -> Iterator[NewWriter]:
    """Return a way to start writers, each with a store of its own, as if in other processes."""
    with ExitStack() as stack:

        def start(url: str = "", /, **settings: Any) -> Writer:
            limits = {
                name: settings.pop(name)
                for name in ("statement_timeout_ms", "lock_timeout_ms", "pool_size")
                if name in settings
            }
            store = Store.open(url or database.app_url, **limits)
            stack.callback(store.close)
            return stack.enter_context(Writer(store, **{"clock": clock, **settings}))

        yield start


@pytest.fixture
def writer(new_writer: NewWriter) -> Writer:
    """Return a running writer, on the adjustable clock."""
    return new_writer()


@pytest.fixture
def owner(database: DatabaseUrls) -> Iterator[psycopg.Connection[Any]]:
    """Return a connection as the owner, who may do everything."""
    with psycopg.connect(database.owner_url, autocommit=True) as connection:
        yield connection
