"""Run child processes in order, keep them up, and stop them in reverse order.

A child that ends, however it was ended, is started again, sooner at first and later then; one that
cannot be kept up ends the supervisor. Every child is in a process group of its own and dies with
the supervisor (see `scrip.spawn`), so nothing stays behind, whatever happens.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

READY_SECONDS_MAX = 60.0
READY_POLL_SECONDS = 0.03
BACK_OFF_SECONDS_FIRST = 0.1
BACK_OFF_SECONDS_MAX = 5.0
STEADY_SECONDS = 5.0  # A run shorter than this counts as a failure.
FAILURES_MAX = 10  # In a row.
READ_BYTES_MAX = 65_536
READS_MAX = 64  # Of what a child wrote before it ended: a pipe holds no more.

Lines = Callable[[str, str], None]
"""Takes each line: the name of the child, or `scrip` for the supervisor itself, and the text."""

SUPERVISOR = "scrip"


class CannotKeepUpError(RuntimeError):
    """A child ended again and again; the text says which."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """A child process: how to start it, how to see that it serves, how to stop it."""

    name: str
    command: Callable[[], Sequence[str]]
    environment: Mapping[str, str]
    is_ready: Callable[[], bool] = lambda: True  # Called in a thread; may block for some seconds.
    after_first_start: Callable[[], None] = lambda: None  # Called in a thread, once, when ready.
    stop_signals: Sequence[tuple[signal.Signals, float]] = ((signal.SIGTERM, 10.0),)
    pass_fds: Sequence[int] = ()


@dataclass
class _Kept:
    """What the supervisor knows of one service."""

    service: Service
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: bool = False
    process: asyncio.subprocess.Process | None = None
    keeper: asyncio.Task[None] | None = None


class _Output:
    """What one run of a child writes, line by line.

    A pipe of our own: asyncio counts a process as ended only when all that it has started has let
    go of asyncio's pipes.
    """

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take = take
        self._rest = b""
        self._pipe, self.end = os.pipe()
        os.set_blocking(self._pipe, False)
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Read on, now that the child has the other end."""
        os.close(self.end)
        self.end = -1
        self._loop.add_reader(self._pipe, self._read)

    def close(self) -> None:
        """Take what is there, and no more."""
        self._loop.remove_reader(self._pipe)
        for _ in range(READS_MAX):
            if not self._read():
                break
        if self._rest:
            self._take(self._rest.decode(errors="replace"))
        for descriptor in {self._pipe, self.end} - {-1}:
            os.close(descriptor)

    def _read(self) -> bool:
        try:
            chunk = os.read(self._pipe, READ_BYTES_MAX)
        except BlockingIOError:
            return False
        if not chunk:
            self._loop.remove_reader(self._pipe)
            return False
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > READ_BYTES_MAX:
            whole, self._rest = [*whole, self._rest], b""
        for line in whole:
            self._take(line.decode(errors="replace").rstrip())
        return True


class Supervisor:
    """Keeps the services of each stage up; a stage starts when the one before it is ready."""

    def __init__(self, lines: Lines) -> None:
        """Name who takes the lines."""
        self._stages: list[list[_Kept]] = []
        self._lines = lines
        self._hurry = asyncio.Event()

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of the services that run, by name."""
        kept = [kept for stage in self._stages for kept in stage]
        return {k.service.name: k.process.pid for k in kept if k.process is not None}

    @asynccontextmanager
    async def running(self, stages: Sequence[Sequence[Service]]) -> AsyncIterator[None]:
        """Start all, stage by stage; yield when all are ready; stop all at the end.

        Raises CannotKeepUpError (within the block, too, through its cancellation).
        """
        self._stages = [[_Kept(service) for service in stage] for stage in stages]
        body = asyncio.current_task()
        assert body is not None
        failed: list[BaseException] = []

        def give_up(keeper: asyncio.Task[None]) -> None:
            if not keeper.cancelled() and (error := keeper.exception()):
                failed.append(error)
                body.cancel()

        try:
            for stage in self._stages:
                for kept in stage:
                    kept.keeper = asyncio.create_task(self._keep(kept), name=kept.service.name)
                    kept.keeper.add_done_callback(give_up)
                for kept in stage:
                    await kept.ready.wait()
                    await asyncio.to_thread(kept.service.after_first_start)
            yield
        except asyncio.CancelledError:
            if failed:
                body.uncancel()
                raise failed[0] from None
            raise
        finally:
            await self._stop_all()

    def hurry(self) -> None:
        """Kill what is being stopped instead of waiting for it."""
        self._hurry.set()

    async def _keep(self, kept: _Kept) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            status = await self._run_once(kept)
            if kept.stopping:
                return
            lived = time.monotonic() - began
            failures = failures + 1 if lived < STEADY_SECONDS else 1
            how = _ended(status)
            if failures > FAILURES_MAX:
                message = f"{kept.service.name} {how}; it was started {failures} times in a row"
                raise CannotKeepUpError(message)
            pause = min(BACK_OFF_SECONDS_FIRST * 2.0 ** (failures - 1), BACK_OFF_SECONDS_MAX)
            self._lines(SUPERVISOR, f"{kept.service.name} {how}; starting it again")
            await asyncio.sleep(pause)

    async def _run_once(self, kept: _Kept) -> int:
        """Run the process until it ends, and return its status."""
        service = kept.service
        output = _Output(lambda line: self._lines(service.name, line))
        try:
            process = await asyncio.create_subprocess_exec(
                *service.command(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output.end,
                stderr=output.end,
                env=dict(service.environment),
                pass_fds=tuple(service.pass_fds),
                process_group=0,
            )
            output.start()
            kept.process = process
            waiting = asyncio.create_task(self._wait_ready(kept))
            try:
                return await process.wait()
            finally:
                kept.process = None
                waiting.cancel()
                # Whatever it has left running in its group ends with it.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        finally:
            output.close()

    async def _wait_ready(self, kept: _Kept) -> None:
        end = time.monotonic() + READY_SECONDS_MAX
        while not await asyncio.to_thread(kept.service.is_ready):
            if time.monotonic() > end and kept.process is not None and not kept.stopping:
                self._lines(SUPERVISOR, f"{kept.service.name} is not ready in time; killing it")
                kept.process.kill()
                return
            await asyncio.sleep(READY_POLL_SECONDS)
        kept.ready.set()

    async def _stop_all(self) -> None:
        for stage in reversed(self._stages):
            # Shielded: a second Ctrl-C makes it quick, and never leaves a process behind.
            stopping = asyncio.gather(*(self._stop(kept) for kept in stage))
            while not stopping.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.shield(stopping)

    async def _stop(self, kept: _Kept) -> None:
        kept.stopping = True
        if kept.keeper is None:
            return
        for number, seconds in kept.service.stop_signals:
            if kept.process is None or self._hurry.is_set():
                break
            with suppress(ProcessLookupError):
                kept.process.send_signal(number)
            hurry = asyncio.create_task(self._hurry.wait())
            await asyncio.wait(
                {kept.keeper, hurry}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            hurry.cancel()
            if kept.keeper.done():
                break
        if kept.process is not None:
            self._lines(SUPERVISOR, f"killing {kept.service.name}")
            with suppress(ProcessLookupError):
                kept.process.kill()
            await asyncio.wait({kept.keeper}, timeout=STEADY_SECONDS)
        # It may be between two runs.
        kept.keeper.cancel()
        await asyncio.wait({kept.keeper})


def _ended(status: int) -> str:
    if status >= 0:
        return f"exited with {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
