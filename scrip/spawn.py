"""How a child process starts and ends: its user, its process group, its signals.

Every child dies with its parent, even when the parent is killed with SIGKILL (on Linux), and runs
in a process group of its own, so that Ctrl-C in a terminal reaches the parent alone, which then
stops its children in order.
"""

import fcntl
import json
import os
import pwd
import random
import secrets
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

CHILD_SCRIPT = Path(__file__).with_name("child.py")
NOBODY_ID = 65534  # What `nobody` is where no such user is written down.
OTHERS_MAY_RUN = stat.S_IROTH | stat.S_IXOTH
LOG_TAIL_BYTES_MAX = 4_096

HOST = "127.0.0.1"
START_SECONDS_MAX = 60.0
END_SECONDS_MAX = 5.0
POLL_SECONDS = 0.03
RETRY_SECONDS = 0.2

# Below the range from which Linux draws the ports of outgoing connections: there, a client's
# connection could take the port of a server that is being restarted.
PORT_MIN, PORT_MAX = 15_000, 32_000
PORT_ATTEMPTS_MAX = 100

# All that a server sees of the environment: nothing of the caller's, and messages in English.
ENVIRONMENT = {"LC_ALL": "C", "PATH": os.defpath, "TZ": "UTC"}


class FolderInUseError(RuntimeError):
    """Another process works in this folder."""


class PortInUseError(RuntimeError):
    """Another program listens on the port."""


class ServerStartError(RuntimeError):
    """A server did not come up; the message holds the last lines it wrote."""


def free_port() -> int:
    """Return a port on 127.0.0.1 on which nobody listens."""
    for _ in range(PORT_ATTEMPTS_MAX):
        port = random.randint(PORT_MIN, PORT_MAX)  # noqa: S311 - not a secret
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port
    message = f"no free port found between {PORT_MIN} and {PORT_MAX}"
    raise ServerStartError(message)


def kept_secrets(file: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the passwords kept in `file`, made at first use."""
    if not file.exists():
        made = {name: secrets.token_urlsafe(24) for name in names}
        new = file.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_text(json.dumps(made, indent=2) + "\n")
        new.rename(file)
    kept = json.loads(file.read_text())
    return {name: str(kept[name]) for name in names}


class FolderLock:
    """At most one process holds the lock of a folder; the lock vanishes with that process."""

    def __init__(self, folder: Path) -> None:
        """Take the lock, or raise FolderInUseError naming the process that holds it."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "lock"
        self._file = self._locked()
        # The holder before may have removed the file that we opened: another may be locked now.
        while not self._is_current():
            self._file.close()
            self._file = self._locked()
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def release(self) -> None:
        """Give the lock back, and remove its file."""
        self._path.unlink(missing_ok=True)
        self._file.close()

    def _locked(self) -> IO[str]:
        file = self._path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            message = f"the folder {self._path.parent} is in use by process {holder}"
            raise FolderInUseError(message) from None
        return file

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False


@dataclass(frozen=True, kw_only=True)
class RunAs:
    """Who a child runs as, and whether it may pass folders that are closed to that user."""

    uid: int
    gid: int
    keep_path_access: bool = False

    def give(self, path: Path, mode: int) -> None:
        """Make `path` the child's own, with `mode`."""
        if (path.stat().st_uid, path.stat().st_gid) != (self.uid, self.gid):
            try:
                os.chown(path, self.uid, self.gid)
            except OSError as error:
                # A container may have no user but root.
                message = f"root cannot hand {path} to user {self.uid}; start this as another user"
                raise ServerStartError(message) from error
        path.chmod(mode)


def unprivileged(data: Path, *programs: Path) -> RunAs:
    """Return the user for a server whose data is in `data`: this one, or `nobody` instead of root.

    Data that already belongs to another user than root keeps that user.
    """
    if os.geteuid() != 0:
        return RunAs(uid=os.geteuid(), gid=os.getegid())
    uid, gid = _owner_instead_of_root(data)
    paths = [path.resolve() for path in (data, *programs)]
    closed = any(not _may_pass(folder, uid) for path in paths for folder in path.parents)
    shut = any(program.stat().st_mode & OTHERS_MAY_RUN != OTHERS_MAY_RUN for program in programs)
    return RunAs(uid=uid, gid=gid, keep_path_access=closed or shut)


def _owner_instead_of_root(data: Path) -> tuple[int, int]:
    if data.exists() and data.stat().st_uid != 0:
        return data.stat().st_uid, data.stat().st_gid
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        return NOBODY_ID, NOBODY_ID
    return nobody.pw_uid, nobody.pw_gid


def _may_pass(folder: Path, uid: int) -> bool:
    about = folder.stat()
    return bool(about.st_mode & (stat.S_IXUSR if about.st_uid == uid else stat.S_IXOTH))


def child_command(
    program: Sequence[str], *, death_signal: signal.Signals, run_as: RunAs | None = None
) -> list[str]:
    """Return the command that runs `program` (an absolute path first) tied to this process.

    On Linux `death_signal` is sent to it when the *thread* that starts it ends: start it from one
    that lives as long as the process.
    """
    who = run_as or RunAs(uid=os.geteuid(), gid=os.getegid())
    words = (os.getpid(), int(death_signal), who.uid, who.gid, int(who.keep_path_access))
    return [sys.executable, "-I", "-S", str(CHILD_SCRIPT), *map(str, words), *program]


class Child:
    """A running child process whose output goes to a file."""

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        """Start `command` (as `child_command` made it) in a process group of its own."""
        self.log = log
        self.log_start = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(env),
                process_group=0,
            )

    @property
    def pid(self) -> int:
        """The process id of the program itself."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill it, as a crash would."""
        self._process.kill()
        self._process.wait()

    def has_ended(self, seconds: float) -> bool:
        """Return whether it has ended, waiting some seconds for that."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def log_tail(self) -> str:
        """Return the last lines that this run wrote."""
        with self.log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self.log_start, size - LOG_TAIL_BYTES_MAX))
            return log.read().decode(errors="replace").strip()

    def stop(self, signals: Sequence[tuple[signal.Signals, float]]) -> None:
        """Send each signal in turn, giving it some seconds, until the process has ended."""
        for number, seconds in signals:
            if not self.is_running:
                break
            self._process.send_signal(number)
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                continue
        self.kill()


class Server(Protocol):
    """A server with its data in a folder: what it takes to run it, whoever runs the process."""

    @property
    def name(self) -> str:
        """What it is called in the terminal."""

    @property
    def folder(self) -> Path:
        """Where it keeps everything."""

    @property
    def still_ending(self) -> Sequence[str]:
        """What it says when the run before it has not ended altogether."""

    @property
    def stop_signals(self) -> Sequence[tuple[signal.Signals, float]]:
        """How to stop it: signals, each with the seconds it is given."""

    def prepare(self) -> None:
        """Lock the folder and make what the server needs in it."""

    def command(self) -> list[str]:
        """Return the command that runs it in the foreground, after `prepare()`."""

    def environment(self) -> dict[str, str]:
        """Return its environment."""

    def is_ready(self) -> bool:
        """Return whether it serves."""

    def finish(self) -> None:
        """Make what can only be made on a ready server, unless it is there."""

    def release(self) -> None:
        """Unlock the folder."""


def start_server(server: Server) -> Child:
    """Run a prepared server and return once it is ready. Raises ServerStartError."""
    deadline = Deadline(START_SECONDS_MAX)
    while True:
        child = Child(server.command(), server.folder / "server.log", server.environment())
        while child.is_running and not server.is_ready() and not deadline.passed:
            deadline.pause(POLL_SECONDS)
        if child.is_running and not deadline.passed:
            return child
        child.stop(server.stop_signals)
        said = child.log_tail()
        if deadline.passed or not any(words in said for words in server.still_ending):
            message = f"{server.name} did not start; it said:\n{said}"
            raise ServerStartError(message)
        deadline.pause(RETRY_SECONDS)


class Deadline:
    """A moment by which something must have happened."""

    def __init__(self, seconds: float) -> None:
        """Start the clock."""
        self._end = time.monotonic() + seconds

    @property
    def passed(self) -> bool:
        """Whether it is too late."""
        return time.monotonic() >= self._end

    def pause(self, seconds: float) -> None:
        """Sleep, but not beyond the deadline."""
        time.sleep(max(0.0, min(seconds, self._end - time.monotonic())))
