import os
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
import typer.main

from scrip.__main__ import app
from scrip.embedded import EmbeddedPostgres
from scrip.settings import MISSING, VARIABLES


def scrip(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line with these settings and no others."""
    inherited = {k: v for k, v in os.environ.items() if k not in VARIABLES}
    return subprocess.run(
        [sys.executable, "-m", "scrip", *words],
        capture_output=True,
        text=True,
        env={**inherited, **environment},
        timeout=120,
        check=False,
    )


def walk(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, inner in getattr(command, "commands", {}).items():
        if hasattr(inner, "commands"):
            yield from walk(inner, (*words, name))
        else:
            yield (*words, name)


COMMANDS = sorted(walk(typer.main.get_command(app)))


def test_the_command_line_is_whole() -> None:
    assert {("dev",), ("migrate",), ("serve", "api"), ("serve", "worker")} <= set(COMMANDS)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_with_an_example(words: tuple[str, ...]) -> None:
    command: click.Command = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]  # type: ignore[attr-defined]
    assert command.help
    assert command.epilog is not None
    assert "Example" in command.epilog
    assert f"scrip {' '.join(words)}" in command.epilog
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help


def test_help_is_shown_without_an_environment() -> None:
    done = scrip("serve", "api", "--help")
    assert done.returncode == 0
    assert "Example" in done.stdout


def test_a_missing_setting_is_misuse() -> None:
    done = scrip("serve", "worker")
    assert (done.returncode, done.stderr) == (2, f"DATABASE_URL: {MISSING}\n")


def test_an_unknown_setting_is_misuse() -> None:
    done = scrip("dev", "--ephemeral", SCRIP_HTTP_PROT="1")
    assert done.returncode == 2
    assert done.stderr == "SCRIP_HTTP_PROT: no such setting; did you mean SCRIP_HTTP_PORT?\n"


def test_migrate_says_what_it_applied_and_then_that_there_is_nothing(
    postgres_server: EmbeddedPostgres,
) -> None:
    urls = postgres_server.create_database("migrated_by_command")
    environment = {"DATABASE_URL": urls.app_url, "DATABASE_OWNER_URL": urls.owner_url}
    first, second = (scrip("migrate", **environment) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0)
    assert first.stdout.startswith('{"applied": "0001')
    assert (second.stdout, second.stderr) == ("", "the schema is up to date\n")


def test_migrate_needs_the_owner() -> None:
    done = scrip("migrate", DATABASE_URL="postgresql://scrip_app@127.0.0.1/scrip")
    assert (done.returncode, done.stderr) == (2, "DATABASE_OWNER_URL: Field required\n")
