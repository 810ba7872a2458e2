"""A run that is stopped, slowed down or told wrong things, and what it shows meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Self

import pytest
from psycopg import AsyncConnection
from pydantic import SecretStr

from api.providers.keys import put_key
from api.sealing import SecretKeys
from tests.reconcile.shop import TENANT, Shop, wait_for

SECRETS_KEYS = "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
CANARY = "CanaryOfTheApiKey"
NOTES = "scrip-reconcile-{}-acme.jsonl"


class Terminal:
    """A command in front of somebody who watches it."""

    def __init__(self, command: list[str], environment: dict[str, str], folder: Path) -> None:
        watched, shown = pty.openpty()
        self._watched = watched
        self._parts: list[bytes] = []
        environment = environment | {"TERM": "xterm", "COLUMNS": "100"}
        self.process = subprocess.Popen(
            command, env=environment, cwd=folder, stderr=shown, stdout=subprocess.DEVNULL
        )
        os.close(shown)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the command, if a test has failed before its end."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        os.close(self._watched)

    def end(self) -> tuple[int, str]:
        """Wait for its end; return its status and what was shown."""
        status = self.process.wait(timeout=60)
        self._reader.join()
        return status, b"".join(self._parts).decode()

    def _read(self) -> None:
        try:
            while part := os.read(self._watched, 4_096):
                self._parts.append(part)
        except OSError:
            return  # Nobody writes to it any more.


def test_ctrl_c_ends_a_run_that_then_goes_on_after_its_last_page(shop: Shop) -> None:
    for _ in range(350):
        shop.pay_asaas()
    asaas, notes = shop.asaas, shop.folder / NOTES.format("asaas")
    asaas.slow_down(1, "0")
    watched = shop.command("asaas"), shop.environment("asaas"), shop.folder
    with Terminal(*watched) as terminal:
        wait_for(lambda: len(asaas.requests) >= 3)  # One was refused: two pages are asked for.
        asaas.slow_down(1, "60")
        wait_for(lambda: not asaas.faults)
        terminal.process.send_signal(signal.SIGINT)
        status, shown = terminal.end()
    assert status == 2
    assert "payments" in shown  # The bar.
    assert "interrupted" in shown
    assert f"the same command goes on from what is in {notes.name}" in shown
    pages = len(notes.read_text().splitlines()) - 1
    assert pages in {2, 3}

    asaas.requests.clear()
    asaas.slow_down(1, "1")
    with Terminal(*watched) as terminal:
        wait_for(lambda: asaas.requests)
        refused_at = time.monotonic()
        wait_for(lambda: len(asaas.requests) > 1)
        assert time.monotonic() - refused_at > 0.95  # It paused for as long as it was told to.
        status, shown = terminal.end()
    assert status == 1
    assert "going on with the run of" in shown
    assert "350 payments compared, 350 differences" in shown
    assert len(asaas.requests) == 1 + 4 - pages
    assert not notes.exists()


def test_a_pause_that_is_too_long_ends_the_run_and_what_was_read_stays(shop: Shop) -> None:
    shop.stripe.pay(shop.checkout()["id"])
    stripe, notes = shop.stripe, shop.folder / NOTES.format("stripe")
    stripe.slow_down(1, "601")
    done = shop.reconcile("stripe")
    assert (done.returncode, done.stdout) == (2, "")
    assert "stripe" in done.stderr
    assert notes.name in done.stderr
    assert [one["what"] for one in shop.found("stripe")] == ["missing"]


@pytest.mark.parametrize("provider", ["stripe", "asaas"])
def test_the_key_of_the_tenant_is_used_and_told_nowhere(shop: Shop, provider: str) -> None:
    begin = "sk_test_" if provider == "stripe" else "$aact_hmlg_"
    book = shop.stripe if provider == "stripe" else shop.asaas
    book.key = begin + CANARY
    asyncio.run(seal(shop, provider, book.key))
    if provider == "stripe":
        shop.stripe.pay(shop.checkout()["id"])
    else:
        shop.pay_asaas()
    environment = shop.environment(SCRIP_SECRETS_KEYS=SECRETS_KEYS)
    del environment["SCRIP_RECONCILE_API_KEY"]
    wrong = environment | {"SCRIP_SECRETS_KEYS": SECRETS_KEYS.replace("k1", "k2")}
    nowhere = {f"SCRIP_{provider.upper()}_API_URL": "http://127.0.0.1:1/v3"}
    given = environment | {"SCRIP_RECONCILE_API_KEY": book.key}

    said = []
    notes = shop.folder / NOTES.format(provider)
    with subprocess.Popen(
        shop.command(provider),
        env=given | nowhere,
        cwd=shop.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as stopped:
        wait_for(notes.exists)
        time.sleep(0.3)
        stopped.send_signal(signal.SIGINT)
        said.append(stopped.communicate(timeout=60)[0])
        assert stopped.returncode == 2
    said.append(notes.read_text())
    before, asked = len(book.requests), []
    for variables, status in ((wrong, 2), (environment, 1), (given, 1)):
        done = subprocess.run(
            shop.command(provider, "--apply"),
            env=variables | {"SCRIP_LOG_LEVEL": "debug"},
            cwd=shop.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, done.stderr
        said += [done.stdout, done.stderr]
        asked.append(len(book.requests) - before)
    assert asked[0] == 0
    assert 0 < asked[1] < asked[2]
    book.key = begin + "another_one_0001"
    done = shop.reconcile(provider, SCRIP_RECONCILE_API_KEY=given["SCRIP_RECONCILE_API_KEY"])
    assert done.returncode == 2
    said += [done.stdout, done.stderr]
    assert CANARY not in "".join(said)


async def seal(shop: Shop, provider: str, key: str) -> None:
    assert provider in {"stripe", "asaas"}
    async with await AsyncConnection.connect(shop.urls.app_url) as connection:
        await put_key(
            connection,
            SecretKeys.parse(SECRETS_KEYS),
            tenant=TENANT,
            provider=provider,  # type: ignore[arg-type]
            value=SecretStr(key),
        )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--since", "01.11.2026"), "does not match"),
        (("--since", "2999-01-01"), "must not be in the future"),
        (("--tenant", "nobody"), "there is no tenant 'nobody'"),
        (("--state", "nowhere/run.jsonl"), "No such file or directory"),
    ],
)
def test_what_is_asked_wrong_is_told(shop: Shop, words: tuple[str, ...], says: str) -> None:
    done = shop.reconcile("stripe", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in " ".join(done.stderr.replace("│", " ").split())
    assert not shop.stripe.requests


def test_a_file_of_something_else_is_left_alone(shop: Shop) -> None:
    letters = shop.folder / "letters.txt"
    letters.write_text(json.dumps({"dear": "friend"}) + "\n")
    done = shop.reconcile("stripe", "--state", "letters.txt")
    assert done.returncode == 2
    assert "choose another file" in done.stderr
    assert "goes on" not in done.stderr
    assert letters.read_text() == '{"dear": "friend"}\n'
