"""What tests of the whole share: the command line in processes of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil

from scrip.settings import VARIABLES
from scrip.traces import synthetic_trace

SECONDS_MAX = 120.0
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in VARIABLES and not name.startswith("SCRIP_")
}


def scrip(*words: str, seconds: float = SECONDS_MAX) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "scrip", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
        env=ENVIRONMENT,
    )


def command_line(process: psutil.Process) -> str:
    """Return the words a process runs, or none when it ended meanwhile.

    PostgreSQL's workers and backends come and go at any time.
    """
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that must come."""
    end = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < end, f"waited too long for {what}"
        time.sleep(0.02)


class Running:
    """A command that goes on running: its process, its folder, what it printed."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, output: Path) -> None:
        self.process = process
        self.folder = folder
        self._output = output

    @property
    def says(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / "dev.json").read_text())
        return content

    @property
    def printed(self) -> str:
        return self._output.read_text()

    @property
    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    @property
    def is_ready(self) -> bool:
        """Whether the API serves; it fails when the command has ended."""
        assert self.process.poll() is None, self.printed
        try:
            return httpx.get(self.says["base_url"] + "/health/ready", timeout=30).is_success
        except (httpx.HTTPError, FileNotFoundError):
            return False

    def child(self, words: str) -> psutil.Process:
        """Return the one child whose command line has these words."""
        for child in psutil.Process(self.process.pid).children():
            if words in command_line(child):
                return child
        raise AssertionError(f"no child runs {words}")

    def kill(self, words: str) -> psutil.Process:
        """Kill the one child whose command line has these words, with SIGKILL."""
        child = self.child(words)
        child.kill()
        return child

    def interrupt(self, send: Callable[[int, int], None] = os.kill) -> int:
        """Press Ctrl-C; all that was started must end. Returns the exit status."""
        family = self.family
        send(self.process.pid, signal.SIGINT)
        status = self.process.wait(SECONDS_MAX)
        psutil.wait_procs(family, timeout=60)
        assert not [child for child in family if child.is_running()]
        return status


@contextmanager
def start(command: str, words: Sequence[str], folder: Path, **settings: str) -> Iterator[Running]:
    """Run `scrip dev` or `scrip demo` in a folder, and stop it at the end."""
    output = folder.parent / f"{command}.out"
    program = [sys.executable, "-m", "scrip", command, "--data-dir", str(folder), *words]
    with output.open("wb") as file:
        process = subprocess.Popen(
            program,
            stdout=file,
            stderr=file,
            env={**ENVIRONMENT, **settings},
            start_new_session=True,
        )
    running = Running(process, folder, output)
    try:
        yield running
    finally:
        if process.poll() is None:
            running.interrupt()


def ready(running: Running) -> bool:
    """Tell whether everything serves."""
    assert running.process.poll() is None, running.printed
    return (running.folder / "dev.json").exists()


def replay_words(trace: Path, running: Running, *words: str) -> list[str]:
    """Return the words of a replay against what runs in a folder."""
    return ["replay", str(trace), "--data-dir", str(running.folder), *words]


def write_trace(file: Path, rows: int, seed: int = 1) -> Path:
    """Write a made-up trace."""
    began = datetime(2026, 1, 1, tzinfo=UTC)
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    for row in synthetic_trace(rows, seed):
        when = (began + timedelta(seconds=row.seconds)).strftime("%Y-%m-%d %H:%M:%S.%f0")
        lines.append(f"{when},{row.context_tokens},{row.generated_tokens}")
    file.write_text("\n".join(lines))
    return file
