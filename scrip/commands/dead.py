"""`scrip dead`: look at messages that could not be handled, and send them on their way again."""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
import typer

from scrip.logging import configure_logging
from scrip.settings import SettingsError, read_settings

if TYPE_CHECKING:
    from nats.aio.client import Client

    from consumers.dead import DeadLetter

app = typer.Typer(help="Messages that could not be handled: list, show, redrive.")

CONNECT_SECONDS_MAX = 10.0
T = TypeVar("T")
Tenant = Annotated[str | None, typer.Option(help="Only those of this tenant.")]


@app.command(name="list", epilog="Example: scrip dead list --tenant acme --limit 20")
def list_(
    tenant: Tenant = None,
    after: Annotated[int, typer.Option(min=0, help="Begin after this id.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 50,
) -> None:
    """List dead letters as JSON lines, oldest first. To read on, give the last id as --after."""
    from consumers.dead import list_dead  # noqa: PLC0415 - not before it is needed
    from consumers.streams import jetstream  # noqa: PLC0415

    letters = _with_nats(
        lambda client: list_dead(jetstream(client), after=after, limit=limit, tenant=tenant)
    )
    for letter in letters:
        _print(_summary(letter))
    if len(letters) == limit:
        typer.echo(f"there may be more: scrip dead list --after {letters[-1].id}", err=True)
    elif not letters:
        typer.echo("no dead letters", err=True)


@app.command(epilog="Example: scrip dead show 17")
def show(letter_id: Annotated[int, typer.Argument(metavar="ID", min=1)]) -> None:
    """Print one dead letter in full: its first subject, why it is dead, its headers and payload."""
    from consumers.dead import read_dead  # noqa: PLC0415 - not before it is needed
    from consumers.streams import jetstream  # noqa: PLC0415

    letter = _with_nats(lambda client: read_dead(jetstream(client), letter_id))
    _print({**_summary(letter), "headers": letter.headers, **_payload(letter.payload)})


@app.command(epilog="Example: scrip dead redrive 17")
def redrive(
    letter_id: Annotated[int | None, typer.Argument(metavar="ID", min=1)] = None,
    *,
    all_: Annotated[bool, typer.Option("--all", help="All there are now.")] = False,
    tenant: Tenant = None,
    reason: Annotated[str | None, typer.Option(help="Only those that died of this.")] = None,
) -> None:
    """Send one dead letter, or all, to where they were first. Repeating it does no harm."""
    from consumers import dead  # noqa: PLC0415 - not before it is needed

    if (letter_id is None) != all_:
        raise typer.BadParameter("give either an ID or --all")
    if letter_id is not None:
        if tenant or reason:
            raise typer.BadParameter("--tenant and --reason go with --all")
        one = letter_id
        letter = _with_nats(lambda client: dead.redrive(client, one))
        _print({"redriven": 1, "id": str(letter.id), "subject": letter.subject})
        return
    count = _with_nats(lambda client: dead.redrive_all(client, tenant=tenant, reason=reason))
    _print({"redriven": count})


def _with_nats(act: Callable[[Client], Awaitable[T]]) -> T:
    """Do something with NATS; what it refuses ends the command with exit status 1."""
    from nats.errors import Error as NatsError  # noqa: PLC0415 - not before it is needed

    from consumers.dead import DeadLetterNotFound  # noqa: PLC0415
    from consumers.publishing import AckUnknown, Refused  # noqa: PLC0415

    settings = read_settings()
    # The connection's coming and going is no news to whoever asks once.
    configure_logging("warning", settings.log_format)
    url = settings.nats_url
    if url is None:
        raise SettingsError("NATS_URL: Field required")
    try:
        return asyncio.run(_connected(url.get_secret_value(), act))
    except DeadLetterNotFound as error:
        typer.echo(f"there is no dead letter {error}; it may have been redriven", err=True)
    except TimeoutError:
        typer.echo("NATS does not answer", err=True)
    except (NatsError, AckUnknown, Refused) as error:
        typer.echo(str(error), err=True)
    raise typer.Exit(1)


async def _connected(url: str, act: Callable[[Client], Awaitable[T]]) -> T:
    from consumers.streams import connect, ensure_streams, jetstream  # noqa: PLC0415

    async with asyncio.timeout(CONNECT_SECONDS_MAX):
        client = await connect(url, "scrip-dead")
    try:
        await ensure_streams(jetstream(client))
        return await act(client)
    finally:
        await client.close()


def _summary(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": str(letter.id),
        "tenant": letter.tenant,
        "subject": letter.subject,
        "reason": letter.reason,
        "detail": letter.detail,
        "deliveries": letter.deliveries,
        "published_at": letter.published_at,
        "dead_at": letter.dead_at,
    }


def _payload(payload: bytes) -> dict[str, Any]:
    """Return a payload as JSON where it is JSON, else as text, else as base64."""
    try:
        return {"payload": msgspec.json.decode(payload)}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return {"payload_text": payload.decode()}
    except UnicodeDecodeError:
        return {"payload_base64": base64.b64encode(payload).decode()}


def _print(value: dict[str, Any]) -> None:
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
