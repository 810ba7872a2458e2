"""One running service for all tests of the room; each test has a tenant of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.migrate import migrate
from scrip.embedded import DatabaseUrls, EmbeddedNats, EmbeddedPostgres
from tests.api.nats_room import Asker, asking, until_nats_is, way_to
from tests.api.room import Service, Tenant, fresh
from tests.nats_streams import delete_streams


@pytest.fixture(scope="session")
def api_template(postgres_server: EmbeddedPostgres) -> str:
    """Return the name of a database that is migrated and empty."""
    urls = postgres_server.create_database("api_template")
    migrate(urls.owner_url, "scrip_app")
    return urls.name


@pytest.fixture(scope="session")
def service(postgres_server: EmbeddedPostgres, api_template: str) -> Iterator[Service]:
    """Run the service."""
    urls = postgres_server.create_database("api_shared", api_template)
    with Service(urls) as running:
        yield running


@pytest.fixture
def tenant(service: Service) -> Iterator[Tenant]:
    """Return a tenant of the test's own."""
    tenant = service.tenant()
    yield tenant
    tenant.close()


@pytest.fixture
def own_database(postgres_server: EmbeddedPostgres, api_template: str) -> Iterator[DatabaseUrls]:
    """Return an empty database for a test that runs a service of its own."""
    urls = postgres_server.create_database(fresh("api_own"), api_template)
    yield urls
    postgres_server.drop_database(urls.name)


@pytest.fixture(scope="module")
def nats_service(
    postgres_server: EmbeddedPostgres, api_template: str, nats_server: EmbeddedNats
) -> Iterator[Service]:
    """Run a service that answers over NATS too. No other is there while it is."""
    asyncio.run(delete_streams(nats_server.url))
    urls = postgres_server.create_database(fresh("api_nats"), api_template)
    with Service(urls, nats=way_to(nats_server.url)) as running:
        until_nats_is(running)
        yield running
    postgres_server.drop_database(urls.name)


@pytest.fixture(scope="module")
def nats(nats_server: EmbeddedNats, nats_service: Service) -> Iterator[Asker]:
    """Ask that service over NATS."""
    assert nats_service.base_url
    with asking(nats_server.url) as asker:
        yield asker


@pytest.fixture
def own_nats(tmp_path: Path) -> Iterator[EmbeddedNats]:
    """Run a nats-server for one test, which may kill it."""
    with EmbeddedNats(tmp_path / "nats") as server:
        yield server
