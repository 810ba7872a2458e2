"""`scrip reconcile`: is all in the ledger that Stripe or Asaas says was paid and given back?"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from scrip.settings import SettingsError, read_settings

if TYPE_CHECKING:
    from scrip.reconcile.running import Found, Run

app = typer.Typer()

WIDTH = 140
"""Of a table that goes to a file."""
CANNOT = 2


@app.command(
    epilog="Examples:\n\nscrip reconcile stripe --tenant demo --since 2026-11-01\n\n"
    "scrip reconcile asaas --tenant demo --since 2026-11-01 --apply\n\n"
    "SCRIP_RECONCILE_API_KEY=rk_live_… scrip reconcile stripe --tenant shop --since 2026-11-01"
    " --json >differences.jsonl"
)
def reconcile(
    provider: Annotated[Literal["stripe", "asaas"], typer.Argument(help="Whom to ask.")],
    tenant: Annotated[str, typer.Option(help="Whose payments they are.")],
    since: Annotated[
        datetime,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"],
            metavar="DATE",
            help="Only payments, refunds and disputes made then or later: 2026-11-01, or"
            " 2026-11-01T12:00:00Z, in UTC.",
        ),
    ],
    *,
    apply: Annotated[
        bool, typer.Option("--apply", help="Send workers the facts that mend what differs.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON lines, not a table.")] = False,
    state: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="Where to keep what was read, to go on after an interruption; removed at the end."
            " Default: scrip-reconcile-PROVIDER-TENANT.jsonl, here.",
            show_default=False,
        ),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew where an earlier run was interrupted.")
    ] = False,
) -> None:
    """Compare what a provider says was paid, refunded and disputed with credits given and taken.

    Asks with the tenant's API key, or with SCRIP_RECONCILE_API_KEY.
    Goes on where an interrupted run has stopped.

    Exit status: 0 nothing differs; 1 something does, also if it is
    being mended; 2 it cannot be told.
    """
    from scrip.reconcile.running import Run  # noqa: PLC0415 - not before it is needed

    begin, now = since.replace(tzinfo=UTC), datetime.now(UTC)
    if begin > now:
        raise typer.BadParameter("must not be in the future", param_hint="--since")
    settings = read_settings()
    if apply and settings.nats_url is None:
        raise SettingsError("NATS_URL: must be set for --apply")
    run = Run(
        settings=settings,
        provider=provider,
        tenant=tenant,
        since=begin,
        began_at=now,
        path=state or Path(f"scrip-reconcile-{provider}-{tenant}.jsonl"),
        restart=restart,
        apply=apply,
    )
    with _refusals(run):
        found = _found(run)
    _print(found, json=json)
    if found.comparison.differences:
        raise typer.Exit(1)


def _found(run: Run) -> Found:
    from ledger.writer import Writer  # noqa: PLC0415
    from scrip.database import ledger_store  # noqa: PLC0415 - not before it is needed
    from scrip.logging import configure_logging  # noqa: PLC0415
    from scrip.reconcile.report import Bars  # noqa: PLC0415
    from scrip.reconcile.running import reconcile  # noqa: PLC0415

    with (
        ledger_store() as store,
        Writer(store) as writer,
        Bars(Console(stderr=True)) as bars,
    ):
        # Whoever asks a provider logs each request: no news for whoever watches the bars.
        configure_logging("warning", run.settings.log_format)
        return asyncio.run(reconcile(run, writer, bars))


@contextmanager
def _refusals(run: Run) -> Iterator[None]:
    """Tell what keeps a run from its end, and end with 2: 1 says that something differs."""
    from nats.errors import Error as NatsError  # noqa: PLC0415 - not before it is needed
    from psycopg import Error  # noqa: PLC0415

    from consumers.publishing import AckUnknown, Refused  # noqa: PLC0415
    from ledger.domain.errors import LedgerError  # noqa: PLC0415
    from scrip.reconcile.notebook import NotebookError  # noqa: PLC0415
    from scrip.reconcile.running import CannotReconcile  # noqa: PLC0415

    goes_on = True
    try:
        yield
    except typer.Exit:
        raise typer.Exit(CANNOT) from None  # The ledger did not open, and has said why.
    except (CannotReconcile, NotebookError) as error:
        why = str(error)
        goes_on = False
    except LedgerError as error:
        why = error.detail
    except KeyboardInterrupt:
        why = "interrupted"
    except Error as error:
        why = f"the database refused: {' '.join(str(error).split())}"
    except (NatsError, AckUnknown, Refused, TimeoutError) as error:
        why = f"NATS has not stored all facts: {str(error) or type(error).__name__}"
    else:
        return
    typer.echo(why, err=True)
    if goes_on and run.path.exists():
        typer.echo(f"the same command goes on from what is in {run.path}", err=True)
    raise typer.Exit(CANNOT)


def _print(found: Found, *, json: bool) -> None:
    from scrip.reconcile.report import line_of, table_of  # noqa: PLC0415 - as above

    differences = found.comparison.differences
    if json:
        for one in differences:
            sys.stdout.buffer.write(line_of(one))
        sys.stdout.buffer.flush()
    elif differences:
        console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
        console.print(table_of(differences))
    told = f"{found.comparison.payments} payments compared, {len(differences)} differences"
    if found.sent:
        told += f"; {found.sent} facts sent: workers bring them to the ledger"
    typer.echo(told, err=True)
