"""What every part of a run is given: the sizes, a PostgreSQL, a folder, and somebody to tell."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from benchmarks.measure import Contestant, Measured, Row, in_turn
from benchmarks.sizes import Sizes
from ledger.migrate import migrate
from scrip.embedded import DatabaseUrls, EmbeddedPostgres
from scrip.spawn import ENVIRONMENT, Child, child_command

APP_ROLE = "scrip_app"
ROOT = Path(__file__).parent.parent
PROGRAM_SECONDS_MAX = 600.0
Answer = TypeVar("Answer")


class Failed(Exception):
    """A program of the benchmark has failed; the text is what it said."""


class Bench:
    """One run."""

    def __init__(
        self,
        postgres: EmbeddedPostgres,
        folder: Path,
        sizes: Sizes,
        *,
        rounds: int,
        seconds: float,
        tell: Callable[[str], None],
        turn: Callable[[str], None],
    ) -> None:
        """Measure on `postgres`. `turn` hears of each turn of a contestant, `tell` of the rest."""
        self.postgres = postgres
        self.folder = folder
        self.sizes = sizes
        self.rounds = rounds
        self.seconds = seconds
        self.tell = tell
        self._turn = turn
        self._numbers = itertools.count(1)

    def in_turn(self, contestants: Sequence[Contestant]) -> list[Row]:
        """Run all contestants, round by round."""
        return in_turn(contestants, self.rounds, self._turn)

    def fresh(self, kind: str) -> str:
        """Return a name that was not used in this run."""
        return f"{kind}_{next(self._numbers)}"

    @contextmanager
    def database(self, *, migrated: bool = True) -> Iterator[DatabaseUrls]:
        """Make a database, with Scrip's tables or without any, and drop it in the end."""
        name = self.fresh("bench")
        urls = self.postgres.create_database(name)
        try:
            if migrated:
                migrate(urls.owner_url, APP_ROLE)
            yield urls
        finally:
            self.postgres.drop_database(name)

    def start(self, module: str, environment: dict[str, str], *words: str) -> Child:
        """Start a Python module in a process of its own, which ends with this one."""
        program = [sys.executable, "-m", module, *words]
        log = self.folder / f"{self.fresh(module.rsplit('.', 1)[-1])}.log"
        return Child(
            child_command(program, death_signal=signal.SIGKILL), log, environment_of(environment)
        )

    def ask(self, module: str, question: Struct, answer: type[Answer]) -> Answer:
        """Run a module to its end: JSON in, JSON out. Raises Failed."""
        program = [sys.executable, "-m", module]
        process = subprocess.Popen(
            child_command(program, death_signal=signal.SIGKILL),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment_of({}),
            process_group=0,
        )
        try:
            said, complaint = process.communicate(
                msgspec.json.encode(question), PROGRAM_SECONDS_MAX
            )
        finally:
            process.kill()
            process.wait()
        if process.returncode != 0:
            raise Failed(f"{module}: {complaint.decode(errors='replace').strip()[-2_000:]}")
        return msgspec.json.decode(said, type=answer)


def environment_of(more: dict[str, str]) -> dict[str, str]:
    """Return the environment of a process of the benchmark: nothing of the caller's."""
    return {**ENVIRONMENT, "PYTHONPATH": str(ROOT), **more}


class Asked(Struct, frozen=True):
    """A part of the run: what it is called, how many turns a round has, and who measures it."""

    name: str
    title: str
    turns: int
    measure: Callable[[Bench], Measured]
