"""kill -9 of anything in the middle of a replay: nothing is lost, nothing is counted twice."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.scrip.stack import ENVIRONMENT, ready, replay_words, scrip, start, until, write_trace

ROWS, ACCOUNTS = 1_500, 30
END_SHOWN = 8_000
VICTIMS = ("serve api", "serve worker", "nats-server", "bin/postgres")


def test_whatever_is_killed_in_the_middle_a_replay_ends_exact(tmp_path: Path) -> None:
    trace, report_file = write_trace(tmp_path / "killed.csv", ROWS), tmp_path / "report.json"
    with start("dev", ["--ephemeral"], tmp_path / "data") as stack:
        until(lambda: ready(stack), "dev.json")
        words = replay_words(trace, stack, "--accounts", str(ACCOUNTS), "--json", str(report_file))
        # As fast as it makes the whole last some seconds on any machine, so that all fall into it.
        words += ["--speed", "20"]
        with subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-m", "scrip", *words],
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        ) as process:
            try:
                time.sleep(2.5)
                for victim in VICTIMS:
                    assert process.poll() is None, "the replay ended before all were killed"
                    stack.kill(victim)
                    time.sleep(2.0)
                _, says = process.communicate(timeout=100)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)  # So it tells where it hangs.
                _, says = process.communicate()
                pytest.fail(f"{says[-END_SHOWN:]}\n{stack.printed[-END_SHOWN:]}")
            finally:
                process.kill()
        assert process.returncode == 0, says
        report = json.loads(report_file.read_text())
        assert report["ok"]
        assert report["requests"] == ROWS
        assert report["events"] == 3 * ACCOUNTS + 2 * ROWS
        again = scrip(*words[:-2])
        assert again.returncode == 0, again.stderr
        assert json.loads(report_file.read_text())["events"] == report["events"]
        assert stack.interrupt() == 0
