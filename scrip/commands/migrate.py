"""`scrip migrate`: bring the schema up to date."""

import json
import sys

import typer
from psycopg.conninfo import conninfo_to_dict

from scrip.settings import SettingsError, read_settings

app = typer.Typer()


@app.command(
    epilog="Example: DATABASE_OWNER_URL=postgresql://scrip_owner:…@db/scrip "
    "DATABASE_URL=postgresql://scrip_app:…@db/scrip scrip migrate"
)
def migrate() -> None:
    """Bring the schema up to date, as its owner, and print what was applied.

    Any number of these may run at once. The role of DATABASE_URL is granted what services need.
    """
    from ledger.migrate import MigrationRefused  # noqa: PLC0415 - not before it is needed
    from ledger.migrate import migrate as apply  # noqa: PLC0415

    settings = read_settings()
    if settings.database_owner_url is None:
        raise SettingsError("DATABASE_OWNER_URL: Field required")
    role = conninfo_to_dict(settings.database_url.get_secret_value()).get("user")
    if not role:
        raise SettingsError("DATABASE_URL: must name the role of the services")
    try:
        applied = apply(settings.database_owner_url.get_secret_value(), str(role))
    except MigrationRefused as refusal:
        typer.echo(str(refusal), err=True)
        raise typer.Exit(1) from None
    for name in applied:
        sys.stdout.write(json.dumps({"applied": name}) + "\n")
    if not applied:
        typer.echo("the schema is up to date", err=True)
