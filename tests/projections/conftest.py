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

askers: dict[Store, "Asker"] = {}


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
    close(opened)


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
    close(store)
    postgres_server.drop_database(urls.name)


class Asker:
    """Asks projections as the API does: on an asynchronous connection, which it keeps."""

    def __init__(self, store: Store) -> None:
        settings = store.recorder.datastore.pool.kwargs
        names = ("dbname", "host", "port", "user", "password")
        self.url = {name: settings[name] for name in names}  # type: ignore[index]
        self.loop = asyncio.Runner()
        self.connection: AsyncConnection[Any] | None = None

    def ask(self, question: Callable[[AsyncConnection[Any]], Awaitable[T]]) -> T:
        async def answer() -> T:
            if self.connection is None:
                self.connection = await AsyncConnection.connect(**self.url, autocommit=True)
            return await question(self.connection)

        return self.loop.run(answer())

    def close(self) -> None:
        if self.connection is not None:
            self.loop.run(self.connection.close())
        self.loop.close()


def ask(store: Store, question: Callable[[AsyncConnection[Any]], Awaitable[T]]) -> T:
    """Ask once, over a connection that is kept for as long as the store is open."""
    if store not in askers:
        askers[store] = Asker(store)
    return askers[store].ask(question)


def close(store: Store) -> None:
    """Close a store, and the connection over which it was asked."""
    asker = askers.pop(store, None)
    if asker is not None:
        asker.close()
    store.close()
