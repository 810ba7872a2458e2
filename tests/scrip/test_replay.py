"""`scrip replay` against a real `scrip dev`."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from scrip.replay.messages import Sender
from tests.scrip.stack import (
    ENVIRONMENT,
    Running,
    ready,
    replay_words,
    scrip,
    start,
    until,
    write_trace,
)

ROWS = 400


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("replay") / "data"
    with start("dev", ["--ephemeral"], folder) as running:
        until(lambda: ready(running), "dev.json")
        yield running


def replayed(
    trace: Path, stack: Running, *words: str, status: int = 0, seconds: float = 60
) -> dict[str, Any]:
    file = trace.with_suffix(".json")
    done = scrip(*replay_words(trace, stack, "--json", str(file), *words), seconds=seconds)
    assert done.returncode == status, done.stderr
    report: dict[str, Any] = json.loads(file.read_text())
    assert report["ok"] is (status == 0)
    return report


def test_a_replay_agrees_to_the_last_place_and_a_second_one_changes_nothing(
    stack: Running, tmp_path: Path
) -> None:
    trace = write_trace(tmp_path / "twice.csv", ROWS)
    first = replayed(trace, stack, "--accounts", "20")
    assert first["requests"] == ROWS
    assert first["replayed"] == 0
    # Opened, two grants; for each job reserved and captured.
    assert first["events_before"] == 3 * 20
    assert first["events"] == 3 * 20 + 2 * ROWS
    assert first["sums"]["captured"] == first["sums"]["expected"]
    assert first["captured_ms"]["count"] == ROWS
    second = replayed(trace, stack, "--accounts", "20")
    assert second["replayed"] == ROWS
    assert second["events"] == second["events_before"] == first["events"]
    assert second["sums"] == first["sums"]
    assert second["checks"][-1]["name"] == "everything was repeated, and nothing changed"


def test_a_replay_that_is_interrupted_goes_on_where_it_was(stack: Running, tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "stopped.csv", ROWS, seed=2)
    words = replay_words(trace, stack, "--speed", "20", "--accounts", "5")
    process = subprocess.Popen(
        [sys.executable, "-m", "scrip", *words],
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2.5)
        process.send_signal(signal.SIGINT)
        _, says = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "run the same command again" in says
    report = replayed(trace, stack, "--accounts", "5")
    assert 0 < report["replayed"] < ROWS
    assert report["events"] == 3 * 5 + 2 * ROWS


def test_a_charge_that_is_not_the_trace_s_is_found(stack: Running, tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "wrong.csv", 30, seed=3)
    report = replayed(trace, stack, "--accounts", "2")
    job = f"{report['prefix']}-job-000007"

    async def charge_more() -> None:
        says = stack.says
        found = [f"{report['prefix']}-{number:04d}" for number in (1, 2)]
        async with await Sender.connect(says["nats_url"], says["tenant"]) as sender:
            for account in found:
                event = {
                    "specversion": "1.0",
                    "id": f"more-{account}",
                    "source": "/somebody-else",
                    "type": "scrip.generation.succeeded",
                    "data": {"account": account, "job": job, "amount": "100"},
                }
                await sender.send(f"more-{account}", msgspec.json.encode(event))
            while await sender.unhandled() != 0:  # noqa: ASYNC110 - it happens elsewhere
                await asyncio.sleep(0.05)

    asyncio.run(charge_more())
    wrong = replayed(trace, stack, "--accounts", "2", status=1)
    failed = {check["name"]: check["differences"] for check in wrong["checks"]}
    once = failed["every job was reserved once and captured once"]
    # Captured twice on its own account, and once on one that has nothing to do with it.
    assert len(once) == 2
    assert all(difference.startswith(job) for difference in once)
    assert failed["every charge is what the rate card says, to the last place"]
    assert failed["every job has one usage row, with its tokens and its charge"]
    assert failed["the sums over all accounts agree"]
    assert not failed["the balances read are those of the ledger"]


def test_a_wrong_key_is_told_and_not_tried_for_ever(stack: Running, tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "key.csv", 3)
    done = scrip(*replay_words(trace, stack, "--key", "scrip_test_nobody"), seconds=20)
    assert done.returncode == 1
    assert "401" in done.stderr
    assert "scrip_test_nobody" not in done.stderr


@pytest.mark.skipif("SCRIP_TRACE" not in os.environ, reason="SCRIP_TRACE names no trace")
@pytest.mark.timeout(900)
def test_a_real_trace_is_replayed_exactly_twice(stack: Running, tmp_path: Path) -> None:
    trace = tmp_path / Path(os.environ["SCRIP_TRACE"]).name
    trace.symlink_to(os.environ["SCRIP_TRACE"])
    first = replayed(trace, stack, seconds=400)
    second = replayed(trace, stack, seconds=400)
    assert second["replayed"] == first["requests"]
    assert second["events"] == first["events"]
