"""What waits to be decided: a bounded queue between all callers and the one thread that writes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from ledger.domain.errors import Overloaded
from ledger.pending import Pending

HALF_MIN = 16
"""From twice as many on, it is worth two round trips to decide some while others are written."""


class Backlog:
    """A queue that commands leave in batches, and can be put back into. Safe between threads."""

    def __init__(self, most: int) -> None:
        """Let at most `most` wait."""
        self._most = most
        self._waiting: deque[Pending] = deque()
        self._ready = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    @property
    def closed(self) -> bool:
        """Whether nothing is taken in any more."""
        return self._closed

    def close(self) -> None:
        """Take nothing in any more."""
        with self._ready:
            self._closed = True
            self._ready.notify()

    def put(self, pendings: Sequence[Pending]) -> None:
        """Queue all of these, or raise Overloaded."""
        with self._ready:
            if len(pendings) > self._room():
                raise Overloaded(waiting=len(self._waiting))
            self._waiting.extend(pendings)
            self._ready.notify()

    def put_some(self, pendings: Sequence[Pending]) -> None:
        """Queue as many of these as there is room for, and answer Overloaded to the others."""
        with self._ready:
            waiting, room = len(self._waiting), self._room()
            self._waiting.extend(pendings[:room])
            self._ready.notify()
        for pending in pendings[room:]:
            pending.answer(Overloaded(waiting=waiting))

    def _room(self) -> int:
        return 0 if self._closed else max(0, self._most - len(self._waiting))

    def take(self, most: int, *, wait: bool) -> list[Pending] | None:
        """Return the next ones. With `wait`, at least one; None once it is closed and empty.

        Who has to wait has nothing else to do: of many, he gets half, so that he can go on with
        the others while those are written.
        """
        with self._ready:
            while wait and not self._waiting:
                if self._closed:
                    return None
                self._ready.wait()
            waiting = self._waiting
            if wait and len(waiting) >= 2 * HALF_MIN:
                most = min(most, len(waiting) // 2)
            return [waiting.popleft() for _ in range(min(len(waiting), most))]

    def put_back(self, pendings: Sequence[Pending]) -> None:
        """Put these in front of all others, whatever the room."""
        with self._ready:
            self._waiting.extendleft(reversed(pendings))

    def take_late(self, now: float) -> list[Pending]:
        """Return those whose deadline is over by `now`; all of them, once it is closed."""
        with self._ready:
            late = [one for one in self._waiting if one.deadline <= now or self._closed]
            gone = set(late)
            self._waiting = deque(one for one in self._waiting if one not in gone)
        return late
