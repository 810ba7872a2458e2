"""What the embedded servers have in common: how one starts, stops, and comes back after a crash."""

import signal
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Self

from scrip.spawn import END_SECONDS_MAX, ENVIRONMENT, Child, FolderLock, start_server


class EmbeddedServer(ABC):
    """One server with its data in a folder, which it locks. A context manager: it runs within."""

    name: ClassVar[str]
    still_ending: ClassVar[tuple[str, ...]]
    stop_signals: ClassVar[tuple[tuple[signal.Signals, float], ...]]

    def __init__(self, folder: Path | str) -> None:
        """Name the folder."""
        self.folder = Path(folder).resolve()
        self._lock: FolderLock | None = None
        self._child: Child | None = None

    @abstractmethod
    def prepare(self) -> None:
        """Lock the folder and make what the server needs in it."""

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command that runs the server in the foreground, after `prepare()`."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Return whether the server answers."""

    @abstractmethod
    def finish(self) -> None:
        """Make what is missing on a ready server."""

    @property
    def pid(self) -> int:
        """The process id of the server that `start()` started."""
        assert self._child is not None
        return self._child.pid

    @property
    def is_running(self) -> bool:
        """Whether the process that `start()` started still runs."""
        return self._child is not None and self._child.is_running

    def environment(self) -> dict[str, str]:
        """Return the environment of the server: nothing of the caller's."""
        return dict(ENVIRONMENT)

    def start(self) -> Self:
        """Start, wait until ready, and make what is missing. Raises ServerStartError.

        After a crash, start again: port, passwords and data stay.
        """
        # One that was killed a moment ago may still be ending.
        assert self._child is None or self._child.has_ended(END_SECONDS_MAX)
        self.prepare()
        try:
            self._child = start_server(self)
            self.finish()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the server (at once for clients, cleanly for the data) and unlock the folder."""
        if self._child is not None:
            self._child.stop(self.stop_signals)
        self.release()

    def kill(self) -> None:
        """Kill the server's first process with SIGKILL, and keep the folder locked."""
        assert self._child is not None
        self._child.kill()

    def lock(self) -> None:
        """Lock the folder, unless it is. Raises FolderInUseError."""
        self._lock = self._lock or FolderLock(self.folder)

    def release(self) -> None:
        """Unlock the folder."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()
