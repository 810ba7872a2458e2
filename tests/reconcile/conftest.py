"""A shop for each test: a ledger, a nats-server, and pretended providers where people pay."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from scrip.embedded import EmbeddedNats, EmbeddedPostgres
from scrip.provider_server.server import ProviderServer
from tests.nats_streams import delete_streams
from tests.reconcile.shop import Shop

_numbers = itertools.count(1)


@pytest.fixture
def shop(
    postgres_server: EmbeddedPostgres,
    nats_server: EmbeddedNats,
    ledger_template: str,
    tmp_path: Path,
) -> Iterator[Shop]:
    """Open a shop that sells a plan and a pack, and has one account."""
    name = f"reconcile_{next(_numbers)}"
    urls = postgres_server.create_database(name, ledger_template)
    asyncio.run(delete_streams(nats_server.url))
    with ProviderServer() as providers:
        shop = Shop(urls, nats_server.url, providers, tmp_path)
        asyncio.run(shop.open())
        yield shop
    postgres_server.drop_database(name)
