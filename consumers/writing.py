"""The one place where this async room crosses over to the writer's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from ledger.domain.errors import LedgerError, Overloaded
from ledger.records import Order, Outcome
from ledger.writer import Writer

Answer = Outcome | LedgerError


async def submit_all(writer: Writer, orders: Sequence[Order]) -> list[Answer]:
    """Return the ledger's answers to `orders`, in order. Refusals are returned, not raised.

    All are queued at once, so that they share the writer's transactions.
    """
    if not orders:
        return []
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[Answer]] = loop.create_future()

    def take(answers: list[Answer]) -> None:
        if not future.done():
            future.set_result(answers)

    def done(answers: list[Answer]) -> None:
        # A loop that has ended meanwhile wants no answers, and the writer must not fail on it.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(take, answers)

    try:
        writer.submit_many(orders, done)
    except Overloaded as refusal:
        return [refusal] * len(orders)
    return await future
