import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from scrip.spawn import FolderLock
from tests.scrip.stack import scrip, start, until


def test_a_demo_fills_itself_checks_every_sum_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    words = ("--data-dir", str(folder), "--ephemeral", "--exit", "--requests", "150")
    done = scrip("demo", *words)
    assert done.returncode == 0, done.stderr
    assert "150 requests of 20 accounts" in done.stderr
    assert done.stderr.count("✓") >= 8
    assert "✗" not in done.stderr
    assert sorted(file.name for file in folder.iterdir()) == ["demo.log"]
    FolderLock(folder).release()


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_what_a_demo_says_to_paste_works_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with start("demo", ["--ephemeral", "--requests", "50"], folder) as running:
        until(lambda: "Ctrl-C stops" in running.printed, "the end of the summary")
        commands = [line for line in running.printed.splitlines() if line.startswith("curl ")]
        balance, reservation = (
            json.loads(subprocess.run(shlex.split(one), capture_output=True, check=True).stdout)
            for one in commands
        )
        assert balance["account"] == reservation["account"] == "ada"
        assert reservation["amount"] == "4"
        assert reservation["price"]["feature"] == "ai_image_generation"
        assert running.says["base_url"] in commands[0]
        assert running.interrupt() == 0
    assert sorted(file.name for file in folder.iterdir()) == ["demo.log"]
