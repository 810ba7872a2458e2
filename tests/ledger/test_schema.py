"""What the database enforces, how it comes to be, and when a service refuses to start on it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from ledger.guard import RefusedToStart
from ledger.migrate import MigrationRefused, known_migrations, migrate
from ledger.store import Store
from ledger.writer import Writer
from scrip.embedded import DatabaseUrls, EmbeddedPostgres
from tests.ledger.conftest import APP
from tests.ledger.room import ask, opened

FORBIDDEN: list[LiteralString] = [
    "UPDATE scrip.ledger_events SET tenant = 'other'",
    "UPDATE scrip.ledger_events SET state = state WHERE false",
    "DELETE FROM scrip.ledger_events",
    "TRUNCATE scrip.ledger_events",
    "ALTER TABLE scrip.ledger_events DROP COLUMN hash",
    "ALTER TABLE scrip.ledger_events DISABLE TRIGGER ALL",
    "DROP TABLE scrip.ledger_events",
    "DROP INDEX scrip.ledger_events_key",
    "CREATE RULE r AS ON INSERT TO scrip.ledger_events DO INSTEAD NOTHING",
    (
        "CREATE TRIGGER t BEFORE INSERT ON scrip.ledger_events"
        " FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"
    ),
    (
        "INSERT INTO scrip.ledger_events SELECT * FROM scrip.ledger_events"
        " ON CONFLICT (notification_id) DO UPDATE SET tenant = 'other'"
    ),
    "SELECT * FROM scrip.ledger_events FOR UPDATE",
    "SELECT setval('scrip.ledger_positions', 1)",
    "LOCK TABLE scrip.ledger_events IN EXCLUSIVE MODE",
    "CREATE TABLE scrip.mine (id int)",
    "DROP SCHEMA scrip CASCADE",
    "INSERT INTO scrip.schema_versions VALUES ('9999_mine.sql')",
    "DELETE FROM scrip.tenants",
    "UPDATE scrip.changes SET answer = ''",
    "DELETE FROM scrip.changes",
    "UPDATE scrip.referrals SET referrer = 'me'",
    "DELETE FROM scrip.referrals",
    "SET session_replication_role = replica",
    "SET ROLE scrip_owner",
    "COPY scrip.ledger_events TO PROGRAM 'true'",
]


@pytest.fixture(scope="module")
def untouched(postgres_server: EmbeddedPostgres, template: str) -> Iterator[DatabaseUrls]:
    """Return a database with events, for all that is refused."""
    urls = postgres_server.create_database("ledger_untouched", template)
    store = Store.open(urls.app_url)
    with Writer(store) as writer:
        ask(writer, opened())
    store.close()
    yield urls
    postgres_server.drop_database("ledger_untouched")


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_the_services_role_may_not(statement: LiteralString, untouched: DatabaseUrls) -> None:
    with psycopg.connect(untouched.app_url) as connection, pytest.raises(InsufficientPrivilege):
        connection.execute(statement)


def test_the_services_role_may_make_and_drop_projections(database: DatabaseUrls) -> None:
    with psycopg.connect(database.app_url) as connection:
        connection.execute("CREATE TABLE projections.mine (id int)")
        connection.execute("ALTER TABLE projections.mine ADD COLUMN more int")
        connection.execute("DROP TABLE projections.mine")


# -- migrations ------------------------------------------------------------------------------------


@pytest.fixture
def empty(postgres_server: EmbeddedPostgres) -> Iterator[DatabaseUrls]:
    yield postgres_server.create_database("ledger_empty")
    postgres_server.drop_database("ledger_empty")


def test_migrations_are_applied_once(empty: DatabaseUrls) -> None:
    assert migrate(empty.owner_url, APP) == known_migrations()
    assert migrate(empty.owner_url, APP) == []
    Store.open(empty.app_url).close()


def test_four_processes_may_migrate_at_once(empty: DatabaseUrls) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        applied = pool.starmap_async(migrate, [(empty.owner_url, APP)] * 4).get(60)
    assert sorted(applied) == [[], [], [], known_migrations()]


def test_a_database_that_is_newer_than_the_code_is_left_alone(
    database: DatabaseUrls, owner: psycopg.Connection[Any]
) -> None:
    owner.execute("INSERT INTO scrip.schema_versions (name) VALUES ('9999_later.sql')")
    with pytest.raises(MigrationRefused, match="9999_later"):
        migrate(database.owner_url, APP)
    with pytest.raises(RefusedToStart, match="newer Scrip"):
        Store.open(database.app_url)


def test_a_database_that_is_older_than_the_code_is_refused(
    database: DatabaseUrls, owner: psycopg.Connection[Any]
) -> None:
    owner.execute("DELETE FROM scrip.schema_versions")
    with pytest.raises(RefusedToStart, match="run: scrip migrate"):
        Store.open(database.app_url)


# -- the guard -------------------------------------------------------------------------------------


def test_a_database_without_a_schema_is_refused(empty: DatabaseUrls) -> None:
    with pytest.raises(RefusedToStart, match="no schema yet"):
        Store.open(empty.app_url)


@pytest.mark.parametrize("value", ["off", "local", "remote_write"])
def test_a_database_that_acknowledges_before_it_writes_is_refused(
    value: str, database: DatabaseUrls, owner: psycopg.Connection[Any]
) -> None:
    alter = sql.SQL("ALTER DATABASE {} SET synchronous_commit = {}")
    owner.execute(alter.format(sql.Identifier(database.name), sql.Literal(value)))
    with pytest.raises(RefusedToStart, match=f"synchronous_commit = {value}"):
        Store.open(database.app_url)


def test_an_append_sees_what_was_committed_before_it_had_the_lock_whatever_the_default(
    database: DatabaseUrls, owner: psycopg.Connection[Any]
) -> None:
    alter = sql.SQL("ALTER DATABASE {} SET default_transaction_isolation = 'serializable'")
    owner.execute(alter.format(sql.Identifier(database.name)))
    with (
        closing(Store.open(database.app_url)) as store,
        closing(store.session()) as session,
        session.lock(),
    ):
        found = session.connection.execute("SHOW transaction_isolation").fetchone()
        assert found is not None
        assert found[0] == "read committed"


def test_a_role_that_may_change_events_is_refused(
    database: DatabaseUrls, owner: psycopg.Connection[Any]
) -> None:
    with pytest.raises(RefusedToStart, match="may change events"):
        Store.open(database.owner_url)
    owner.execute("GRANT UPDATE (state) ON scrip.ledger_events TO scrip_app")
    with pytest.raises(RefusedToStart, match="may change events"):
        Store.open(database.app_url)


def test_an_encoding_other_than_utf8_is_refused(postgres_server: EmbeddedPostgres) -> None:
    create = "CREATE DATABASE ledger_ascii ENCODING 'SQL_ASCII' TEMPLATE template0"
    create += " LOCALE_PROVIDER libc LOCALE 'C'"
    with psycopg.connect(postgres_server.superuser_url, autocommit=True) as superuser:
        superuser.execute(create)
    try:
        with pytest.raises(RefusedToStart, match="server_encoding = SQL_ASCII"):
            Store.open(postgres_server.urls("ledger_ascii").app_url)
    finally:
        postgres_server.drop_database("ledger_ascii")


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_server_that_loses_what_it_acknowledged_is_refused(setting: str, tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "postgres", options={setting: "off"}) as server:
        migrate(server.owner_url, APP)
        with pytest.raises(RefusedToStart, match=f"{setting} = off"):
            Store.open(server.app_url)
