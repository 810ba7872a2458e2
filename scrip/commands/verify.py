"""`scrip verify`: prove that nothing in the ledger was altered, and that all agrees with it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from scrip.settings import read_settings

if TYPE_CHECKING:
    from ledger.store import Store
    from projections.compare import Difference

app = typer.Typer()

Told = dict[str, Any]


@app.command(epilog="Example: scrip verify --tenant demo --chains-only")
def verify(
    tenant: Annotated[
        str | None, typer.Option(help="Only this tenant.", show_default=False)
    ] = None,
    account: Annotated[
        str | None, typer.Option(help="Only accounts of this id.", show_default=False)
    ] = None,
    *,
    chains_only: Annotated[
        bool, typer.Option("--chains-only", help="Check the hash chains and nothing else: faster.")
    ] = False,
) -> None:
    """Check every event against its hash chain, its account's balance, and what is made of it.

    Each stream's first wrong row is printed as a line of JSON, and so is each wrong snapshot and
    each row of a projection that is not what the events make. Exit status: 0 nothing is wrong, 1
    something is, or could not be checked. Services may go on meanwhile.
    """
    from eventsourcing.persistence import PersistenceError  # noqa: PLC0415 - as below

    from ledger.guard import RefusedToStart  # noqa: PLC0415 - not before it is needed
    from ledger.store import Store  # noqa: PLC0415 - not before it is needed

    url = read_settings().database_url.get_secret_value()
    try:
        store = Store.open(url)
    except RefusedToStart as refusal:
        typer.echo(str(refusal), err=True)
        raise typer.Exit(1) from None
    except PersistenceError:
        typer.echo("PostgreSQL does not answer", err=True)
        raise typer.Exit(1) from None
    with _progress() as progress:
        try:
            ledger = _Counted(progress)
            found = _print_all(_ledger(url, tenant, account, ledger, chains_only=chains_only))
            if not chains_only and not found:
                found = _print_all(_projections(store, tenant, account, progress))
            elif not chains_only:
                # What is made of wrong events is wrong too: that would only hide the cause.
                progress.console.print("the projections were not compared with altered events")
        finally:
            store.close()
    if not ledger.events and (tenant or account):
        typer.echo("there are no events of this tenant or account", err=True)
        raise typer.Exit(1)
    says = f"{found} found" if found else "nothing is wrong"
    typer.echo(f"{says} in {ledger.events} events", err=True)
    if found:
        raise typer.Exit(1)


class _Counted:
    """How many events have been checked, shown as they are."""

    def __init__(self, progress: Progress) -> None:
        self.events = 0
        self._progress = progress
        self._task = progress.add_task("events", total=None)

    def told(self, done: int, total: int) -> None:
        self.events = done
        self._progress.update(self._task, completed=done, total=total)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


def _print_all(findings: Iterator[Told]) -> int:
    count = 0
    for finding in findings:
        sys.stdout.write(msgspec.json.encode(finding).decode() + "\n")
        sys.stdout.flush()
        count += 1
    return count


def _ledger(
    url: str, tenant: str | None, account: str | None, counted: _Counted, *, chains_only: bool
) -> Iterator[Told]:
    from ledger.verify import verify as verify_ledger  # noqa: PLC0415 - not before it is needed

    for finding in verify_ledger(
        url,
        tenant=tenant,
        account=account,
        chains_only=chains_only,
        progress=counted.told,
    ):
        position = None if finding.position is None else str(finding.position)
        yield {**msgspec.structs.asdict(finding), "position": position}


def _projections(
    store: Store, tenant: str | None, account: str | None, progress: Progress
) -> Iterator[Told]:
    from projections.rebuild import RebuildRunning, differences  # noqa: PLC0415 - as above
    from projections.registry import PROJECTIONS  # noqa: PLC0415 - as above
    from projections.status import read_status  # noqa: PLC0415 - as above
    from projections.tables import connect  # noqa: PLC0415 - as above

    for projection in PROJECTIONS:
        task = progress.add_task(projection.name, total=None)

        def told(done: int, total: int, task: Any = task) -> None:
            progress.update(task, completed=done, total=total)

        try:
            for difference in differences(store, projection.name, progress=told):
                if _is_about(difference, tenant, account):
                    yield {
                        "rule": "projection",
                        "table": difference.table,
                        "key": difference.key,
                        "what": str(difference),
                    }
        except RebuildRunning as running:
            yield {"rule": "projection", "table": projection.name, "what": str(running)}
    with connect(store) as connection:
        for status in read_status(connection):
            if status.error is not None:
                what = f"stopped at position {status.position}: {status.error.error}"
                yield {"rule": "projection", "table": status.name, "what": what}


def _is_about(difference: Difference, tenant: str | None, account: str | None) -> bool:
    row = difference.rebuilt or difference.live or {}
    return tenant in {None, row.get("tenant")} and account in {None, row.get("account")}
