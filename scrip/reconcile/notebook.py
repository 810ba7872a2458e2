"""What a run has read so far, in a file: one that was interrupted goes on after its last page.

A line of JSON for each page, synced before the next page is asked for. A last line that was cut off
is as if its page had never been read.
"""

from __future__ import annotations

import fcntl
import os
from datetime import datetime
from pathlib import Path
from typing import Final, Self

import msgspec
from msgspec import Struct

from api.providers.telling import Unread
from ledger.domain.facts import PaymentFact

ONLY_OURS: Final = 0o600


class NotebookError(Exception):
    """The file cannot be used; the text says why."""


class Heading(Struct, frozen=True, kw_only=True):
    """What a run is about."""

    provider: str
    tenant: str
    since: datetime
    began_at: datetime


class Read(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A page that was read, what it tells, and where the next begins: None, if there is none."""

    kind: str
    next: str | None = None
    objects: int
    facts: tuple[PaymentFact, ...] = ()
    unread: tuple[Unread, ...] = ()


_encode = msgspec.json.Encoder().encode
_heading = msgspec.json.Decoder(Heading)
_read = msgspec.json.Decoder(Read)


class Notebook:
    """The pages of one run, open for more until the end of `with`. For one process at a time."""

    def __init__(self, path: Path, heading: Heading, *, restart: bool) -> None:
        """Go on with the run in `path`, or begin one. Raises NotebookError."""
        self.path = path
        self.heading = heading
        self.pages: list[Read] = []
        try:
            self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, ONLY_OURS), "r+b")
        except OSError as error:
            raise NotebookError(f"{path}: {error.strerror}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._begin(restart=restart)
        except BlockingIOError:
            self._file.close()
            raise NotebookError(f"{path}: another run is at work with it") from None
        except BaseException:
            self._file.close()
            raise

    @property
    def goes_on(self) -> bool:
        """Whether there are pages of an earlier run."""
        return bool(self.pages)

    def done(self, kind: str) -> bool:
        """Tell whether all objects of a kind were read."""
        last = self._last(kind)
        return last is not None and last.next is None

    def next(self, kind: str) -> str | None:
        """Return where the next page of a kind begins; None: at its beginning."""
        last = self._last(kind)
        return None if last is None else last.next

    def add(self, page: Read) -> None:
        """Keep a page, and return once it is on disk."""
        self._write(page)
        self.pages.append(page)

    def remove(self) -> None:
        """Remove the file: the run is over."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        """Return the notebook itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()

    def _last(self, kind: str) -> Read | None:
        return next((page for page in reversed(self.pages) if page.kind == kind), None)

    def _begin(self, *, restart: bool) -> None:
        if not restart and self._go_on():
            return
        self._file.seek(0)
        self._file.truncate()
        self._write(self.heading)

    def _go_on(self) -> bool:
        """Read what is there; False if that is nothing."""
        first = self._file.readline()
        if not first.endswith(b"\n"):
            return False
        try:
            heading = _heading.decode(first)
            whole = self._file.tell()
            for line in self._file:
                if not line.endswith(b"\n"):
                    break
                self.pages.append(_read.decode(line))
                whole += len(line)
        except msgspec.MsgspecError:
            raise NotebookError(f"{self.path}: not of this command; choose another file") from None
        if msgspec.structs.replace(heading, began_at=self.heading.began_at) != self.heading:
            raise NotebookError(
                f"{self.path}: of another run, since {heading.since:%Y-%m-%d} of {heading.tenant};"
                " finish that one, or begin anew with --restart"
            )
        self.heading = heading
        self._file.seek(whole)
        self._file.truncate()
        return True

    def _write(self, line: Heading | Read) -> None:
        self._file.write(_encode(line) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
