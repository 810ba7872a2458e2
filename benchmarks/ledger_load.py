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
    return order(name, Reserve(charge=Charge(amount=RESERVED), ttl_seconds=LONG_SECONDS))


def capture_of(answer: Answer) -> Order:
    """Return the order that captures what `answer` has reserved."""
    recorded = recorded_in(answer)
    assert isinstance(recorded.event, CreditsReserved)
    assert recorded.account is not None
    command = Capture(reservation=recorded.event.reservation, charge=Charge(amount=CAPTURED))
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


def pairs_one_by_one(
    writer: Writer, names: Sequence[str], seconds: float, in_flight: int
) -> tuple[int, float]:
    """Reserve and capture, each submitted by itself, `in_flight` pairs at a time.

    Returns how many commands were answered, and in how many seconds: all that began.
    """
    room = threading.Semaphore(in_flight)
    refused: list[Answer] = []
    pairs = 0

    def captured(answers: list[Answer]) -> None:
        refused.extend(answer for answer in answers if not isinstance(answer, Outcome))
        room.release()

    def reserved(answers: list[Answer]) -> None:
        if isinstance(answers[0], Outcome):
            writer.submit_many([capture_of(answers[0])], captured)
        else:
            captured(answers)

    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        room.acquire()
        name = random.choice(names)  # noqa: S311 - a load, no secret
        writer.submit_many([reserve_on(name)], reserved)
        pairs += 1
    for _ in range(in_flight):
        assert room.acquire(timeout=ANSWER_SECONDS_MAX)
    assert not refused, refused[0]
    return 2 * pairs, time.perf_counter() - began


def batched(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yield `items` in sequences of `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
