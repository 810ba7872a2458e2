import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from scrip import supervisor as module
from scrip.spawn import child_command
from scrip.supervisor import CannotKeepUpError, Service, Supervisor

SLEEPS = "import time; print('up', flush=True); time.sleep(600)"
IGNORES_SIGTERM = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPS}"
CRASHES = "print('oh no'); raise SystemExit(3)"
HAS_A_CHILD = (
    f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEPS!r}]); {SLEEPS}"
)
LOUD = f"""
import sys
sys.stdout.buffer.write(b'x' * 300_000 + b'\\n\\xff\\nlast')
sys.stdout.flush()
{SLEEPS}
"""
SAYS_GOODBYE = f"""
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('goodbye ' + sys.argv[1], flush=True)))
{SLEEPS}
"""


class Lines(list[tuple[str, str]]):
    """Every line, with who said it."""

    def __call__(self, name: str, line: str) -> None:
        self.append((name, line))


def service(name: str, code: str, **more: object) -> Service:
    program = [sys.executable, "-c", code, name]
    settings: dict[str, object] = {"stop_signals": ((signal.SIGTERM, 60.0),), **more}
    return Service(
        name=name,
        command=lambda: child_command(program, death_signal=signal.SIGKILL),
        environment=dict(os.environ),
        **settings,  # type: ignore[arg-type]
    )


def supervise(
    lines: Lines,
    stages: list[list[Service]],
    body: Callable[[Supervisor], Awaitable[None]] | None = None,
) -> None:
    """Run the stages and the body, and see that no process is left."""

    async def run() -> None:
        supervisor = Supervisor(lines)
        async with supervisor.running(stages):
            if body is not None:
                await body(supervisor)

    before = set(psutil.Process().children(recursive=True))
    try:
        asyncio.run(run())
    finally:
        assert set(psutil.Process().children(recursive=True)) <= before


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(100):
        while not condition():  # noqa: ASYNC110 - what it waits for is another process
            await asyncio.sleep(0.01)


@pytest.fixture
def lines() -> Lines:
    return Lines()


def test_a_stage_starts_when_the_one_before_it_is_ready(lines: Lines, tmp_path: Path) -> None:
    flag = tmp_path / "ready"
    order: list[str] = []

    def look() -> bool:
        order.append("looked")
        flag.touch() if len(order) == 3 else None
        return flag.exists()

    first = service("first", SLEEPS, is_ready=look, after_first_start=lambda: order.append("after"))
    second = service("second", SLEEPS, is_ready=lambda: order.append("second") is None)
    supervise(lines, [[first], [second]])
    assert order[:5] == ["looked", "looked", "looked", "after", "second"]


def test_whoever_is_killed_is_started_again(lines: Lines) -> None:
    async def kill_twice(supervisor: Supervisor) -> None:
        for count in (1, 2):
            await until(lambda count=count: lines.count(("victim", "up")) == count)
            os.kill(supervisor.pids["victim"], signal.SIGKILL)
        await until(lambda: lines.count(("victim", "up")) == 3)

    after: list[int] = []
    victim = service("victim", SLEEPS, after_first_start=lambda: after.append(1))
    supervise(lines, [[victim]], kill_twice)
    assert ("scrip", "victim was killed by SIGKILL; starting it again") in lines
    assert after == [1]


def test_all_are_stopped_in_reverse_order(lines: Lines) -> None:
    async def all_up(_: Supervisor) -> None:
        await until(lambda: sum(line == "up" for _, line in lines) == 3)

    names = ("first", "second", "third")
    supervise(lines, [[service(name, SAYS_GOODBYE)] for name in names], all_up)
    goodbyes = [line for _, line in lines if line.startswith("goodbye")]
    assert goodbyes == ["goodbye third", "goodbye second", "goodbye first"]


def test_whoever_does_not_stop_is_killed(lines: Lines) -> None:
    async def up(_: Supervisor) -> None:
        await until(lambda: ("stubborn", "up") in lines)

    stubborn = service("stubborn", IGNORES_SIGTERM, stop_signals=((signal.SIGTERM, 0.2),))
    supervise(lines, [[stubborn]], up)
    assert ("scrip", "killing stubborn") in lines


def test_in_a_hurry_nothing_is_waited_for(lines: Lines) -> None:
    async def up(supervisor: Supervisor) -> None:
        await until(lambda: ("stubborn", "up") in lines)
        supervisor.hurry()

    stubborn = service("stubborn", IGNORES_SIGTERM, stop_signals=((signal.SIGTERM, 600.0),))
    supervise(lines, [[stubborn]], up)


def test_what_a_child_leaves_behind_is_killed(lines: Lines) -> None:
    async def up(_: Supervisor) -> None:
        await until(lambda: lines.count(("parent", "up")) == 2)

    supervise(lines, [[service("parent", HAS_A_CHILD)]], up)


def test_a_crash_loop_ends_the_supervisor(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACK_OFF_SECONDS_MAX", 0.01)

    async def serve(_: Supervisor) -> None:
        await asyncio.sleep(600)

    with pytest.raises(CannotKeepUpError, match="broken exited with 3"):
        supervise(lines, [[service("steady", SLEEPS)], [service("broken", CRASHES)]], serve)
    assert lines.count(("broken", "oh no")) == module.FAILURES_MAX + 1


def test_a_crash_loop_at_the_start_ends_the_supervisor(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BACK_OFF_SECONDS_MAX", 0.01)
    with pytest.raises(CannotKeepUpError, match="broken exited with 3"):
        supervise(lines, [[service("broken", CRASHES, is_ready=lambda: False)]])


def test_who_is_not_ready_in_time_is_started_again(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READY_SECONDS_MAX", 2.0)
    supervise(lines, [[service("slow", SLEEPS, is_ready=lambda: lines.count(("slow", "up")) >= 2)]])
    assert ("scrip", "slow is not ready in time; killing it") in lines


def test_a_failure_after_the_start_stops_all(lines: Lines) -> None:
    def fail() -> None:
        message = "no migration"
        raise ValueError(message)

    with pytest.raises(ValueError, match="no migration"):
        supervise(lines, [[service("one", SLEEPS, after_first_start=fail)]])


def test_long_lines_and_odd_bytes_come_through(lines: Lines) -> None:

    async def said(_: Supervisor) -> None:
        await until(lambda: ("loud", "lastup") in lines)

    supervise(lines, [[service("loud", LOUD)]], said)
    assert "".join(line for _, line in lines).count("x") == 300_000
    assert ("loud", "\ufffd") in lines
