"""A worker as a whole: it starts before what it needs, outlives its absence, and stops cleanly."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from consumers.dead import list_dead
from consumers.health import Health, Part
from consumers.streams import JetStreamUnsafe, check_sync, jetstream
from consumers.worker import WorkerDeps, supervised, work
from ledger.domain.values import MICRO
from scrip.embedded import EmbeddedNats
from tests.consumers.room import TENANT, Room, generation, projecting, tokens, until

STOP_SECONDS_MAX = 40.0


@pytest.fixture
def projected(own_room: Room) -> Iterator[Room]:
    """Give a room with its own NATS, whose projections follow its ledger."""
    with projecting(own_room):
        yield own_room


@asynccontextmanager
async def working(room: Room) -> AsyncIterator[Health]:
    """Run a worker."""
    stop = asyncio.Event()
    deps = WorkerDeps(
        writer=room.writer,
        database_url=room.urls.app_url,
        nats_url=room.nats.url,
        nats_monitor_url=room.nats.monitor_url,
        refuse_lazy_sync=True,
    )
    task = asyncio.create_task(work(deps, stop))
    try:
        yield deps.health
    finally:
        stop.set()
        async with asyncio.timeout(STOP_SECONDS_MAX):
            await task
        assert {part.state for part in deps.health.parts.values()} == {"stopped"}


async def charge(room: Room, job: str) -> None:
    """Publish a job's end and wait until it is charged."""
    before = room.view("account-1").balance.consumed
    async with room.client() as client:
        message = generation("succeeded", job, "account-1", **tokens(500_000))
        await room.publish(client, [message])
        await until(lambda: room.view("account-1").balance.consumed == before + MICRO)


async def test_a_worker_does_all_its_work_and_says_that_it_is_well(projected: Room) -> None:
    projected.set_prices()
    projected.open_account("account-1")
    async with working(projected) as health:
        await until(lambda: health.ok)
        await charge(projected, "job-1")
        outbox = health.parts["outbox"]
        await until(lambda: outbox.facts.get("position") == projected.store.max_position())
        assert set(health.report()) == {"generations", "outbox", "deadlines", "plans", "nats"}


async def test_a_worker_waits_for_nats_and_outlives_its_death(
    projected: Room, own_nats: EmbeddedNats
) -> None:
    projected.set_prices()
    projected.open_account("account-1")
    await asyncio.to_thread(own_nats.stop)
    stop = asyncio.Event()
    deps = WorkerDeps(
        writer=projected.writer, database_url=projected.urls.app_url, nats_url=own_nats.url
    )
    task = asyncio.create_task(work(deps, stop))
    await until(lambda: deps.health.part("deadlines").state == "running")
    assert not deps.health.ok
    for round_ in range(2):
        await asyncio.to_thread(own_nats.start)
        await until(lambda: deps.health.ok)
        await charge(projected, f"job-{round_}")
        await asyncio.to_thread(own_nats.kill)
        await until(lambda: not deps.health.ok)
    stop.set()
    async with asyncio.timeout(STOP_SECONDS_MAX):
        await task


async def test_a_worker_outlives_its_connections_to_postgresql(projected: Room) -> None:
    projected.set_prices()
    projected.open_account("account-1")
    async with working(projected) as health:
        await until(lambda: health.ok)
        with psycopg.connect(projected.urls.superuser_url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %(name)s"
                " AND pid <> pg_backend_pid()",
                {"name": projected.urls.name},
            )
        await charge(projected, "job-1")
        await until(lambda: health.ok)


async def test_a_part_that_fails_is_started_again_and_says_why() -> None:
    stop, part, runs = asyncio.Event(), Part(name="part"), 0

    async def run(part: Part, stop: asyncio.Event) -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise AssertionError("a bug")
        part.running()
        await stop.wait()

    task = asyncio.create_task(supervised(part, run, stop))
    await until(lambda: part.state == "failed")
    assert part.error == "AssertionError: a bug"
    await until(lambda: part.state == "running")
    assert part.restarts == 2
    stop.set()
    await task


async def test_a_server_that_does_not_sync_every_write_is_told_apart(
    own_nats: EmbeddedNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await check_sync(own_nats.monitor_url, refuse=True)
    assert await check_sync(None) is None
    assert await check_sync("http://127.0.0.1:1") is None
    await asyncio.to_thread(own_nats.stop)
    monkeypatch.setattr("scrip.embedded_nats.SYNC_INTERVAL", "2m")
    await asyncio.to_thread(own_nats.start)
    assert await check_sync(own_nats.monitor_url) is False
    with pytest.raises(JetStreamUnsafe, match="sync_interval: always"):
        await check_sync(own_nats.monitor_url, refuse=True)


def scrip(room: Room, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    environment = {
        "DATABASE_URL": room.urls.app_url,
        "NATS_URL": room.nats.url,
        "PATH": os.defpath,
        "PYTHONPATH": str(Path.cwd()),
    }
    return subprocess.run(
        [sys.executable, "-m", "scrip", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


async def test_dead_letters_are_listed_shown_and_redriven_on_the_command_line(room: Room) -> None:
    room.open_account("account-1")
    poison = (f"scrip.{TENANT}.generation.failed", b"\xff", "poison-1")
    async with room.capturing() as client:
        message = generation("succeeded", "job-1", "account-1", **tokens(500_000))
        await room.publish(client, [message, poison])
        await room.handled(client)
        listed = await asyncio.to_thread(scrip, room, "dead", "list")
        letters = [json.loads(line) for line in listed.stdout.splitlines()]
        by_reason = {letter["reason"]: letter["id"] for letter in letters}
        priced = by_reason["price_not_found"]
        shown = await asyncio.to_thread(scrip, room, "dead", "show", priced)
        assert json.loads(shown.stdout)["payload"]["data"]["job"] == "job-1"
        bytes_ = await asyncio.to_thread(scrip, room, "dead", "show", by_reason["invalid_message"])
        assert json.loads(bytes_.stdout)["payload_base64"] == "/w=="

        room.set_prices()
        done = await asyncio.to_thread(scrip, room, "dead", "redrive", priced)
        assert json.loads(done.stdout)["redriven"] == 1
        await room.handled(client)
        assert room.view("account-1").balance.consumed == MICRO
        gone = await asyncio.to_thread(scrip, room, "dead", "redrive", priced)
        assert (gone.returncode, gone.stdout) == (1, "")
        assert "no dead letter" in gone.stderr
        assert (await asyncio.to_thread(scrip, room, "dead", "redrive")).returncode == 2
        assert len(await list_dead(jetstream(client))) == 1
