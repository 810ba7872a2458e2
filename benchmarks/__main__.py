"""`make bench`: everything here, in one run, on an embedded PostgreSQL and nats-server."""

from __future__ import annotations

import signal
import sys
import tempfile
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from benchmarks.bench import Asked, Bench
from benchmarks.document import fill
from benchmarks.machine import describe
from benchmarks.measure import Measured, Part, Report
from benchmarks.parts import PARTS
from benchmarks.screen import Screen, show
from benchmarks.sizes import SIZES, SizeName
from scrip.embedded import EmbeddedPostgres
from scrip.logging import configure_logging

NAMES = [part.name for part in PARTS]
INTERRUPTED = 130
PAGE_COLUMNS = 160
EXAMPLES = """
Examples:

\b
make bench
make bench ARGS="--only in-process --rounds 5"
make bench ARGS="--size full --json benchmarks/results.json --render docs/performance.md"
make bench ARGS="--no-measure --json benchmarks/results.json --render docs/performance.md"
"""


def main(
    only: Annotated[
        list[str] | None,
        typer.Option(help=f"Measure this part alone; may be repeated. Parts: {', '.join(NAMES)}."),
    ] = None,
    *,
    rounds: Annotated[int, typer.Option(help="Rounds of each contestant, in turn.", min=1)] = 3,
    seconds: Annotated[float, typer.Option(help="How long a turn lasts.", min=0.05)] = 3.0,
    size: Annotated[
        SizeName, typer.Option(help="How large everything is; `full` is as the targets say.")
    ] = "usual",
    json: Annotated[
        Path | None,
        typer.Option(help="Keep the figures there, after every part. Other parts in it stay."),
    ] = None,
    render: Annotated[
        Path | None, typer.Option(help="Put the figures between the marks of this page.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Or only show what --json holds.")
    ] = True,
) -> None:
    """Measure Scrip against what a team would build or use instead, in one run.

    Services run as they ship, and the ledger's invariants are asserted at the end of each part.
    Figures are medians of the rounds; ratios are taken round by round. Ctrl-C stops everything;
    parts that are done are kept. Targets are shown beside the figures; a target that is not met
    is no error, a part that could not be measured is: then the exit status is 1.
    """
    wanted = [part for part in PARTS if not only or part.name in only]
    unknown = sorted(set(only or ()) - set(NAMES))
    if unknown:
        raise typer.BadParameter(f"no such part: {', '.join(unknown)}; there are {NAMES}")
    signal.signal(signal.SIGTERM, _interrupt)
    configure_logging("warning", "json")
    run = Run(json, rounds, seconds, size)
    status = 0
    if measure:
        try:
            run.measure(wanted)
        except KeyboardInterrupt:
            status = INTERRUPTED
    shown = [part for part in run.report.parts if part.name in {one.name for one in wanted}]
    show(_page(), run.report, shown)
    if render is not None:
        render.write_text(fill(render.read_text("utf-8"), run.report, NAMES), "utf-8")
    raise typer.Exit(status or int(any(part.failed for part in shown)))


class Run:
    """One run, and the file that its figures are kept in."""

    def __init__(self, file: Path | None, rounds: int, seconds: float, size: SizeName) -> None:
        """Go on from what the file holds."""
        self.file = file
        self.rounds = rounds
        self.seconds = seconds
        self.size: SizeName = size
        self.report = Report(machine={})
        if file is not None and file.exists():
            self.report = msgspec.json.decode(file.read_bytes(), type=Report)

    def measure(self, wanted: list[Asked]) -> None:
        """Measure part by part; one that fails does not keep the others from being measured."""
        screen = Screen(Console(stderr=True), sum(part.turns for part in wanted) * self.rounds)
        with (
            tempfile.TemporaryDirectory(prefix="scrip-bench-") as folder,
            screen.shown(),
            EmbeddedPostgres(Path(folder) / "postgres") as postgres,
        ):
            self.report = msgspec.structs.replace(self.report, machine=describe(Path(folder)))
            bench = Bench(
                postgres,
                Path(folder),
                SIZES[self.size],
                rounds=self.rounds,
                seconds=self.seconds,
                tell=screen.tell,
                turn=screen.turn,
            )
            before = 0
            for part in wanted:
                screen.part(part.name, before)
                self._keep(self._measured(part, bench, screen.console))
                before += part.turns * self.rounds
            screen.part("", before)

    def _measured(self, part: Asked, bench: Bench, console: Console) -> Part:
        began = time.monotonic()
        at = datetime.now(UTC).isoformat(timespec="seconds")
        measured: Measured | None = None
        failed = None
        try:
            measured = part.measure(bench)
        except Exception as error:  # noqa: BLE001 - hours of unattended measuring go on
            console.print(traceback.format_exc(), markup=False, highlight=False)
            failed = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        return Part(
            name=part.name,
            title=part.title,
            at=at,
            seconds=round(time.monotonic() - began, 1),
            size=self.size,
            rounds=self.rounds,
            measured=measured,
            failed=failed,
        )

    def _keep(self, part: Part) -> None:
        self.report = self.report.with_part(part, NAMES)
        if self.file is None:
            return
        figures = msgspec.json.format(msgspec.json.encode(self.report)) + b"\n"
        if self.file.exists() and not self.file.is_file():
            self.file.write_bytes(figures)  # A pipe or a device is not to be replaced by a file.
            return
        new = self.file.with_suffix(".new")
        new.write_bytes(figures)
        new.replace(self.file)


def _page() -> Console:
    """Return the standard output; where it is no terminal, wide enough for the tables."""
    page = Console()
    return page if page.is_terminal else Console(width=PAGE_COLUMNS)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(epilog=EXAMPLES)(main)
    sys.exit(app())
