"""The whole program, with everything tiny: it runs, and every part holds its invariants."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.parts import PARTS
from tests.scrip.stack import command_line

ROOT = Path(__file__).parents[2]
TINY = ("--size", "tiny", "--rounds", "1", "--seconds", "0.2")
SECONDS_MAX = 240
HALVES = [[part.name for part in PARTS][place::2] for place in range(2)]


def words(*more: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks", *TINY, *more]


@pytest.mark.parametrize("names", HALVES, ids=" ".join)
def test_every_part_runs_and_its_ledger_is_right(tmp_path: Path, names: list[str]) -> None:
    file = tmp_path / "figures.json"
    only = [word for name in names for word in ("--only", name)]
    done = subprocess.run(
        words(*only, "--json", str(file)),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=SECONDS_MAX,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads(file.read_text())["parts"]
    assert [part["name"] for part in parts] == names
    assert [part for part in parts if part["failed"] is not None] == []
    for part in parts:
        assert part["measured"]["checks"]
        assert part["measured"]["tables"]


def test_it_stops_at_once_leaves_nothing_and_keeps_what_was_measured(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    process = subprocess.Popen(
        words("--only", "wide-account", "--only", "memory", "--json", str(file)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        start_new_session=True,
    )
    run = psutil.Process(process.pid)
    deadline = time.monotonic() + SECONDS_MAX
    while not any("scrip serve" in command_line(child) for child in run.children()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    family = run.children(recursive=True)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    psutil.wait_procs(family, timeout=20)
    assert not [one for one in family if one.is_running()]
    assert [part["name"] for part in json.loads(file.read_text())["parts"]] == ["wide-account"]


def test_a_part_that_does_not_exist_is_a_misuse() -> None:
    done = subprocess.run(
        words("--only", "all"), capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )
    assert done.returncode == 2
    assert "no such part" in done.stderr
