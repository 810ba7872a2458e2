"""One running service for all tests of the room; each test has a tenant of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ledger.migrate import migrate
from scrip.embedded import DatabaseUrls, EmbeddedPostgres
from tests.api.room import Service, Tenant, fresh


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
