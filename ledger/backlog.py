"""What waits to be decided: a bounded queue between all callers and the one that writes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from ledger.domain.errors import Overloaded
from ledger.pending import Pending


class Backlog:
    """A queue that commands leave in batches, and can be put back into. Safe between threads."""

    def __init__(self, most: int) -> None:
        """Let at most `most` wait."""
        self._most = most
        self._waiting: deque[Pending] = deque()
        self._lock = threading.Lock()
        self._closed = False
        self._told: Callable[[], None] = _nobody

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    @property
    def closed(self) -> bool:
        """Whether nothing is taken in any more."""
        return self._closed

    def tell(self, told: Callable[[], None]) -> None:
        """Call this, from whatever thread, each time something has been put in, or it is closed."""
        self._told = told

    def close(self) -> None:
        """Take nothing in any more."""
        with self._lock:
            self._closed = True
        self._told()

    def put(self, pendings: Sequence[Pending]) -> None:
        """Queue all of these, or raise Overloaded."""
        with self._lock:
            if len(pendings) > self._room():
                raise Overloaded(waiting=len(self._waiting))
            self._waiting.extend(pendings)
        self._told()

    def put_some(self, pendings: Sequence[Pending]) -> None:
        """Queue as many of these as there is room for, and answer Overloaded to the others."""
        with self._lock:
            waiting, room = len(self._waiting), self._room()
            self._waiting.extend(pendings[:room])
        self._told()
        for pending in pendings[room:]:
            pending.answer(Overloaded(waiting=waiting))

    def _room(self) -> int:
        return 0 if self._closed else max(0, self._most - len(self._waiting))

    def take(self, most: int) -> list[Pending]:
        """Return the next ones, as many as there are."""
        with self._lock:
            waiting = self._waiting
            return [waiting.popleft() for _ in range(min(len(waiting), most))]

    def put_back(self, pendings: Sequence[Pending]) -> None:
        """Put these in front of all others, whatever the room."""
        with self._lock:
            self._waiting.extendleft(reversed(pendings))

    def take_late(self, now: float) -> list[Pending]:
        """Return those whose deadline is over by `now`; all of them, once it is closed."""
        with self._lock:
            late = [one for one in self._waiting if one.deadline <= now or self._closed]
            gone = set(late)
            self._waiting = deque(one for one in self._waiting if one not in gone)
        return late


def _nobody() -> None:
    """Tell nobody: nothing is taken yet."""
