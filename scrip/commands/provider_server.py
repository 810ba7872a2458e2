"""`scrip provider-server`: Stripe and Asaas for trying out, on this machine. Nothing is charged."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Annotated

import msgspec
import typer

PORT_DEFAULT = 8012
SIGNALS = (signal.SIGINT, signal.SIGTERM)

app = typer.Typer()


@app.command(name="provider-server", epilog="Example: scrip provider-server --port 8012")
def provider_server(
    port: Annotated[
        int, typer.Option(help="The port it listens on; 0: any that is free.", min=0, max=65_535)
    ] = PORT_DEFAULT,
) -> None:
    """Answer as Stripe and Asaas do, here, until Ctrl-C, and send webhooks as they do.

    Its addresses and API keys are printed as a line of JSON. It keeps all in memory.
    """
    from scrip.provider_server.server import (  # noqa: PLC0415 - not before it is needed
        ASAAS_KEY,
        STRIPE_KEY,
        ProviderServer,
    )

    stop = threading.Event()
    for number in SIGNALS:
        signal.signal(number, lambda *_: stop.set())
    try:
        with ProviderServer(port) as server:
            told = {
                "stripe_api_url": server.stripe_url,
                "stripe_api_key": STRIPE_KEY,
                "asaas_api_url": server.asaas_url,
                "asaas_api_key": ASAAS_KEY,
            }
            sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
            sys.stdout.flush()
            typer.echo("nothing is charged here; Ctrl-C ends it", err=True)
            stop.wait()
    except OSError as error:
        why = os.strerror(error.errno or 0)
        typer.echo(f"cannot listen on port {port}: {why}", err=True)
        raise typer.Exit(1) from None
