"""How far a replay has come, in a terminal."""

from __future__ import annotations

from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text


class _Rate(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        """Return the speed of the last seconds."""
        return Text(f"{task.speed:,.0f}/s" if task.speed else "", style="progress.data.speed")


class Bars:
    """Two bars: what is reserved (and its event sent), and what is captured."""

    def __init__(self, console: Console, jobs: int) -> None:
        """Draw on `console`; where that is no terminal, nothing is drawn."""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._console = console
        self._jobs = jobs
        self._reserved = self._progress.add_task("reserve ", total=jobs)
        self._captured = self._progress.add_task("captured", total=jobs)

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bars as they are."""
        self._progress.stop()

    def reserved(self, count: int) -> None:
        """So many jobs are reserved, and their events sent."""
        self._update(self._reserved, count)

    def captured(self, count: int) -> None:
        """So many jobs are captured."""
        self._update(self._captured, count)

    def checking(self) -> None:
        """All is done; now it is checked."""
        self._progress.stop()
        self._console.print(f"Checking {self._jobs:,} jobs: events, balances, usage rows …")

    def _update(self, task: TaskID, count: int) -> None:
        self._progress.update(task, completed=count)
