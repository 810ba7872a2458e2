"""What the tests of the ledger share: a clock set by hand, and short ways to ask a writer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from ledger.domain.commands import Command, Deduct, GrantCredits, PutAccount, Reserve
from ledger.domain.entities import Charge
from ledger.pending import Answer
from ledger.records import Order, Outcome, Recorded
from ledger.writer import Writer

TENANT = "acme"
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
ANSWER_SECONDS = 30


class Clock:
    """A clock that stands still until it is told to move."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def order(
    command: Command, key: str | None, account: str | None = "a", tenant: str = TENANT
) -> Order:
    return Order(tenant=tenant, account=account, command=command, key=key, by="key:test")


def put(writer: Writer, one: Order) -> Recorded:
    """Have an order carried out, and return its own event."""
    recorded = writer.submit(one).result(ANSWER_SECONDS).recorded
    assert recorded is not None
    return recorded


def ask(writer: Writer, orders: Sequence[Order]) -> list[Answer]:
    """Return the answers to orders that are queued together."""
    done = threading.Event()
    answers: list[Answer] = []

    def answered(given: list[Answer]) -> None:
        answers.extend(given)
        done.set()

    writer.submit_many(orders, answered)
    assert done.wait(ANSWER_SECONDS), "no answer"
    return answers


def accepted(answers: Sequence[Answer]) -> list[Recorded]:
    """Return the events of those that were accepted."""
    outcomes = [answer for answer in answers if isinstance(answer, Outcome)]
    return [outcome.recorded for outcome in outcomes if outcome.recorded is not None]


def opened(account: str = "a", credits_given: int = 10) -> list[Order]:
    """Return the orders that open an account with credits."""
    return [
        order(PutAccount(), "open", account),
        order(GrantCredits(amount=credits_given, kind="paid"), "grant", account),
    ]


def reserve(amount: int, key: str, account: str = "a", ttl_seconds: int = 600) -> Order:
    charge = Charge(amount=amount)
    return order(Reserve(charge=charge, ttl_seconds=ttl_seconds), key, account)


def deduct(amount: int, key: str, account: str = "a") -> Order:
    return order(Deduct(charge=Charge(amount=amount)), key, account)


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to be so"
        time.sleep(0.01)
