import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from tests.scrip.stack import Running, command_line, ready, start, until


@contextmanager
def dev(folder: Path, *words: str) -> Iterator[Running]:
    """Run `scrip dev` until it says where it serves, and stop it at the end."""
    with start("dev", words, folder) as running:
        until(lambda: ready(running), "scrip dev")
        yield running


def test_everything_serves_and_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with dev(folder, "--api-processes", "2") as running:
        says = running.says
        assert stat.S_IMODE((folder / "dev.json").stat().st_mode) == 0o600
        assert set(says["keys"]) == {"service", "admin", "reader"}
        assert running.is_ready
        kept = json.loads((folder / "secrets-keys.json").read_text())
        assert stat.S_IMODE((folder / "secrets-keys.json").stat().st_mode) == 0o600
        assert kept == {"SCRIP_SECRETS_KEYS": says["secrets_keys"]}
        made = httpx.post(
            says["base_url"] + "/v1/webhook-endpoints",
            json={"provider": "users"},
            headers={"Authorization": f"Bearer {says['keys']['admin']}", "Idempotency-Key": "k"},
            timeout=30,
        )
        assert made.status_code == 201
        with psycopg.connect(says["database_url"]) as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("scrip_app",)
        names = [command_line(process) for process in running.family]
        assert sum("serve api" in name for name in names) == 2
        # As a terminal does it: to the whole foreground group.
        assert running.interrupt(os.killpg) == 0
    for left in ("dev.json", "lock", "postgres/lock", "nats/lock", "postgres/data/postmaster.pid"):
        assert not (folder / left).exists()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", int(says["base_url"].rpartition(":")[2])))


def test_whatever_is_killed_comes_back_and_an_ephemeral_one_keeps_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with dev(folder, "--ephemeral") as running:
        before = running.says
        data = Path(running.child("/postgres -D").cmdline()[2])
        assert data.exists()
        assert not data.is_relative_to(folder)
        for words in ("serve api", "serve worker", "/postgres", "/nats-server"):
            victim = running.kill(words)
            until(lambda victim=victim: not victim.is_running(), f"the end of {words}")
            until(lambda: running.is_ready, f"another {words}")
        until(lambda: len({p.pid for p in running.family}) >= 4, "all of them")
        worker = before["worker_url"] + "/health/ready"

        def worker_is_ready() -> bool:
            try:
                return httpx.get(worker, timeout=5).is_success
            except httpx.HTTPError:
                return False

        until(worker_is_ready, "the worker")
        assert running.says == before
    assert not data.exists()


def test_a_second_one_on_the_same_folder_is_refused_and_a_killed_one_leaves_nothing(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "data"
    command = [sys.executable, "-m", "scrip", "dev", "--data-dir", str(folder)]
    with dev(folder) as running:
        keys, family = running.says["keys"], running.family
        secrets_keys = running.says["secrets_keys"]
        second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert second.returncode == 1
        assert f"in use by process {running.process.pid}" in second.stderr
        port = running.says["base_url"].rpartition(":")[2]
        third = subprocess.run(
            [*command[:-1], str(tmp_path / "other"), "--port", port],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (third.returncode, third.stderr) == (1, f"another program listens on port {port}\n")
        running.process.kill()
        psutil.wait_procs(family, timeout=20)
        assert not [p for p in family if p.is_running()]
    (folder / "dev.json").unlink()  # The killed one could not take it back.
    with dev(folder) as running:
        assert running.says["keys"] == keys
        assert running.says["secrets_keys"] == secrets_keys


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_can_be_stopped_while_it_starts(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "data"
    process = subprocess.Popen(
        [sys.executable, "-m", "scrip", "dev", "--data-dir", str(folder)],
        stderr=subprocess.DEVNULL,
    )
    until((folder / "postgres" / "data").exists, "a server that starts")
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    assert process.wait(60) == 0
    psutil.wait_procs(family, timeout=20)
    assert not (folder / "lock").exists()
