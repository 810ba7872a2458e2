import asyncio
import json
import os
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import nats
import psutil
import psycopg
import pytest

from scrip.embedded import (
    EmbeddedNats,
    EmbeddedPostgres,
    FolderInUseError,
    FolderLock,
    ServerStartError,
)
from scrip.spawn import unprivileged

OWNER_OF_A_SERVER = """
import sys, time
from scrip.embedded import EmbeddedNats, EmbeddedPostgres
servers = EmbeddedPostgres(sys.argv[1] + "/pg"), EmbeddedNats(sys.argv[1] + "/nats")
for server in servers:
    server.start()
print(*(server.pid for server in servers), flush=True)
time.sleep(600)
"""


SEVEN = "CREATE SCHEMA s; CREATE TABLE s.t AS SELECT 7 AS seven"

HOLDER_OF_A_LOCK = """
import sys, time
from pathlib import Path
from scrip.embedded import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("locked", flush=True)
time.sleep(600)
"""


def soon(condition: Callable[[], bool], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def one(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def test_the_database_is_as_the_ledger_needs_it(postgres_server: EmbeddedPostgres) -> None:
    url = postgres_server.app_url
    assert str(one(url, "SHOW server_version")).startswith("18.")
    assert one(url, "SHOW server_encoding") == "UTF8"
    assert one(url, "SHOW data_checksums") == "on"
    assert one(url, "SHOW timezone") == "UTC"
    for setting in ("fsync", "full_page_writes", "synchronous_commit"):
        assert one(url, f"SHOW {setting}") == "on"
    locale = "SELECT datlocale FROM pg_database WHERE datname = 'scrip' AND datlocprovider = 'b'"
    assert one(url, locale) == "C.UTF-8"
    assert one(url, "SHOW listen_addresses") == "127.0.0.1"
    assert one(postgres_server.superuser_url, "SHOW unix_socket_directories") == ""


def test_the_services_role_owns_nothing(postgres_server: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres_server.app_url, autocommit=True) as connection:
        for statement in (
            "CREATE TABLE public.mine ()",
            "CREATE SCHEMA mine",
            "CREATE TEMPORARY TABLE mine ()",
            "CREATE ROLE mine",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())
    assert one(postgres_server.owner_url, "SELECT current_user") == "scrip_owner"


def test_a_password_is_needed(postgres_server: EmbeddedPostgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres_server.app_url.replace("scrip_app:", "scrip_app:x"))


def test_a_database_can_be_copied_from_a_template(postgres_server: EmbeddedPostgres) -> None:
    template = postgres_server.create_database("a_template")
    with psycopg.connect(template.owner_url) as connection:
        connection.execute(SEVEN)
    copy = postgres_server.create_database("a_copy", template="a_template")
    assert one(copy.owner_url, "SELECT seven FROM s.t") == 7
    postgres_server.drop_database("a_copy")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(copy.app_url)


def test_postgres_comes_back_from_kill_9_with_all_it_committed(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path) as server:
        url, port = server.owner_url, server.port
        with psycopg.connect(url) as connection:
            connection.execute("CREATE SCHEMA s CREATE TABLE t (n int)")
        for n in range(3):
            connection = psycopg.connect(url, autocommit=True)
            connection.execute("INSERT INTO s.t VALUES (%s)", [n])
            # The postmaster alone: its backends find out by themselves.
            server.kill()
            server.start()
            assert (server.owner_url, server.port) == (url, port)
            assert one(url, "SELECT count(*) FROM s.t") == n + 1
            connection.close()


def test_postgres_keeps_its_data_and_passwords_from_run_to_run(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path) as server:
        with psycopg.connect(server.owner_url) as connection:
            connection.execute(SEVEN)
        pid = server.pid
    assert not psutil.pid_exists(pid)
    assert not (tmp_path / "data" / "postmaster.pid").exists()
    with EmbeddedPostgres(tmp_path) as server:
        assert one(server.owner_url, "SELECT seven FROM s.t") == 7


def test_what_makes_postgres_refuse_is_told(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path, options={"shared_buffers": "nonsense"})
    with pytest.raises(ServerStartError, match="shared_buffers"):
        server.start()
    FolderLock(tmp_path).release()


def test_a_cluster_is_whole_or_absent(tmp_path: Path) -> None:
    """An initdb that was killed left half a cluster, which would never start."""
    (tmp_path / "data.new" / "base").mkdir(parents=True)
    with EmbeddedPostgres(tmp_path) as server:
        assert server.is_ready()


def test_nats_acknowledges_only_what_is_on_disk(nats_server: EmbeddedNats) -> None:
    with urllib.request.urlopen(f"{nats_server.monitor_url}/varz") as answer:  # noqa: S310 - http
        assert json.load(answer)["jetstream"]["config"]["sync_always"] is True


def test_nats_comes_back_from_kill_9_with_all_it_acknowledged(tmp_path: Path) -> None:
    async def publish(url: str) -> None:
        client = await nats.connect(url)
        await client.jetstream().add_stream(name="S", subjects=["s"])
        for _ in range(10):
            await client.jetstream().publish("s", b"")
        await client.close()

    async def count(url: str) -> int:
        client = await nats.connect(url)
        messages = (await client.jetstream().stream_info("S")).state.messages
        await client.close()
        return messages

    with EmbeddedNats(tmp_path) as server:
        asyncio.run(publish(server.url))
        server.kill()
        server.start()
        assert asyncio.run(count(server.url)) == 10


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedNats])
def test_two_servers_never_share_a_folder(
    kind: type[EmbeddedPostgres | EmbeddedNats], tmp_path: Path
) -> None:
    with kind(tmp_path), pytest.raises(FolderInUseError, match=f"in use by process {os.getpid()}"):
        kind(tmp_path).start()
    assert not (tmp_path / "lock").exists()


def test_a_lock_vanishes_with_its_process(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            HOLDER_OF_A_LOCK,
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(FolderInUseError, match=str(holder.pid)):
            FolderLock(tmp_path)
        holder.kill()
        holder.wait()
        FolderLock(tmp_path).release()


def test_servers_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER_OF_A_SERVER, str(tmp_path)], stdout=subprocess.PIPE
    )
    with owner:
        assert owner.stdout is not None
        pids = [int(word) for word in owner.stdout.readline().split()]
        family = [p for pid in pids for p in (psutil.Process(pid), *psutil.Process(pid).children())]
        owner.kill()
    assert soon(lambda: not any(process.is_running() for process in family))
    with EmbeddedPostgres(tmp_path / "pg") as server:
        assert server.is_ready()


def test_servers_are_out_of_reach_of_ctrl_c_and_of_strangers(
    postgres_server: EmbeddedPostgres, nats_server: EmbeddedNats
) -> None:
    for server in (postgres_server, nats_server):
        assert os.getpgid(server.pid) == server.pid != os.getpgid(0)
        assert psutil.Process(server.pid).uids().effective != 0
        for connection in psutil.Process(server.pid).net_connections("inet"):
            assert connection.laddr[0] == "127.0.0.1"
        secrets = server.folder / "passwords.json"
        assert stat.S_IMODE(secrets.stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can own such a folder")
def test_root_may_keep_its_data_in_a_folder_that_is_closed_to_others(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with EmbeddedPostgres(closed / "pg") as postgres, EmbeddedNats(closed / "nats") as broker:
        assert one(postgres.app_url, "SELECT 1") == 1
        for server in (postgres, broker):
            status = Path(f"/proc/{server.pid}/status").read_text()
            held = {
                name: int(bits, 16)
                for name, _, bits in (line.partition(":") for line in status.splitlines())
                if name.startswith("Cap") and name != "CapBnd"
            }
            # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH at most: nothing else of root is left.
            assert all(bits & ~0b110 == 0 for bits in held.values())
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has anything to drop")
def test_no_right_of_root_is_kept_where_none_is_needed() -> None:
    folder = Path("/var/tmp") / f"scrip-test-{os.getpid()}"  # noqa: S108 - open to all on purpose
    folder.mkdir()
    folder.chmod(0o755)  # Whatever the umask is.
    try:
        user = unprivileged(folder / "data")
        assert user.uid != 0
        assert not user.keep_path_access
    finally:
        folder.rmdir()
