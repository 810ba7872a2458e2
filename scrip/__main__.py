"""The command line. A new command is a file in `scrip.commands` and a line in COMMANDS.

Data goes to standard output, words to standard error. Exit status: 0 done, 1 refused, 2 misused.
"""

import sys

import typer

from scrip.commands import (
    catalog,
    dead,
    demo,
    dev,
    keys,
    migrate,
    projections,
    provider_server,
    reconcile,
    replay,
    serve,
    verify,
    webhooks,
)
from scrip.settings import SettingsError
from scrip.spawn import FolderInUseError, PortInUseError, ServerStartError
from scrip.supervisor import CannotKeepUpError

# Each file's commands, and the word they stand behind, if any.
COMMANDS: tuple[tuple[typer.Typer, str | None], ...] = (
    (dev.app, None),
    (demo.app, None),
    (replay.app, None),
    (serve.app, "serve"),
    (migrate.app, None),
    (keys.keys, "keys"),
    (keys.tenants, "tenants"),
    (webhooks.app, "webhooks"),
    (provider_server.app, None),
    (reconcile.app, None),
    (catalog.app, "catalog"),
    (dead.app, "dead"),
    (projections.app, "projections"),
    (verify.app, None),
)

REFUSALS = (CannotKeepUpError, FolderInUseError, PortInUseError, ServerStartError)

# Pretty tracebacks would show local variables, and with them secrets.
app = typer.Typer(
    name="scrip",
    help="Event-sourced credits and billing for products that sell AI generations.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for commands, word in COMMANDS:
    app.add_typer(commands, name=word)


def main() -> None:
    """Run the command that the arguments name."""
    try:
        app()
    except SettingsError as misuse:
        sys.stderr.write(f"{misuse}\n")
        sys.exit(2)
    except REFUSALS as refusal:
        sys.stderr.write(f"{refusal}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
