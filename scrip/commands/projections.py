"""`scrip projections`: how far the projections are, and building one again from the events."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from scrip.database import ledger_store

if TYPE_CHECKING:
    from projections.rebuild import RebuildReport

app = typer.Typer(no_args_is_help=True, help="Projections: status, rebuild.")


@app.command(epilog="Example: scrip projections status")
def status() -> None:
    """Print each projection as a JSON line: its position, its lag and state, and what stopped it.

    `standby` means that no worker follows the ledger. Exits with 1 if a projection has stopped.
    """
    from projections.status import read_status  # noqa: PLC0415 - not before it is needed
    from projections.tables import connect  # noqa: PLC0415

    with ledger_store() as store, connect(store) as connection:
        found = read_status(connection)
    for one in found:
        _print(
            {
                "name": one.name,
                "state": one.state,
                "position": str(one.position),
                "lag_events": one.lag_events,
                "lag_seconds": round(one.lag_seconds, 3),
                "error": str(one.error) if one.error else None,
            }
        )
    if any(one.error for one in found):
        typer.echo("a projection has stopped; once its cause is gone, rebuild it", err=True)
        raise typer.Exit(1)


@app.command(epilog="Example: scrip projections rebuild balances")
def rebuild(
    name: Annotated[str, typer.Argument(help="balances, grants, reservations, usage, …")],
) -> None:
    """Build a projection again beside the live one, compare the two, and switch.

    Nothing has to be stopped. Prints a report as JSON, with the first rows that were wrong.
    """
    from projections.rebuild import RebuildRunning  # noqa: PLC0415 - not before it is needed
    from projections.registry import UnknownProjection  # noqa: PLC0415

    try:
        report = _rebuild(name)
    except UnknownProjection as misuse:
        raise typer.BadParameter(str(misuse)) from None
    except RebuildRunning as refusal:
        typer.echo(str(refusal), err=True)
        raise typer.Exit(1) from None
    _print(
        {
            **msgspec.structs.asdict(report),
            "position": str(report.position),
            "compared_at": None if report.compared_at is None else str(report.compared_at),
            "seconds": round(report.seconds, 3),
            "differences": [str(one) for one in report.differences],
        }
    )
    if report.differing:
        typer.echo(f"{report.differing} rows were wrong and are right now", err=True)


def _rebuild(name: str) -> RebuildReport:
    from rich.console import Console  # noqa: PLC0415 - not before it is needed
    from rich.progress import Progress  # noqa: PLC0415

    from projections.rebuild import rebuild as build  # noqa: PLC0415

    with ledger_store() as store, Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task(f"Rebuilding {name}", total=None)
        return build(
            store,
            name,
            progress=lambda position, until: bar.update(task, completed=position, total=until),
        )


def _print(line: dict[str, Any]) -> None:
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
