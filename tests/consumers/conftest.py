"""A room for each test: a database of its own, a writer, and a nats-server without streams."""

import asyncio
import inspect
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger.store import Store
from ledger.writer import Writer
from scrip.embedded import EmbeddedNats, EmbeddedPostgres
from tests.consumers.room import Room
from tests.consumers.settling_room import Clock, Dated
from tests.nats_streams import delete_streams

TEST_SECONDS_MAX = 240
_numbers = itertools.count(1)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run tests that are coroutines."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments: dict[str, Any] = {name: pyfuncitem.funcargs[name] for name in names}

    async def run() -> None:
        async with asyncio.timeout(TEST_SECONDS_MAX):
            await pyfuncitem.obj(**arguments)

    asyncio.run(run())
    return True


@pytest.fixture
def room(
    postgres_server: EmbeddedPostgres, nats_server: EmbeddedNats, ledger_template: str
) -> Iterator[Room]:
    """Give a test its own database and writer, and the shared nats-server, emptied."""
    name = f"consumers_{next(_numbers)}"
    urls = postgres_server.create_database(name, ledger_template)
    asyncio.run(delete_streams(nats_server.url))
    with Room(urls, nats_server) as room:
        yield room
    postgres_server.drop_database(name)


@pytest.fixture
def dated(postgres_server: EmbeddedPostgres, ledger_template: str) -> Iterator[Dated]:
    """Give a test its own database, and a writer whose clock it sets."""
    name = f"consumers_{next(_numbers)}"
    urls = postgres_server.create_database(name, ledger_template)
    clock = Clock()
    store = Store.open(urls.app_url)
    with Writer(store, clock=clock) as writer:
        yield Dated(urls, writer, clock)
    store.close()
    postgres_server.drop_database(name)


@pytest.fixture
def own_nats(tmp_path: Path) -> Iterator[EmbeddedNats]:
    """Run a nats-server for one test, which may kill it."""
    with EmbeddedNats(tmp_path / "nats") as server:
        yield server


@pytest.fixture
def own_room(
    postgres_server: EmbeddedPostgres, own_nats: EmbeddedNats, ledger_template: str
) -> Iterator[Room]:
    """Give a test its own database, writer and nats-server."""
    name = f"consumers_{next(_numbers)}"
    urls = postgres_server.create_database(name, ledger_template)
    with Room(urls, own_nats) as room:
        yield room
    postgres_server.drop_database(name)
