"""`scrip keys` and `scrip tenants`: who may use the API. Works on the database of DATABASE_URL."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import msgspec
import typer

from scrip.database import database

keys = typer.Typer(no_args_is_help=True, help="API keys: create, list, revoke.")
tenants = typer.Typer(no_args_is_help=True, help="Tenants, one for each product: create, list.")

EXPIRES_IN_DAYS_MAX = 3_650


@keys.command(epilog="Example: scrip keys create --tenant demo --role service --label worker")
def create(
    tenant: Annotated[str, typer.Option(help="Whose key it is.")],
    role: Annotated[
        Literal["service", "admin", "reader"],
        typer.Option(help="service: spend and grant. admin: everything. reader: look."),
    ],
    label: Annotated[
        str | None, typer.Option(help="What it is for, in words.", show_default=False)
    ] = None,
    expires_in_days: Annotated[
        int | None,
        typer.Option(
            help="How long it is good for. Default: until it is revoked.",
            min=1,
            max=EXPIRES_IN_DAYS_MAX,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make a key and print it. This is the only time that anybody can see it."""
    from api.keys import UnknownTenant, create_key  # noqa: PLC0415 - not before it is needed

    expires_at = None
    if expires_in_days is not None:
        expires_at = datetime.now(UTC) + timedelta(days=expires_in_days)
    with database() as connection:
        try:
            name, secret = create_key(connection, tenant, role, label, expires_at)
        except UnknownTenant:
            typer.echo(
                f"there is no tenant {tenant!r}; create it: scrip tenants create {tenant}", err=True
            )
            raise typer.Exit(1) from None
    _print({"id": name, "tenant": tenant, "role": role, "label": label, "secret": secret})
    typer.echo("keep the secret: nobody can show it again", err=True)


@keys.command(name="list", epilog="Example: scrip keys list --tenant demo")
def list_keys(
    tenant: Annotated[
        str | None, typer.Option(help="Only keys of this tenant.", show_default=False)
    ] = None,
) -> None:
    """List keys as JSON lines, oldest first: revoked and expired ones too, never the secrets."""
    from api.keys import list_keys as list_  # noqa: PLC0415 - not before it is needed

    with database() as connection:
        for key in list_(connection, tenant):
            _print(key)


@keys.command(epilog="Example: scrip keys revoke key_4fTzKc0Qm2bW8sLd")
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id.")]) -> None:
    """Revoke a key for good. Every process refuses it within 5 seconds."""
    from api.keys import UnknownKey, revoke_key  # noqa: PLC0415 - not before it is needed

    with database() as connection:
        try:
            key = revoke_key(connection, key_id)
        except UnknownKey:
            typer.echo(f"there is no key {key_id!r}", err=True)
            raise typer.Exit(1) from None
    _print(key)


@tenants.command(name="create", epilog="Example: scrip tenants create demo --mode test")
def create_tenant(
    tenant: Annotated[str, typer.Argument(help="Its name: letters, digits, _ and -.")],
    mode: Annotated[
        Literal["live", "test"], typer.Option(help="Spelled out in each of its keys.")
    ] = "live",
) -> None:
    """Add a tenant."""
    from psycopg.errors import UniqueViolation  # noqa: PLC0415 - not before it is needed

    from api.keys import create_tenant as create_  # noqa: PLC0415
    from api.keys import is_tenant_name  # noqa: PLC0415

    if not is_tenant_name(tenant):
        raise typer.BadParameter("must be 1 to 63 letters, digits, _ and -")
    with database() as connection:
        try:
            create_(connection, tenant, mode)
        except UniqueViolation:
            typer.echo(f"there is a tenant {tenant!r} already", err=True)
            raise typer.Exit(1) from None
    _print({"tenant": tenant, "mode": mode})


@tenants.command(name="list", epilog="Example: scrip tenants list")
def list_tenants() -> None:
    """List tenants as JSON lines, by name."""
    from api.keys import list_tenants as list_  # noqa: PLC0415 - not before it is needed

    with database() as connection:
        for tenant in list_(connection):
            _print(tenant)


def _print(value: object) -> None:
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
