"""`scrip webhooks`: endpoints and their secrets. Works on the database of DATABASE_URL."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import msgspec
import typer
from pydantic import SecretStr

from scrip.settings import read_settings

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from api.sealing import SecretKeys

app = typer.Typer(
    no_args_is_help=True, help="Webhook endpoints and their secrets. Secrets are never shown again."
)

CONNECT_SECONDS_MAX = 10
EXPIRES_IN_HOURS_MAX = 24 * 365
LISTED_MAX = 1_000_000
T = TypeVar("T")
Do = Callable[["AsyncConnection[Any]", "SecretKeys | None"], Awaitable[T]]
Endpoint = Annotated[str, typer.Argument(metavar="ENDPOINT", help="The endpoint's id.")]


@app.command(name="list", epilog="Example: scrip webhooks list --tenant demo")
def list_(
    tenant: Annotated[
        str | None, typer.Option(help="Only endpoints of this tenant.", show_default=False)
    ] = None,
) -> None:
    """List endpoints as JSON lines, oldest first, with a hint of each of their secrets."""
    from api.webhook_endpoints import list_endpoints  # noqa: PLC0415 - not before it is needed

    for endpoint in _run(lambda c, _: list_endpoints(c, tenant, limit=LISTED_MAX)):
        _print(endpoint)


@app.command(epilog="Example: scrip webhooks create --tenant demo --provider stripe --label shop")
def create(
    tenant: Annotated[str, typer.Option(help="Whose endpoint it is.")],
    provider: Annotated[
        Literal["stripe", "clerk", "asaas", "users"],
        typer.Option(help="Who sends to it. users: a user system of your own."),
    ],
    label: Annotated[
        str | None, typer.Option(help="What it is for, in words.", show_default=False)
    ] = None,
    *,
    with_secret: Annotated[
        bool,
        typer.Option("--with-secret", help="Ask for its first secret, or read it from stdin."),
    ] = False,
) -> None:
    """Make an endpoint. For users a secret is made with it, and printed this once."""
    from api.webhook_endpoints import create_endpoint  # noqa: PLC0415 - not before it is needed
    from api.webhook_secrets import generate_secret  # noqa: PLC0415

    given = _read_secret() if with_secret else None
    made = generate_secret() if given is None and provider == "users" else None

    async def do(connection: AsyncConnection[Any], keys: SecretKeys | None) -> Any:
        return await create_endpoint(
            connection,
            keys,
            tenant=tenant,
            provider=provider,
            label=label,
            secret=given or made,
        )

    _print(_run(do), made)


@app.command(epilog="Example: scrip webhooks add-secret whe_3mQ8Zr0cVbN5tYxK1wLd7pHs2f <secret.txt")
def add_secret(
    endpoint: Endpoint,
    *,
    generate: Annotated[
        bool, typer.Option("--generate", help="Make one, and print it this once. For users.")
    ] = False,
    expires_in_hours: Annotated[
        int | None,
        typer.Option(
            help="How long it is good for. Default: until it is removed.",
            min=1,
            max=EXPIRES_IN_HOURS_MAX,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Add a secret, good beside those that are there. It is asked for, or read from stdin."""
    from api.webhook_endpoints import (  # noqa: PLC0415 - not before it is needed
        add_secret,
        read_endpoint,
        tenant_of,
    )
    from api.webhook_secrets import generate_secret  # noqa: PLC0415

    made = generate_secret() if generate else None
    secret = made or _read_secret()
    until = expires_in_hours and datetime.now(UTC) + timedelta(hours=expires_in_hours)

    async def do(connection: AsyncConnection[Any], keys: SecretKeys | None) -> Any:
        tenant = await tenant_of(connection, endpoint)
        if made and (await read_endpoint(connection, tenant, endpoint)).provider != "users":
            raise typer.BadParameter("--generate is for endpoints of users: a provider has its own")
        return await add_secret(
            connection,
            keys,
            tenant=tenant,
            endpoint=endpoint,
            secret=secret,
            expires_at=until or None,
        )

    _print(_run(do), made)


@app.command(
    epilog="Example: scrip webhooks remove-secret whe_3mQ8Zr0cVbN5tYxK1wLd7pHs2f"
    " whs_9bXw2LqT5vRk0ZsE"
)
def remove_secret(
    endpoint: Endpoint,
    secret: Annotated[str, typer.Argument(metavar="ID", help="The secret's id, not the secret.")],
) -> None:
    """Remove a secret for good. Every process refuses what it signs within 5 seconds."""
    from api.webhook_endpoints import remove_secret, tenant_of  # noqa: PLC0415

    async def do(connection: AsyncConnection[Any], _: SecretKeys | None) -> Any:
        tenant = await tenant_of(connection, endpoint)
        return await remove_secret(connection, tenant=tenant, endpoint=endpoint, secret=secret)

    _print(_run(do))


@app.command(epilog="Example: scrip webhooks disable whe_3mQ8Zr0cVbN5tYxK1wLd7pHs2f")
def disable(endpoint: Endpoint) -> None:
    """Take nothing more at an endpoint. Every process refuses it within 5 seconds."""
    _set_state(endpoint, "disabled")


@app.command(epilog="Example: scrip webhooks enable whe_3mQ8Zr0cVbN5tYxK1wLd7pHs2f")
def enable(endpoint: Endpoint) -> None:
    """Take what comes at an endpoint again."""
    _set_state(endpoint, "active")


@app.command(epilog="Example: SCRIP_SECRETS_KEYS=new:…,old:… scrip webhooks rotate-keys")
def rotate_keys() -> None:
    """Encrypt all secrets and all keys of providers anew with the first of SCRIP_SECRETS_KEYS.

    After that the other keys can go. The status is 1 if some secret could not be decrypted.
    """
    from api.problems import SecretsKeyMissing  # noqa: PLC0415 - not before it is needed
    from api.providers.keys import reseal_keys  # noqa: PLC0415
    from api.webhook_endpoints import Rotation, reseal  # noqa: PLC0415

    async def do(connection: AsyncConnection[Any], keys: SecretKeys | None) -> Any:
        if keys is None:
            raise SecretsKeyMissing
        async with connection.transaction():
            both = (await reseal(connection, keys), await reseal_keys(connection, keys))
        return Rotation(
            newest=keys.newest,
            resealed=sum(one.resealed for one in both),
            unreadable=sum((one.unreadable for one in both), ()),
        )

    done = _run(do)
    _print(done)
    if done.unreadable:
        typer.echo("no key of SCRIP_SECRETS_KEYS decrypts those that are named", err=True)
        raise typer.Exit(1)


def _set_state(endpoint: str, state: Literal["active", "disabled"]) -> None:
    from api.webhook_endpoints import change_endpoint, tenant_of  # noqa: PLC0415

    async def do(connection: AsyncConnection[Any], _: SecretKeys | None) -> Any:
        tenant = await tenant_of(connection, endpoint)
        return await change_endpoint(connection, tenant=tenant, endpoint=endpoint, state=state)

    _print(_run(do))


def _read_secret() -> SecretStr:
    """Read a secret: never from the arguments, which every user of the machine can list."""
    if sys.stdin.isatty():
        return SecretStr(typer.prompt("Secret", hide_input=True, err=True))
    return SecretStr(sys.stdin.read().strip())


def _run(do: Do[T]) -> T:
    """Do it on the database; a refusal is told, and ends the command with status 1."""
    from psycopg import Error  # noqa: PLC0415 - not before it is needed

    from api.keys import UnknownTenant  # noqa: PLC0415
    from api.webhook_secrets import BadSecret  # noqa: PLC0415
    from ledger.domain.errors import LedgerError  # noqa: PLC0415

    try:
        return asyncio.run(_connected(do))
    except UnknownTenant as error:
        why = f"there is no tenant {error.args[0]!r}"
    except BadSecret as error:
        why = f"the secret {error}"
    except LedgerError as error:
        why = error.detail
    except Error as error:
        why = f"the database refused: {' '.join(str(error).split())}"
    typer.echo(why, err=True)
    raise typer.Exit(1)


async def _connected(do: Do[T]) -> T:
    from psycopg import AsyncConnection  # noqa: PLC0415 - not before it is needed

    from api.sealing import SecretKeys  # noqa: PLC0415

    settings = read_settings()
    text = settings.secrets_keys
    keys = None if text is None else SecretKeys.parse(text.get_secret_value())
    connection = await AsyncConnection.connect(
        settings.database_url.get_secret_value(),
        autocommit=True,
        connect_timeout=CONNECT_SECONDS_MAX,
    )
    async with connection:
        return await do(connection, keys)


def _print(value: msgspec.Struct, made: SecretStr | None = None) -> None:
    """Print a line of JSON, with the secret that was made just now, if one was."""
    shown = msgspec.structs.asdict(value)
    if made is not None:
        shown["secret"] = made.get_secret_value()
    sys.stdout.write(msgspec.json.encode(shown).decode() + "\n")
    if made is not None:
        typer.echo("keep the secret: nobody can show it again", err=True)
