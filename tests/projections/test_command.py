"""`scrip projections`: what it prints and how it exits."""

import json
import os
import subprocess
import sys

from ledger.store import Store
from projections.registry import PROJECTIONS
from projections.runner import Runner
from projections.tables import connect
from scrip.embedded import DatabaseUrls
from scrip.settings import VARIABLES
from tests.projections.histories import History


def scrip(database: DatabaseUrls, *words: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return subprocess.run(
        [sys.executable, "-m", "scrip", "projections", *words],
        capture_output=True,
        text=True,
        env={**inherited, "DATABASE_URL": database.app_url},
        timeout=120,
        check=False,
    )


def test_status_and_rebuild_tell_what_is_so(
    history: History, store: Store, database: DatabaseUrls
) -> None:
    done = scrip(database, "status")
    assert (done.returncode, done.stderr) == (0, "")
    assert {json.loads(line)["state"] for line in done.stdout.splitlines()} == {"standby"}
    runner = Runner(store)
    runner.start()
    history.play(30)
    head = history.catch_up()
    found = [json.loads(line) for line in scrip(database, "status").stdout.splitlines()]
    assert [one["name"] for one in found] == [projection.name for projection in PROJECTIONS]
    assert {(one["state"], one["position"]) for one in found} == {("running", str(head))}
    with connect(store) as connection:
        connection.execute("UPDATE projections.balances_v2 SET version = 0 WHERE account = 'ann'")
    done = scrip(database, "rebuild", "balances")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["differing"], report["compared_at"]) == (2, str(head))
    assert "version is 0 instead of" in report["differences"][0]
    assert "2 rows were wrong" in done.stderr
    runner.close()


def test_a_projection_that_there_is_not_is_misuse(database: DatabaseUrls) -> None:
    done = scrip(database, "rebuild", "wallets")
    assert done.returncode == 2
    assert "there are balances, grants" in " ".join(done.stderr.split())


def test_a_stopped_projection_is_shown_and_exits_with_1(
    history: History, store: Store, database: DatabaseUrls
) -> None:
    runner = Runner(store)
    runner.start()
    history.catch_up()
    with connect(store) as connection:
        connection.execute("DELETE FROM projections.grants_v1")
    history.play(30)
    others = tuple(one for one in PROJECTIONS if one.name != "grants")
    history.catch_up(others)
    done = scrip(database, "status")
    found = {one["name"]: one for one in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 1
    assert found["grants"]["state"] == "stopped"
    assert "rows of grants_v1 change" in found["grants"]["error"]
    assert {one["state"] for name, one in found.items() if name != "grants"} == {"running"}
    runner.close()
