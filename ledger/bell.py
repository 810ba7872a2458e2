"""Waking the one coroutine that writes: from its own loop's thread, or from any other."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress


class Bell:
    """Rung from anywhere, heard by one coroutine. What rings before it listens is heard too."""

    def __init__(self) -> None:
        """Belong to the running loop."""
        self._loop = asyncio.get_running_loop()
        self._home = threading.get_ident()
        self._rung = False
        self._waiting: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Have the coroutine look again, after whatever was done before this call."""
        if self._rung:
            return  # It has not looked yet: it will see this too.
        self._rung = True
        if threading.get_ident() == self._home:
            self._wake()
        else:
            with suppress(RuntimeError):  # The loop has ended, and with it whoever listened.
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def heard(self) -> None:
        """Wait until it has been rung since the last time."""
        if not self._rung:
            self._waiting = self._loop.create_future()
            await self._waiting
        self._rung = False
