"""Commands given to a writer of this process: to measure it, and to fill a ledger quickly."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

from ledger.domain.commands import Capture, Command, GrantCredits, PutAccount, Reserve
from ledger.domain.entities import Charge
from ledger.domain.errors import LedgerError
from ledger.domain.events import CreditsReserved
from ledger.domain.values import MICRO
from ledger.records import Order, Outcome, Recorded
from ledger.store import Store
from ledger.writer import Writer

TENANT = "bench"
GRANTED = 1_000_000_000 * MICRO
RESERVED, CAPTURED = 3 * MICRO, 2 * MICRO
AT_ONCE = 500
LONG_SECONDS = 30 * 24 * 3600
ANSWER_SECONDS_MAX = 120.0
RESERVE = Reserve(charge=Charge(amount=RESERVED), ttl_seconds=LONG_SECONDS)
CAPTURE_CHARGE = Charge(amount=CAPTURED)
Answer = Outcome | LedgerError
Item = TypeVar("Item")
_numbers = itertools.count()
_run = time.time_ns()


@contextmanager
def writing(url: str) -> Iterator[Writer]:
    """Run a writer, with the settings that services have when none is set."""
    store = Store.open(url)
    try:
        with Writer(store) as writer:
            yield writer
    finally:
        store.close()


def account(number: int) -> str:
    """Return the name of an account."""
    return f"account-{number}"


def order(name: str, command: Command) -> Order:
    """Return an order with a key of its own."""
    key = f"bench-{_run}-{next(_numbers)}"
    return Order(tenant=TENANT, account=name, command=command, key=key, by="bench")


def reserve_on(name: str) -> Order:
    """Return an order that reserves."""
    return order(name, RESERVE)


def capture_of(answer: Answer) -> Order:
    """Return the order that captures what `answer` has reserved."""
    recorded = recorded_in(answer)
    assert isinstance(recorded.event, CreditsReserved)
    assert recorded.account is not None
    command = Capture(reservation=recorded.event.reservation, charge=CAPTURE_CHARGE)
    return order(recorded.account, command)


def recorded_in(answer: Answer) -> Recorded:
    """Return the event in an answer, which must be no refusal."""
    assert isinstance(answer, Outcome), answer
    assert answer.recorded is not None
    return answer.recorded


def ask(writer: Writer, orders: Sequence[Order]) -> list[Answer]:
    """Have orders done together, and insist that none is refused."""
    answered: Future[list[Answer]] = Future()
    writer.submit_many(orders, answered.set_result)
    answers = answered.result(ANSWER_SECONDS_MAX)
    for answer in answers:
        recorded_in(answer)
    return answers


def open_accounts(writer: Writer, names: Iterable[str]) -> int:
    """Open accounts, each with a grant of plenty. Returns how many events that has made."""
    events = 0
    for some in batched(list(names), AT_ONCE):
        for command in (PutAccount(), GrantCredits(amount=GRANTED, kind="paid")):
            events += len(ask(writer, [order(name, command) for name in some]))
    return events


def pairs_in_batches(
    writer: Writer,
    names: Sequence[str],
    size: int = AT_ONCE,
    told: Callable[[int], object] = lambda _: None,
) -> int:
    """Reserve and capture once on each of `names`, so many at once. Returns the commands.

    `told` hears how many there are so far.
    """
    commands = 0
    for some in batched(names, size):
        answers = ask(writer, [reserve_on(name) for name in some])
        commands += 2 * len(ask(writer, [capture_of(answer) for answer in answers]))
        told(commands)
    return commands


class Chains:
    """Reserve, capture, reserve, capture, …: some chains of commands, each on its own way.

    What follows an answer is submitted by whoever brings the answer: no thread waits for another.
    """

    def __init__(self, writer: Writer, names: Sequence[str], size: int) -> None:
        """Work on `names`, chosen by chance, `size` commands at a time in each chain."""
        self.writer = writer
        self.names = names
        self.size = size
        self.commands = 0
        self._until = 0.0
        self._running = 0
        self._lock = threading.Lock()
        self._ended: Future[None] = Future()

    def run(self, chains: int, seconds: float) -> float:
        """Run for so long, and return how many seconds it was till the last chain ended."""
        began = time.perf_counter()
        self._until = began + seconds
        self._running = chains
        for _ in range(chains):
            self._reserve()
        self._ended.result(seconds + ANSWER_SECONDS_MAX)
        return time.perf_counter() - began

    def _reserve(self) -> None:
        if time.perf_counter() >= self._until:
            self._end()
            return
        names = random.choices(self.names, k=self.size)  # noqa: S311 - a load, no secret
        self.writer.submit_many([reserve_on(name) for name in names], self._reserved)

    def _reserved(self, answers: list[Answer]) -> None:
        if self._all_good(answers):
            self.writer.submit_many([capture_of(answer) for answer in answers], self._captured)

    def _captured(self, answers: list[Answer]) -> None:
        if self._all_good(answers):
            with self._lock:
                self.commands += 2 * len(answers)
            self._reserve()

    def _all_good(self, answers: list[Answer]) -> bool:
        refused = [answer for answer in answers if not isinstance(answer, Outcome)]
        if refused and not self._ended.done():
            self._ended.set_exception(refused[0])
        return not refused

    def _end(self) -> None:
        with self._lock:
            self._running -= 1
            last = self._running == 0
        if last and not self._ended.done():
            self._ended.set_result(None)


def batched(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yield `items` in sequences of `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
