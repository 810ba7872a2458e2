"""A run as a person sees it: a bar over all rounds, what is running now, tables at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as Grid

from benchmarks.document import GOAL_HEADS, goal_cells, goals_of, lines_of
from benchmarks.measure import Part, Report


class Screen:
    """The bar: `turn` is one turn of one contestant, `tell` whatever else takes time."""

    def __init__(self, console: Console, turns: int) -> None:
        """Prepare a bar of so many turns."""
        self.console = console
        self._bar = Progress(
            BarColumn(24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
        )
        self._task = self._bar.add_task("starting PostgreSQL", total=turns)
        self._part = ""
        self._begun = 0

    @contextmanager
    def shown(self) -> Iterator[Screen]:
        """Show the bar."""
        with self._bar:
            yield self

    def part(self, name: str, before: int) -> None:
        """Begin a part, with so many turns done by those before it."""
        self._part, self._begun = name, before
        self.tell("preparing")

    def tell(self, what: str) -> None:
        """Say what is running now."""
        self._bar.update(self._task, completed=self._begun, description=self._line(what))

    def turn(self, what: str) -> None:
        """Say which turn begins."""
        self.tell(what)
        self._begun += 1

    def _line(self, what: str) -> str:
        line = f"{self._part}: {what}" if self._part else what
        # A bar that wraps cannot be drawn over itself.
        return line[: max(20, self.console.width - 52)]


def show(console: Console, report: Report, parts: list[Part]) -> None:
    """Print the tables of `parts`, and the goals of the whole report."""
    for name, text in report.machine.items():
        console.print(f"{name}: {text}", highlight=False)
    for part in parts:
        if part.measured is None:
            console.print(f"{part.name} was not measured: {part.failed}", style="red", markup=False)
            continue
        for table in part.measured.tables:
            heads, *rows = lines_of(table)
            console.print(_grid(f"{part.title}: {table.title}", heads, rows))
    goals = [goal for part in parts for goal in goals_of(part)]
    if goals:
        console.print(_grid("Targets", GOAL_HEADS, [goal_cells(goal) for goal in goals]))


def _grid(title: str, heads: list[str] | tuple[str, ...], rows: list[list[str]]) -> Grid:
    grid = Grid(title=title, title_justify="left")
    for place, head in enumerate(heads):
        words = place == 0 or head in {"measure", ""}
        grid.add_column(head, justify="left" if words else "right")
    for row in rows:
        grid.add_row(*row)
    return grid
