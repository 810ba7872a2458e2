"""Where coroutines meet the writer, which runs on their loop or in a thread of its own.

Whoever asks may go away: what the writer has accepted is done all the same.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

from ledger.domain.catalog import Catalog
from ledger.domain.entities import Charge, Price
from ledger.domain.errors import LedgerError, StoreUnavailable
from ledger.pending import Answer, Pending
from ledger.records import Order, Outcome, View
from ledger.writer import Writer

GRACE_SECONDS: Final = 5.0
Waiting = asyncio.Future[Any]


class Crossing:
    """The writer, for coroutines of one event loop."""

    def __init__(self, writer: Writer, grace_seconds: float = GRACE_SECONDS) -> None:
        """Ask `writer`, and give up so long after it should have given up by itself."""
        self.writer = writer
        self.grace_seconds = grace_seconds
        self._gathered: list[Pending] = []
        self._arrived: deque[tuple[Waiting, Any]] = deque()
        self._waking = False
        self._patience: dict[Waiting, float] = {}
        """Until when each is waited for, the first that began to wait in front."""
        self._losing_patience: asyncio.TimerHandle | None = None

    async def command(self, order: Order) -> Outcome:
        """Have one command done. Raises the LedgerError that refuses it."""
        outcome: Outcome = _outcome(await self.begin(order))
        return outcome

    def begin(self, order: Order) -> Waiting:
        """Have one command done; the result of the future is its outcome, or its refusal."""
        loop = asyncio.get_running_loop()
        waiting: Waiting = loop.create_future()
        pending = self.writer.pending(order, partial(self._arrive, loop, waiting))
        if not self._gathered:
            # What the requests of one turn of the loop ask for is handed over together.
            loop.call_soon(self._hand_over)
        self._gathered.append(pending)
        return self._watched(loop, waiting)

    def _hand_over(self) -> None:
        gathered, self._gathered = self._gathered, []
        self.writer.hand_over(gathered)

    async def commands(self, orders: Sequence[Order]) -> list[Answer]:
        """Have commands done, in their order. Raises Overloaded, and then none was taken."""
        answers: list[Answer] = await self._await(
            lambda answered: self.writer.submit_many(orders, answered)
        )
        return answers

    async def view(self, tenant: str, account: str) -> View:
        """Return the account as the ledger has it now."""
        view: View = await self._await(_resolved(self.writer.view, tenant, account))
        return view

    async def catalog(self, tenant: str) -> Catalog:
        """Return the tenant's catalog as the ledger has it now."""
        catalog: Catalog = await self._await(_resolved(self.writer.catalog, tenant))
        return catalog

    async def quote(self, tenant: str, charge: Charge) -> tuple[int, Price | None]:
        """Return what a charge would cost now."""
        quote: tuple[int, Price | None] = await self._await(
            _resolved(self.writer.quote, tenant, charge)
        )
        return quote

    async def _await(self, ask: Callable[[Callable[[Any], None]], None]) -> Any:
        loop = asyncio.get_running_loop()
        waiting: Waiting = loop.create_future()
        ask(partial(self._arrive, loop, waiting))
        return _outcome(await self._watched(loop, waiting))

    def _watched(self, loop: asyncio.AbstractEventLoop, waiting: Waiting) -> Waiting:
        """Let patience end; the writer's own timeout reaches no frozen server.

        One timer watches over all: they have the same patience, so it ends in their order.
        """
        until = loop.time() + self.writer.command_timeout_seconds + self.grace_seconds
        self._patience[waiting] = until
        if self._losing_patience is None:
            self._losing_patience = loop.call_at(until, self._lose_patience, loop)
        return waiting

    def _lose_patience(self, loop: asyncio.AbstractEventLoop) -> None:
        self._losing_patience = None
        for waiting, until in list(self._patience.items()):
            if until > loop.time():
                self._losing_patience = loop.call_at(until, self._lose_patience, loop)
                return
            del self._patience[waiting]
            if not waiting.done():
                waiting.set_result(StoreUnavailable())

    def _arrive(self, loop: asyncio.AbstractEventLoop, waiting: Waiting, answer: Any) -> None:
        """Hand an answer over; one wake-up does for many, if the writer runs in another thread."""
        if self.writer.loop is loop:
            self._give(waiting, answer)
            return
        self._arrived.append((waiting, answer))
        if self._waking:
            return  # `_hand_out` has not begun: it will find this answer too.
        self._waking = True
        try:
            loop.call_soon_threadsafe(self._hand_out)
        except RuntimeError:  # The loop has ended, and everybody in it: the answer has no reader.
            self._waking = False

    def _hand_out(self) -> None:
        self._waking = False
        while self._arrived:
            self._give(*self._arrived.popleft())

    def _give(self, waiting: Waiting, answer: Any) -> None:
        self._patience.pop(waiting, None)
        if not waiting.done():
            waiting.set_result(answer)


def _outcome(answer: Any) -> Any:
    if isinstance(answer, LedgerError):
        raise answer
    return answer


def _resolved(
    ask: Callable[..., Future[Any]], *parameters: object
) -> Callable[[Callable[[Any], None]], None]:
    """Turn what answers with a thread's future into what calls back with the answer."""

    def begin(answered: Callable[[Any], None]) -> None:
        def done(future: Future[Any]) -> None:
            answered(future.exception() or future.result())

        ask(*parameters).add_done_callback(done)

    return begin
