"""`scrip demo`: everything on this machine, with a busy demo in it. `make run` calls this."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from scrip.commands.dev import ApiProcesses, Port, child_environment

if TYPE_CHECKING:
    from scrip.dev import Running

app = typer.Typer()

LOG_FILE = "demo.log"
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Keep everything there. Default: nothing is kept; dev.json and the log are in .scrip",
        show_default=False,
    ),
]


@app.command(epilog="Example: scrip demo --exit --requests 5000")
def demo(
    *,
    data_dir: DataDir = None,
    port: Port = None,
    ephemeral: Annotated[
        bool, typer.Option("--ephemeral", help="Keep nothing, even with --data-dir.")
    ] = False,
    api_processes: ApiProcesses = 1,
    requests: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="How many requests to replay.")
    ] = 2_000,
    exit_: Annotated[
        bool, typer.Option("--exit", help="Stop after the summary; status 0 if all agrees.")
    ] = False,
) -> None:
    """Run all of Scrip here, fill it, replay a made-up busy hour, check every sum, and serve on.

    Nothing is kept unless --data-dir names a folder. What runs is what `scrip dev` runs.
    """
    from scrip.demo import demonstrate, serve_on  # noqa: PLC0415 - not before it is needed
    from scrip.dev import DATA_FOLDER, Plan, run  # noqa: PLC0415
    from scrip.logging import configure_logging  # noqa: PLC0415
    from scrip.replay.caller import why_stopped  # noqa: PLC0415
    from scrip.terminal import FileLines  # noqa: PLC0415

    configure_logging("error", "console")
    console = Console(stderr=True)
    folder = data_dir or DATA_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    log_file = folder / LOG_FILE

    async def when_ready(running: Running) -> int:
        console.print(f"Scrip serves at {running.base_url}", highlight=False)
        try:
            report = await demonstrate(running, console, requests=requests)
        except (Exception, BaseExceptionGroup) as error:
            if (why := why_stopped(error)) is None:
                raise
            console.print(f"{why}\nThe log is in {log_file}", style="red", markup=False)
            return 1
        if exit_:
            return 0 if report.ok else 1
        return await serve_on(running, str(log_file))

    console.print("Starting PostgreSQL, NATS, the API and a worker …", highlight=False)
    with FileLines(log_file) as lines:
        plan = Plan(
            data_dir=folder,
            port=port,
            ephemeral=ephemeral or data_dir is None,
            api_processes=api_processes,
            environment=child_environment("json"),
            lines=lines,
        )
        try:
            status = run(plan, when_ready)
        except Exception:
            sys.stderr.write(f"The log is in {log_file}\n")
            raise
    raise typer.Exit(status)
