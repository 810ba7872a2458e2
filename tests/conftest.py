"""What every room's tests may use: a real PostgreSQL and a real nats-server, one per worker."""

import signal
from collections.abc import Iterator

import pytest

from ledger.migrate import migrate
from scrip.embedded import EmbeddedNats, EmbeddedPostgres

# Whoever was started in the background ignores Ctrl-C, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """Run PostgreSQL; make databases on it with `create_database`, best from a template."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedNats]:
    """Run nats-server with JetStream, which writes to disk before it acknowledges."""
    with EmbeddedNats(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(scope="session")
def ledger_template(postgres_server: EmbeddedPostgres) -> str:
    """Return the name of a database with our schema, to make others from."""
    urls = postgres_server.create_database("migrated_template")
    migrate(urls.owner_url, "scrip_app")
    return urls.name
