"""`scrip serve api` and `scrip serve worker`: one process each, set up by the environment."""

import typer

from scrip.logging import configure_logging
from scrip.settings import Settings, read_settings

app = typer.Typer(no_args_is_help=True, help="Run one process of a deployment.")


@app.command(epilog="Example: DATABASE_URL=postgresql://scrip_app:…@db/scrip scrip serve api")
def api() -> None:
    """Serve HTTP. Any number of these may share one database.

    See .env.example for the settings.
    """
    settings = _ready_to_serve()
    from scrip.processes import serve_api  # noqa: PLC0415 - a worker needs none of it

    raise typer.Exit(serve_api(settings))


@app.command(
    epilog="Example: DATABASE_URL=postgresql://scrip_app:…@db/scrip NATS_URL=nats://nats:4222 "
    "scrip serve worker"
)
def worker() -> None:
    """Run the projections, the consumers, the outbox and the deadlines.

    Any number of these may share one database. See .env.example for the settings.
    """
    settings = _ready_to_serve()
    from scrip.processes import serve_worker  # noqa: PLC0415 - an API process needs none of it

    raise typer.Exit(serve_worker(settings))


def _ready_to_serve() -> Settings:
    settings = read_settings()
    configure_logging(settings.log_level, settings.log_format)
    return settings
