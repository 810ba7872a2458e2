"""A migrated database for each test, a copy of one made once."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from typing import Any, TypeVar

import pytest
from psycopg import AsyncConnection

from ledger.migrate import migrate
from ledger.store import Store
from projections.runner import Runner
from scrip.embedded import DatabaseUrls, EmbeddedPostgres
from tests.projections.histories import FEW, History

TEMPLATE = "projections_template"
APP_ROLE = "scrip_app"
numbers = count(1)
T = TypeVar("T")

Ask = Callable[[Callable[[AsyncConnection[Any]], Awaitable[T]]], T]


@pytest.fixture(scope="session")
def template(postgres_server: EmbeddedPostgres) -> str:
    migrate(postgres_server.create_database(TEMPLATE).owner_url, APP_ROLE)
    return TEMPLATE


@pytest.fixture
def database(postgres_server: EmbeddedPostgres, template: str) -> Iterator[DatabaseUrls]:
    urls = postgres_server.create_database(f"projections_{next(numbers)}", template)
    yield urls
    postgres_server.drop_database(urls.name)


@pytest.fixture
def store(database: DatabaseUrls) -> Iterator[Store]:
    opened = Store.open(database.app_url)
    yield opened
    opened.close()


@pytest.fixture
def history(store: Store) -> Iterator[History]:
    with History(store, seed=7) as played:
        yield played


@pytest.fixture(scope="module")
def told(postgres_server: EmbeddedPostgres, template: str) -> Iterator[Store]:
    """A ledger with a history, and projections that have followed it; for tests that only read."""
    urls = postgres_server.create_database(f"projections_{next(numbers)}", template)
    store = Store.open(urls.app_url)
    runner = Runner(store)
    runner.start()
    with History(store, seed=11) as played:
        played.play(FEW)
        played.catch_up()
    runner.close()
    yield store
    store.close()
    postgres_server.drop_database(urls.name)


def ask(store: Store, question: Callable[[AsyncConnection[Any]], Awaitable[T]]) -> T:
    """Ask a projection as the API does: on an asynchronous connection."""

    async def answer() -> T:
        settings = store.recorder.datastore.pool.kwargs
        url = {name: settings[name] for name in ("dbname", "host", "port", "user", "password")}
        async with await AsyncConnection.connect(**url, autocommit=True) as connection:
            return await question(connection)

    return asyncio.run(answer())
