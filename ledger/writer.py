"""Group commit: commands of all callers queue up, and are decided and written in batches.

While a batch commits, the next gathers. Nothing is answered before its batch is committed, and
never is a batch sent before the one before it is answered for: versions are then without gaps.

It works on an event loop: on the caller's (`running`), so that no command changes threads, or on
one of its own in a thread (`start`), for whoever has none.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from ledger.backlog import Backlog
from ledger.cache import Cache, Entry
from ledger.committer import Committer, Stats
from ledger.domain.catalog import Catalog
from ledger.domain.decide import settle
from ledger.domain.entities import Charge, Price
from ledger.domain.errors import LedgerError, StoreUnavailable
from ledger.domain.pricing import rate
from ledger.pending import Answer, Pending, Reading
from ledger.records import Order, Outcome, View, fault_of, stream_id
from ledger.snapshots import SnapshotKeeper
from ledger.store import Store

NOWHERE = UUID(int=0)
"""The stream of an order that can be in none."""


def utc_now() -> datetime:
    """Return the time by the machine's clock."""
    return datetime.now(UTC)


class Writer:
    """The only way to change the ledger. One event loop writes; any thread may submit."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], datetime] = utc_now,
        queue_max: int = 10_000,
        batch_max: int = 1_000,
        account_cache_max: int = 100_000,
        snapshot_every: int = 500,
        command_timeout_seconds: float = 10.0,
    ) -> None:
        """Prepare to write to `store`; nothing happens before `start`."""
        self.store = store
        self.clock = clock
        self.batch_max = batch_max
        self.snapshot_every = snapshot_every
        self.command_timeout_seconds = command_timeout_seconds
        self._backlog = Backlog(queue_max)
        self._keeper = SnapshotKeeper(store)
        self._committer = Committer(
            store,
            self._backlog,
            Cache(account_cache_max),
            self._keeper,
            clock=clock,
            batch_max=batch_max,
            snapshot_every=snapshot_every,
        )
        self.loop: asyncio.AbstractEventLoop | None = None
        """The caller's loop that it runs on: answers come there. None if it has a thread."""
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)

    def start(self) -> None:
        """Begin to write, in a thread."""
        self._thread.start()
        self._keeper.start()

    def _work(self) -> None:
        asyncio.run(self._committer.run())

    def close(self) -> None:
        """Finish what waits, then stop. Further commands are refused as Overloaded."""
        self._backlog.close()
        if self._thread.is_alive():
            self._thread.join()
        self._end()

    def _end(self) -> None:
        self._keeper.close()
        # Never started, or ended by a bug.
        for pending in self._backlog.take_late(time.monotonic()):
            pending.answer(StoreUnavailable())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Write on the running event loop. In the end, finish what waits, as `close` does."""
        self.loop = asyncio.get_running_loop()
        self._task = self.loop.create_task(self._committer.run())
        self._keeper.start()
        try:
            yield self
        finally:
            self._backlog.close()
            with suppress(Exception):  # It has been logged, and all were answered.
                await self._task
            await asyncio.to_thread(self._end)

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    @property
    def alive(self) -> bool:
        """Tell whether commands are being written."""
        runs = self._thread.is_alive() if self._task is None else not self._task.done()
        return runs and not self._backlog.closed

    @property
    def stats(self) -> Stats:
        """What has been done so far."""
        self._committer.stats.snapshots = self._keeper.kept
        return self._committer.stats

    @property
    def queue_length(self) -> int:
        """How many commands wait."""
        return len(self._backlog)

    def submit(self, order: Order) -> Future[Outcome]:
        """Queue a command; the future holds its outcome, or the LedgerError that refused it.

        Raises Overloaded if too many wait.
        """
        future: Future[Outcome] = Future()
        self._backlog.put([self.pending(order, partial(_resolve, future))])
        return future

    def hand_over(self, pendings: Sequence[Pending]) -> None:
        """Queue commands of several callers at once; whoever finds no room is told Overloaded."""
        self._backlog.put_some(pendings)

    def submit_many(self, orders: Sequence[Order], done: Callable[[list[Answer]], None]) -> None:
        """Queue commands; `done` gets all their answers, in order, where the writer runs.

        They are decided in this order. Raises Overloaded if too many wait; then none is queued.
        """
        if not orders:
            done([])
            return
        answers: list[Any] = [None] * len(orders)
        left = len(orders)

        def answered(place: int, answer: Answer) -> None:
            nonlocal left
            answers[place] = answer
            left -= 1
            if left == 0:
                done(answers)

        self._backlog.put(
            [self.pending(order, partial(answered, place)) for place, order in enumerate(orders)]
        )

    def view(self, tenant: str, account: str) -> Future[View]:
        """Return the account as the ledger has it, with all that is due by now."""
        return self._read(tenant, account, _view)

    def catalog(self, tenant: str) -> Future[Catalog]:
        """Return a copy of the tenant's catalog as the ledger has it."""
        return self._read(tenant, None, lambda entry, _: entry.fork())

    def quote(self, tenant: str, charge: Charge) -> Future[tuple[int, Price | None]]:
        """Return what a charge would cost now, by the rules that a reservation is priced by."""
        return self._read(tenant, None, lambda entry, _: rate(charge, entry.catalog))

    def _read(self, tenant: str, account: str | None, reading: Reading) -> Future[Any]:
        future: Future[Any] = Future()
        pending = Pending(
            stream_id(tenant, account),
            None,
            partial(_resolve, future),
            time.monotonic() + self.command_timeout_seconds,
            is_catalog=account is None,
            read=reading,
        )
        self._backlog.put([pending])
        return future

    def pending(self, order: Order, answer: Callable[[Answer], None]) -> Pending:
        """Return a command to hand over; `answer` gets its answer where the writer runs."""
        deadline = time.monotonic() + self.command_timeout_seconds
        fault = fault_of(order)
        stream = order.stream if fault is None else NOWHERE
        return Pending(stream, order, answer, deadline, is_catalog=order.is_for_tenant, fault=fault)


def _resolve(future: Future[Any], answer: object) -> None:
    # From here on the caller cannot cancel: between a look and the answer he could have.
    if not future.set_running_or_notify_cancel():
        return
    if isinstance(answer, LedgerError):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def _view(entry: Entry, now: datetime) -> View:
    _, account = settle(entry.account, now)
    snapshot = account.snapshot()
    return View(
        position=entry.position,
        version=snapshot.version,
        opened=snapshot.opened,
        as_of=now,
        balance=snapshot.balance,
        grants=snapshot.grants,
        operations=snapshot.operations,
        label=snapshot.label,
        metadata=snapshot.metadata,
    )
