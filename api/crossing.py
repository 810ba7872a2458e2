"""Where the event loop meets the writer's thread: the only place of the room that both touch.

Whoever asks may go away: what the writer has accepted is done all the same.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final

from ledger.batch import Answer
from ledger.domain.catalog import Catalog
from ledger.domain.entities import Charge, Price
from ledger.domain.errors import LedgerError, StoreUnavailable
from ledger.records import Order, Outcome, View
from ledger.writer import Writer

GRACE_SECONDS: Final = 5.0


class Crossing:
    """The writer, for coroutines of one event loop."""

    def __init__(self, writer: Writer, grace_seconds: float = GRACE_SECONDS) -> None:
        """Ask `writer`, and give up so long after it should have given up by itself."""
        self.writer = writer
        self.patience_seconds = writer.command_timeout_seconds + grace_seconds
        self._arrived: deque[tuple[asyncio.Future[Any], Any]] = deque()
        self._waking = False

    async def command(self, order: Order) -> Outcome:
        """Have one command done. Raises the LedgerError that refuses it."""
        (answer,) = await self.commands((order,))
        if isinstance(answer, LedgerError):
            raise answer
        assert isinstance(answer, Outcome)
        return answer

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
        waiting: asyncio.Future[Any] = loop.create_future()
        ask(lambda answer: self._arrive(loop, waiting, answer))
        try:
            async with asyncio.timeout(self.patience_seconds):
                answer = await waiting
        except TimeoutError:
            # The writer waits in vain as well: no timeout of its own reaches a frozen server.
            raise StoreUnavailable from None
        if isinstance(answer, LedgerError):
            raise answer
        return answer

    def _arrive(
        self, loop: asyncio.AbstractEventLoop, waiting: asyncio.Future[Any], answer: Any
    ) -> None:
        """Hand an answer over, from the writer's thread; one wake-up does for many."""
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
            waiting, answer = self._arrived.popleft()
            if not waiting.done():
                waiting.set_result(answer)


def _resolved(
    ask: Callable[..., Future[Any]], *parameters: object
) -> Callable[[Callable[[Any], None]], None]:
    """Turn what answers with a thread's future into what calls back with the answer."""

    def begin(answered: Callable[[Any], None]) -> None:
        def done(future: Future[Any]) -> None:
            answered(future.exception() or future.result())

        ask(*parameters).add_done_callback(done)

    return begin
