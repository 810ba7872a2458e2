"""`make bench`: everything here, in one run, on embedded PostgreSQL."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import in_process
from benchmarks.measure import Comparison, compare, machine
from ledger.migrate import migrate
from scrip.embedded import EmbeddedPostgres

APP_ROLE = "scrip_app"


def main(
    rounds: Annotated[int, typer.Option(help="Rounds of each contestant, in turn.")] = 3,
    accounts: Annotated[int, typer.Option(help="Accounts that the load is spread over.")] = 10_000,
    seconds: Annotated[float, typer.Option(help="About how long one turn lasts.")] = 3.0,
    json: Annotated[Path | None, typer.Option(help="Write the figures there as JSON.")] = None,
) -> None:
    """Compare Scrip's write path with `eventsourcing` as it comes: reserve and capture.

    Figures are medians of the rounds; ratios are to the first row, round by round.

    Example: make bench ARGS="--rounds 5 --json figures.json"
    """
    screen = Console(stderr=True)
    with (
        tempfile.TemporaryDirectory(prefix="scrip-bench-") as folder,
        screen.status("starting PostgreSQL") as status,
        EmbeddedPostgres(Path(folder) / "postgres") as server,
    ):
        ours, theirs = server.urls(), server.create_database("baseline")
        migrate(ours.owner_url, APP_ROLE)
        status.update("opening accounts")
        with in_process.contestants(ours, theirs, accounts, seconds) as contestants:
            comparison = compare(
                f"reserve + capture in process, {accounts} accounts",
                "commands/s",
                contestants,
                rounds,
                status.update,
            )
    show(comparison)
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode((machine(), comparison))))


def show(comparison: Comparison) -> None:
    """Print a comparison as a table."""
    table = Table(title=f"{comparison.title}\n{machine()}")
    for heading in ("", comparison.unit, "lowest", "highest", "ratio"):
        table.add_column(heading, justify="right" if heading else "left")
    for figure in comparison.figures:
        rates = (figure.median, figure.lowest, figure.highest)
        table.add_row(figure.name, *(f"{rate:,.0f}" for rate in rates), f"{figure.ratio:.1f}")
    Console().print(table)


typer.run(main)
