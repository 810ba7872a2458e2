"""`scrip verify`, as an operator runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from ledger.records import stream_id
from ledger.store import Store
from ledger.writer import Writer
from projections.runner import Runner
from scrip.__main__ import app
from scrip.embedded import DatabaseUrls
from tests.ledger.room import TENANT, ask, deduct, opened, reserve, until

Verify = Callable[..., tuple[int, list[dict[str, Any]], str]]


@pytest.fixture
def verify(database: DatabaseUrls) -> Verify:
    """Return a way to run the command: exit status, what it found, what it said."""

    def run(*arguments: str) -> tuple[int, list[dict[str, Any]], str]:
        environment = {"DATABASE_URL": database.app_url, "COLUMNS": "200"}
        result = CliRunner().invoke(app, ["verify", *arguments], env=environment)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result.exit_code, list(map(json.loads, result.stdout.splitlines())), result.stderr

    return run


@pytest.fixture
def projected(writer: Writer, store: Store) -> None:
    """Write two accounts, and have all projections follow."""
    for account in "ab":
        ask(writer, [*opened(account), deduct(1, "d", account), reserve(2, "r", account)])
    runner = Runner(store)
    runner.start()
    until(lambda: all(one.position == store.max_position() for one in runner.status()))
    runner.close()


@pytest.mark.usefixtures("projected")
def test_a_sound_ledger_is_told_to_be_sound(verify: Verify) -> None:
    status, findings, words = verify()
    assert (status, findings) == (0, [])
    assert "nothing is wrong" in words
    assert verify("--chains-only")[:2] == (0, [])
    assert verify("--tenant", TENANT, "--account", "a")[:2] == (0, [])


@pytest.mark.usefixtures("projected")
def test_an_altered_row_is_printed_and_nothing_else(
    verify: Verify, owner: psycopg.Connection[Any]
) -> None:
    owner.execute(
        "DELETE FROM scrip.ledger_events WHERE originator_id = %(a)s AND originator_version = 3",
        {"a": stream_id(TENANT, "a")},
    )
    finding = {
        "rule": "version",
        "stream": str(stream_id(TENANT, "a")),
        "tenant": TENANT,
        "account": "a",
        "version": 4,
        "position": "4",
        "what": "missing before this row: version 3",
    }
    assert verify()[:2] == (1, [finding])
    assert verify("--chains-only")[:2] == (1, [finding])
    assert verify("--account", "b")[:2] == (0, [])


@pytest.mark.usefixtures("projected")
def test_a_projection_that_says_something_else_is_printed(
    verify: Verify, database: DatabaseUrls
) -> None:
    with psycopg.connect(database.app_url) as connection:
        connection.execute(
            "UPDATE projections.balances_v2 SET available = available - 1, consumed = consumed + 1"
            " WHERE account = 'a'"
        )
    status, findings, _ = verify()
    assert status == 1
    assert [(finding["rule"], finding["table"]) for finding in findings] == [
        ("projection", "balances_v2")
    ]
    assert "available is 6 instead of 7" in findings[0]["what"]
    assert verify("--account", "b")[:2] == (0, [])


@pytest.mark.usefixtures("projected")
def test_an_account_that_does_not_exist_is_no_proof(verify: Verify) -> None:
    status, findings, words = verify("--account", "nosuch")
    assert (status, findings) == (1, [])
    assert "there are no events" in words


@pytest.mark.usefixtures("projected")
def test_a_projection_that_stands_still_is_printed(verify: Verify, database: DatabaseUrls) -> None:
    with psycopg.connect(database.app_url) as connection:
        connection.execute(
            "INSERT INTO projections.failures (projection, position, error)"
            " SELECT application_name, notification_id + 1, 'an event it cannot digest'"
            " FROM projections.tracking WHERE application_name LIKE 'balances%'"
        )
    status, findings, _ = verify()
    assert status == 1
    assert [finding["table"] for finding in findings] == ["balances"]
    assert "stopped" in findings[0]["what"]


def test_a_database_without_a_schema_cannot_be_verified(
    verify: Verify, owner: psycopg.Connection[Any]
) -> None:
    owner.execute("DROP TABLE scrip.schema_versions")
    status, findings, words = verify()
    assert (status, findings) == (1, [])
    assert "scrip migrate" in words
