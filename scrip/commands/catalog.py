"""`scrip catalog`: a tenant's catalog as a TOML file. Works on the database of DATABASE_URL."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from scrip.database import database, ledger_store

if TYPE_CHECKING:
    from ledger.writer import Writer
    from scrip.catalog_file import Change, Wanted

app = typer.Typer(
    no_args_is_help=True, help="What is sold and what it costs: example, validate, apply, show."
)

Tenant = Annotated[str, typer.Option(help="Whose catalog it is.")]
File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", exists=True, dir_okay=False, readable=True, help="The catalog, as TOML."
    ),
]
REASON_MAX = 500


@app.command(epilog="Example: scrip catalog example > catalog.toml")
def example() -> None:
    """Print a catalog to begin with: two features, a free and two paid plans, two packs."""
    sys.stdout.write((files("scrip") / "examples" / "catalog.toml").read_text("utf-8"))


@app.command(epilog="Example: scrip catalog show --tenant demo > catalog.toml")
def show(tenant: Tenant) -> None:
    """Print the whole catalog as TOML that `apply` takes: each entry in its newest version.

    `effective_at` is printed where a version is in force only later.
    """
    from scrip.catalog_file import write_file  # noqa: PLC0415 - not before it is needed

    with _writer(tenant) as writer:
        catalog = writer.catalog(tenant).result()
    sys.stdout.write(write_file(catalog, datetime.now(UTC)))


@app.command(epilog="Example: scrip catalog validate catalog.toml")
def validate(file: File) -> None:
    """Check a file, without a database. Exits with 1 and names every entry that breaks a rule."""
    from ledger.domain.catalog import Catalog  # noqa: PLC0415 - not before it is needed

    wanted = _read(file)
    _changes(Catalog(), wanted)
    typer.echo(f"{file}: {_count(len(wanted), 'entry', 'entries')}, all in order", err=True)


@app.command(
    epilog="Examples: scrip catalog apply catalog.toml --tenant demo --dry-run;"
    ' scrip catalog apply catalog.toml --tenant demo --reason "new prices"'
)
def apply(
    file: File,
    tenant: Tenant,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would change, and change nothing.")
    ] = False,
    reason: Annotated[
        str | None,
        typer.Option(help="Why, in words; kept in the audit trail.", show_default=False),
    ] = None,
) -> None:
    """Make the catalog what a file says; prints each entry that differs as a JSON line.

    What the file does not name stays as it is. To apply a file again does nothing. Only a whole
    file that breaks no rule is applied.
    """
    if reason is not None and not 1 <= len(reason) <= REASON_MAX:
        raise typer.BadParameter(f"must be 1 to {REASON_MAX} characters", param_hint="--reason")
    wanted = _read(file)
    with _writer(tenant) as writer:
        changes = _changes(writer.catalog(tenant).result(), wanted)
        for change in changes:
            _print(change, None if dry_run else _put(writer, change, tenant, reason))
    differ = _count(len(changes), "entry differs", "entries differ")
    done = "nothing was changed" if dry_run or not changes else "applied"
    typer.echo(f"{differ} of {len(wanted)}; {done}", err=True)


def _read(file: Path) -> list[Wanted]:
    from scrip.catalog_file import (  # noqa: PLC0415 - not before it is needed
        FILE_BYTES_MAX,
        CatalogFileError,
        read_file,
    )

    if file.stat().st_size > FILE_BYTES_MAX:
        raise _refusal(f"{file} has more than {FILE_BYTES_MAX} bytes")
    try:
        return read_file(file.read_text("utf-8"))
    except UnicodeDecodeError:
        raise _refusal(f"{file} is not UTF-8") from None
    except CatalogFileError as fault:
        raise _refusal(*fault.complaints) from None


def _changes(catalog: Any, wanted: list[Wanted]) -> list[Change]:
    from scrip.catalog_file import CatalogFileError, changes_to  # noqa: PLC0415 - as above

    try:
        return changes_to(catalog, wanted, datetime.now(UTC))
    except CatalogFileError as fault:
        raise _refusal(*fault.complaints) from None


def _put(writer: Writer, change: Change, tenant: str, reason: str | None) -> int:
    """Put one version and return its position."""
    from ledger.domain.errors import LedgerError  # noqa: PLC0415 - not before it is needed

    try:
        outcome = writer.submit(change.order(tenant, reason)).result()
    except LedgerError as refusal:
        raise _refusal(f"{change.place}: {refusal.detail}") from None
    assert outcome.recorded is not None, "to put a version makes an event"
    return outcome.recorded.position


@contextmanager
def _writer(tenant: str) -> Iterator[Writer]:
    """Open the ledger to read and to write it, for a tenant that there is."""
    from api.keys import list_tenants  # noqa: PLC0415 - not before it is needed
    from ledger.writer import Writer  # noqa: PLC0415

    with database() as connection:
        if tenant not in {one.tenant for one in list_tenants(connection)}:
            raise _refusal(f"there is no tenant {tenant!r}: scrip tenants create {tenant}")
    with ledger_store() as store, Writer(store) as writer:
        yield writer


def _refusal(*lines: str) -> typer.Exit:
    for line in lines:
        typer.echo(line, err=True)
    return typer.Exit(1)


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _print(change: Change, position: int | None) -> None:
    line = {
        "entry": change.place,
        "version": change.version,
        "changes": [
            {"field": field, "from": was, "to": will_be} for field, was, will_be in change.fields
        ],
        "position": None if position is None else str(position),
    }
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
