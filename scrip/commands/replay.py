"""`scrip replay`: run a trace of requests against a running Scrip, and check every sum."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from scrip.replay.report import Report
    from scrip.replay.running import Speed
    from scrip.replay.target import Target
    from scrip.traces import Row

app = typer.Typer()

DATA_FOLDER = Path(".scrip")
INTERRUPTED = 130


@app.command(epilog="Example: scrip replay trace.csv.gz --accounts 100 --speed max")
def replay(
    trace: Annotated[
        Path,
        typer.Argument(help="A CSV file (or .gz): TIMESTAMP, ContextTokens, GeneratedTokens."),
    ],
    *,
    accounts: Annotated[
        int, typer.Option(min=1, max=100_000, help="How many accounts; a few ask for most.")
    ] = 100,
    speed: Annotated[
        str, typer.Option(help="As it was (real), so many times faster (a number), or max.")
    ] = "max",
    base_url: Annotated[str | None, typer.Option(help="Where the API is.")] = None,
    nats_url: Annotated[str | None, typer.Option(help="Where NATS is.")] = None,
    tenant: Annotated[str | None, typer.Option(help="The tenant of the keys.")] = None,
    key: Annotated[
        str | None,
        typer.Option(
            help="A key of the role service, or admin.", envvar="REPLAY_KEY", show_default=False
        ),
    ] = None,
    admin_key: Annotated[
        str | None,
        typer.Option(
            help="A key of the role admin, if --key is none.",
            envvar="REPLAY_ADMIN_KEY",
            show_default=False,
        ),
    ] = None,
    data_dir: Annotated[
        Path, typer.Option(help="Where `scrip dev` runs: what is not given is read there.")
    ] = DATA_FOLDER,
    prefix: Annotated[
        str | None, typer.Option(help="What ids begin with. Default: made of the trace.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first rows only.")] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, max=1_000, help="Requests in flight at most.")
    ] = 64,
    seed: Annotated[int, typer.Option(help="Who asks for what.")] = 1,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the report there too.")
    ] = None,
) -> None:
    """Replay TRACE: reserve over HTTP, send the generation events over NATS, check every sum.

    The same command makes the same ids, so it may be stopped and run again: what is done stays
    done, and a second run changes nothing. Exit status: 0 all agrees, 1 something does not.
    """
    from scrip.replay.running import Speed  # noqa: PLC0415 - not before it is needed
    from scrip.replay.target import TargetError, read_target  # noqa: PLC0415
    from scrip.traces import InvalidTrace, read_trace  # noqa: PLC0415

    try:
        pace = Speed.parse(speed)
        rows = read_trace(trace, limit)
        target = read_target(
            data_dir,
            base_url=base_url,
            nats_url=nats_url,
            tenant=tenant,
            service_key=key,
            admin_key=admin_key or key,
        )
    except (InvalidTrace, TargetError, OSError) as error:
        raise typer.BadParameter(str(error)) from None
    except ValueError:
        raise typer.BadParameter("--speed must be real, max or a number above 0") from None
    console = Console(stderr=True)
    report = _finished(
        _replay(
            console,
            target,
            rows=rows,
            speed=pace,
            name=trace.name,
            accounts=accounts,
            prefix=prefix,
            seed=seed,
            concurrency=concurrency,
        ),
        console,
    )
    if json_file is not None:
        _write(report, json_file)
    raise typer.Exit(0 if report.ok else 1)


async def _replay(
    console: Console,
    target: Target,
    *,
    rows: list[Row],
    speed: Speed,
    name: str,
    accounts: int,
    prefix: str | None,
    seed: int,
    concurrency: int,
) -> Report:
    from scrip.replay.funding import ensure_rate_card  # noqa: PLC0415 - not before it is needed
    from scrip.replay.plan import FEATURE, make_plan, stem_of  # noqa: PLC0415
    from scrip.replay.report import show  # noqa: PLC0415
    from scrip.replay.running import Replay  # noqa: PLC0415
    from scrip.replay.target import Connected  # noqa: PLC0415
    from scrip.replay.terminal import Bars  # noqa: PLC0415

    async with Connected(target, connections_max=concurrency) as to:
        rates = await ensure_rate_card(to.admin, FEATURE)
        plan = make_plan(
            rows, name=stem_of(name), models=rates, accounts=accounts, seed=seed, prefix=prefix
        )
        console.print(
            f"{len(plan.jobs):,} requests of {len(plan.accounts):,} accounts, speed {speed},"
            f" ids {plan.prefix}-job-…"
        )
        with Bars(console, len(plan.jobs)) as bars:
            replay = Replay(
                plan,
                service=to.service,
                admin=to.admin,
                sender=to.sender,
                speed=speed,
                progress=bars,
                concurrency=concurrency,
            )
            report = await replay.run(rates)
    show(report, console)
    return report


def _finished(running: Coroutine[Any, Any, Report], console: Console) -> Report:
    """Run to the end; a server that stays away, a refusal and Ctrl-C end the command."""
    import uvloop  # noqa: PLC0415 - not before it is needed

    from scrip.logging import configure_logging  # noqa: PLC0415
    from scrip.replay.caller import why_stopped  # noqa: PLC0415

    configure_logging("error", "console")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(running)
        except KeyboardInterrupt:
            status, why = INTERRUPTED, "Stopped."
        except (Exception, BaseExceptionGroup) as error:
            status, why = 1, why_stopped(error) or ""
            if not why:
                raise
    console.print(why, style="red", markup=False)
    console.print("What is done stays done: run the same command again to go on.")
    raise typer.Exit(status)


def _write(report: Report, file: Path) -> None:
    import msgspec  # noqa: PLC0415 - not before it is needed

    document = {**msgspec.to_builtins(report), "ok": report.ok}
    file.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
