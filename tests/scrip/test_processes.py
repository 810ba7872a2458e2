"""The two processes that serve: how they start, how they end, what they survive."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import httpx
import nats
import psycopg
import pytest
from nats.aio.msg import Msg

from api.keys import create_key, create_tenant
from ledger.migrate import migrate
from scrip.embedded import DatabaseUrls, EmbeddedNats, EmbeddedPostgres, free_port
from tests.nats_streams import delete_streams
from tests.scrip.stack import ENVIRONMENT, SECONDS_MAX, until

SERVE = """
import sys
from scrip import processes
from scrip.logging import configure_logging
from scrip.settings import read_settings
{before}
configure_logging("info", "json")
sys.exit(processes.serve_{what}(read_settings()))
"""
IMPATIENT = "processes.DATABASE_SECONDS_MAX = 1.0"
CRASHING = """
from ledger.committer import Committer
def crash(*args, **more):
    raise AssertionError("a bug")
Committer._launch = crash
"""


class Process:
    """A process that serves, or tried to."""

    def __init__(self, what: str, settings: Mapping[str, str], before: str = "") -> None:
        program = SERVE.format(what=what, before=before)
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            env={**ENVIRONMENT, **settings},
            stderr=subprocess.PIPE,
            text=True,
        )
        port = "SCRIP_HTTP_PORT" if what == "api" else "SCRIP_WORKER_HTTP_PORT"
        self.url = f"http://127.0.0.1:{settings[port]}"

    def ended(self) -> tuple[int, list[dict[str, object]]]:
        """Wait for the end; return the status and the log."""
        _, text = self.process.communicate(timeout=SECONDS_MAX)
        lines = [json.loads(line) for line in text.splitlines()]
        return self.process.returncode, lines

    def stop(self) -> tuple[int, list[dict[str, object]]]:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def answers(self, path: str) -> bool:
        try:
            return httpx.get(self.url + path, timeout=SECONDS_MAX).is_success
        except httpx.HTTPError:
            return False


@pytest.fixture
def database(postgres_server: EmbeddedPostgres) -> Iterator[DatabaseUrls]:
    name = f"processes_{uuid.uuid4().hex[:12]}"
    urls = postgres_server.create_database(name)
    yield urls
    postgres_server.drop_database(name)


@pytest.fixture
def settings(database: DatabaseUrls, nats_server: EmbeddedNats) -> dict[str, str]:
    migrate(database.owner_url, "scrip_app")
    # A worker publishes nothing to a stream that is ahead of its ledger.
    asyncio.run(delete_streams(nats_server.url))
    return settings_for(database.app_url, nats_server.url)


def settings_for(database_url: str, nats_url: str) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "NATS_URL": nats_url,
        "SCRIP_HTTP_PORT": str(free_port()),
        "SCRIP_WORKER_HTTP_PORT": str(free_port()),
    }


@contextmanager
def serving(what: str, settings: Mapping[str, str], before: str = "") -> Iterator[Process]:
    process = Process(what, settings, before)
    try:
        until(lambda: process.answers("/health/live") or ended(process), "the process")
        assert not ended(process), process.ended()
        yield process
    finally:
        if not ended(process):
            process.process.kill()
        process.process.communicate()


def ended(process: Process) -> bool:
    return process.process.poll() is not None


def why(lines: list[dict[str, object]]) -> str:
    last = [line for line in lines if line["event"] == "process.ended"]
    assert len(last) == 1, lines
    assert last[0]["level"] == "critical"
    return str(last[0]["why"])


@pytest.mark.parametrize("what", ["api", "worker"])
def test_a_database_without_our_schema_is_refused_at_once_in_one_line(
    what: str, database: DatabaseUrls
) -> None:
    status, lines = Process(what, settings_for(database.app_url, "nats://127.0.0.1:1")).ended()
    assert status == 1
    assert "run: scrip migrate" in why(lines)


@pytest.mark.parametrize("what", ["api", "worker"])
def test_a_database_that_stays_away_is_waited_for_and_then_named(what: str) -> None:
    url = f"postgresql://nobody:secret@127.0.0.1:{free_port()}/scrip"
    status, lines = Process(what, settings_for(url, "nats://127.0.0.1:1"), IMPATIENT).ended()
    assert status == 1
    assert lines[0]["event"] == "database.waiting"
    assert why(lines).startswith("no database in 1 s")
    assert "secret" not in json.dumps(lines)


def test_a_database_that_comes_up_later_is_waited_for(
    settings: dict[str, str], database: DatabaseUrls
) -> None:
    with psycopg.connect(database.superuser_url, autocommit=True) as connection:
        connection.execute("ALTER ROLE scrip_app NOLOGIN")
        process = Process("api", settings)
        try:
            time.sleep(1.0)
            assert not ended(process)
            connection.execute("ALTER ROLE scrip_app LOGIN")
            until(lambda: process.answers("/health/live") or ended(process), "the API")
            status, lines = process.stop()
        finally:
            connection.execute("ALTER ROLE scrip_app LOGIN")
            process.process.kill()
    assert status == 0, lines


def test_a_port_that_is_taken_is_named(settings: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", int(settings["SCRIP_HTTP_PORT"]))):
        status, lines = Process("api", settings).ended()
    assert status == 1
    assert why(lines).endswith("Address already in use")


@pytest.mark.parametrize("what", ["api", "worker"])
def test_told_to_stop_a_process_ends_with_status_0(what: str, settings: dict[str, str]) -> None:
    with serving(what, settings) as process:
        until(lambda: process.answers("/metrics"), "metrics")
        status, lines = process.stop()
    assert status == 0
    assert lines[-1]["event"] == "process.stopped"


def test_the_api_names_no_server_and_believes_no_proxy(settings: dict[str, str]) -> None:
    with serving("api", settings) as process:
        answer = httpx.get(
            process.url + "/health/live",
            headers={"X-Forwarded-For": "10.0.0.1"},
            timeout=SECONDS_MAX,
        )
        assert "server" not in answer.headers


def test_when_the_writer_dies_so_does_the_process(
    settings: dict[str, str], database: DatabaseUrls
) -> None:
    secret = new_key(database)
    with serving("api", settings, CRASHING) as process:
        with suppress(httpx.RemoteProtocolError, httpx.ReadError):
            # The end of the process may overtake the answer.
            answer = httpx.put(
                process.url + "/v1/accounts/a",
                headers={"Authorization": f"Bearer {secret}", "Idempotency-Key": "1"},
                json={},
                timeout=SECONDS_MAX,
            )
            assert answer.status_code == 503
        status, lines = process.ended()
    assert status == 1
    assert "the writer has died" in why(lines)


def test_the_api_answers_over_nats_and_ends_with_nothing_unanswered(
    settings: dict[str, str], database: DatabaseUrls
) -> None:
    headers = {"Authorization": f"Bearer {new_key(database)}", "Idempotency-Key": "open"}

    async def ask() -> Msg:
        client = await nats.connect(settings["NATS_URL"])
        try:
            subject, body = "scrip.acme.ledger.put_account", b'{"account": "a"}'
            return await client.request(subject, body, timeout=60, headers=headers)
        finally:
            await client.close()

    with serving("api", settings) as process:
        until(lambda: nats_check(process) == "ok", "NATS")
        answer = asyncio.run(ask())
        status, lines = process.stop()
    assert answer.headers is not None
    assert answer.headers["Scrip-Status"] == "201"
    assert status == 0
    (drained,) = (line for line in lines if line["event"] == "nats.drained")
    assert drained["unanswered"] == 0
    (handled,) = (line for line in lines if line.get("method") == "NATS")
    assert (handled["event"], handled["status"]) == ("request.handled", 201)
    assert (handled["route"], handled["tenant"]) == ("scrip.{tenant}.ledger.put_account", "acme")


def nats_check(process: Process) -> str:
    answer = httpx.get(process.url + "/health/ready", timeout=SECONDS_MAX)
    return str(answer.json()["checks"]["nats"])


def test_the_api_and_the_worker_heal_when_every_connection_to_postgresql_is_cut(
    settings: dict[str, str], database: DatabaseUrls
) -> None:
    secret = new_key(database)
    with serving("api", settings) as api, serving("worker", settings) as worker:
        with httpx.Client(
            base_url=api.url, headers={"Authorization": f"Bearer {secret}"}, timeout=SECONDS_MAX
        ) as client:
            put_account(client, "before")
            until(lambda: reads(client, "before"), "the projection")
            cut(database)
            # The writer finds out by itself, and the caller sees nothing of it, or one 503.
            until(lambda: put_account(client, "after"), "the writer")
            until(lambda: reads(client, "after"), "the projection")
        until(lambda: worker.answers("/health/ready"), "the worker")
        assert api.stop()[0] == 0
        assert worker.stop()[0] == 0


def new_key(database: DatabaseUrls) -> str:
    with psycopg.connect(database.app_url) as connection:
        create_tenant(connection, "acme", "test")
        return create_key(connection, "acme", "admin")[1]


def put_account(client: httpx.Client, name: str) -> bool:
    answer = client.put(f"/v1/accounts/{name}", headers={"Idempotency-Key": "open"}, json={})
    assert answer.status_code in {200, 201, 503}, answer.text
    return answer.is_success


def reads(client: httpx.Client, name: str) -> bool:
    answer = client.get("/v1/accounts")
    assert answer.status_code in {200, 503}, answer.text
    return answer.is_success and name in {row["id"] for row in answer.json()["data"]}


def cut(database: DatabaseUrls) -> None:
    with psycopg.connect(database.superuser_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = %(name)s AND pid <> pg_backend_pid()",
            {"name": database.name},
        )
