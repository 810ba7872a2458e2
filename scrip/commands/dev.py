"""`scrip dev`: everything on this machine, on embedded servers."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from scrip.settings import SettingsError, unknown_variables
from scrip.terminal import TerminalLines

app = typer.Typer()

DataDir = Annotated[
    Path | None,
    typer.Option(help="Where everything is kept. Default: .scrip", show_default=False),
]
Port = Annotated[
    int | None,
    typer.Option(
        help="The port of the API. Default: 8000, or a free one if it is taken.",
        min=1,
        max=65_535,
        show_default=False,
    ),
]
Ephemeral = Annotated[
    bool, typer.Option("--ephemeral", help="Keep nothing: remove the data at the end.")
]
ApiProcesses = Annotated[
    int, typer.Option("--api-processes", help="How many API processes.", min=1, max=64)
]


@app.command(epilog="Example: scrip dev --ephemeral --port 8080 --api-processes 2")
def dev(
    data_dir: DataDir = None,
    port: Port = None,
    ephemeral: Ephemeral = False,  # noqa: FBT002 - an option
    api_processes: ApiProcesses = 1,
) -> None:
    """Run PostgreSQL, NATS, the API and a worker here, until Ctrl-C.

    Once all of it serves, DATA_DIR/dev.json holds its addresses and a key of each role.
    """
    from scrip.dev import Plan, run  # noqa: PLC0415 - not before it is needed

    plan = Plan(
        data_dir=data_dir,
        port=port,
        ephemeral=ephemeral,
        api_processes=api_processes,
        environment=child_environment("console" if sys.stderr.isatty() else "json"),
        lines=TerminalLines(),
    )
    raise typer.Exit(run(plan))


def child_environment(log_format: str) -> dict[str, str]:
    """Return the environment for the API and the worker, which log like that if nothing is set.

    Raises SettingsError.
    """
    complaints = unknown_variables(os.environ)
    if complaints:
        raise SettingsError("\n".join(complaints))
    return {"SCRIP_LOG_FORMAT": log_format, **os.environ}
