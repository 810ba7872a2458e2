"""`scrip provider-server`: Stripe and Asaas, pretended on this machine. Nothing is charged."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

app = typer.Typer()

PORT = 8010


@app.command(name="provider-server", epilog="Example: scrip provider-server --port 8010")
def provider_server(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="The port to listen on.")] = PORT,
) -> None:
    """Answer as Stripe and Asaas do, and send webhooks as they do. All is lost when it ends.

    Whoever is sent to pay finds a page with a button. Start Scrip with the variables it prints.
    """
    from scrip.provider_server.server import (  # noqa: PLC0415 - not before it is needed
        ASAAS_KEY,
        STRIPE_KEY,
        ProviderServer,
    )
    from scrip.spawn import PortInUseError  # noqa: PLC0415

    try:
        with ProviderServer(port) as server:
            typer.echo(f"SCRIP_STRIPE_API_URL={server.stripe_url}")
            typer.echo(f"SCRIP_ASAAS_API_URL={server.asaas_url}")
            typer.echo(f"Stripe's API key: {STRIPE_KEY}", err=True)
            typer.echo(f"Asaas' API key: {ASAAS_KEY}", err=True)
            typer.echo("Ctrl-C ends it.", err=True)
            _wait_for_the_end()
    except OSError as error:
        raise PortInUseError(f"cannot listen on port {port}: {error.strerror}") from None


def _wait_for_the_end() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        signal.pause()
    except KeyboardInterrupt:
        return
