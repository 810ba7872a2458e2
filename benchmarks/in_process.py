"""Reserve and capture without HTTP: the writer against aggregates of `eventsourcing`."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit
from uuid import UUID

from benchmarks.baselines.aggregates import Wallets
from benchmarks.measure import Contestant
from ledger.batch import Answer
from ledger.domain.commands import Capture, GrantCredits, PutAccount, Reserve
from ledger.domain.entities import Charge
from ledger.domain.events import CreditsReserved
from ledger.domain.values import MICRO
from ledger.records import Order, Outcome
from ledger.store import Store
from ledger.writer import Writer
from scrip.embedded import DatabaseUrls

TENANT = "bench"
PLENTY = 1_000_000_000 * MICRO
RESERVED, CAPTURED = 3 * MICRO, 2 * MICRO
_numbers = itertools.count()


def order(account: str, command: PutAccount | GrantCredits | Reserve | Capture) -> Order:
    """Return an order with a key of its own."""
    key = f"bench-{next(_numbers)}-{time.time_ns()}"
    return Order(tenant=TENANT, account=account, command=command, key=key, by="bench")


class WriterLoad:
    """Pairs of reserve and capture on a writer, so many commands in flight."""

    def __init__(self, writer: Writer, accounts: int) -> None:
        """Open `accounts` accounts with plenty of credits."""
        self.writer = writer
        self.accounts = [f"account-{number}" for number in range(accounts)]
        for some in batched(self.accounts, 500):
            for command in (PutAccount(), GrantCredits(amount=PLENTY, kind="paid")):
                self.ask([order(account, command) for account in some])

    def ask(self, orders: list[Order]) -> list[Outcome]:
        """Have orders done, and insist that none is refused."""
        done = threading.Event()
        received: list[Answer] = []

        def answered(answers: list[Answer]) -> None:
            received.extend(answers)
            done.set()

        self.writer.submit_many(orders, answered)
        done.wait()
        outcomes = [answer for answer in received if isinstance(answer, Outcome)]
        assert len(outcomes) == len(orders), received
        return outcomes

    def singly(self, pairs: int, in_flight: int, accounts: int) -> float:
        """Return commands a second, each submitted by itself, `in_flight` at a time."""
        room = threading.Semaphore(in_flight)
        finished = threading.Semaphore(0)

        def captured(answers: list[Answer]) -> None:
            assert isinstance(answers[0], Outcome), answers
            room.release()
            finished.release()

        def reserved(answers: list[Answer]) -> None:
            self.writer.submit_many([capture_of(answers[0])], captured)

        began = time.perf_counter()
        for _ in range(pairs):
            room.acquire()
            account = random.choice(self.accounts[:accounts])  # noqa: S311 - a load, no secret
            self.writer.submit_many([reserve_on(account)], reserved)
        for _ in range(pairs):
            finished.acquire()
        return 2 * pairs / (time.perf_counter() - began)

    def in_batches(self, pairs: int, size: int) -> float:
        """Return commands a second, submitted `size` at a time."""
        began = time.perf_counter()
        for some in batched(random.choices(self.accounts, k=pairs), size):  # noqa: S311
            outcomes = self.ask([reserve_on(account) for account in some])
            self.ask([capture_of(outcome) for outcome in outcomes])
        return 2 * pairs / (time.perf_counter() - began)

    def check(self) -> None:
        """Assert that the ledger is right, and that nothing is left reserved."""
        for account in random.sample(self.accounts, min(100, len(self.accounts))):
            view = self.writer.view(TENANT, account).result()
            assert view.balance.holds()
            assert view.balance.reserved == 0


def reserve_on(account: str) -> Order:
    """Return an order that reserves."""
    return order(account, Reserve(charge=Charge(amount=RESERVED)))


def capture_of(answer: Answer) -> Order:
    """Return the order that captures what `answer` has reserved."""
    assert isinstance(answer, Outcome), answer
    assert answer.recorded is not None
    event, account = answer.recorded.event, answer.recorded.account
    assert isinstance(event, CreditsReserved)
    assert account is not None
    command = Capture(reservation=event.reservation, charge=Charge(amount=CAPTURED))
    return order(account, command)


def batched(items: list[str], size: int) -> Iterator[list[str]]:
    """Yield `items` in lists of `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


class AggregateLoad:
    """The same pairs on aggregates, by so many threads."""

    def __init__(self, urls: DatabaseUrls, accounts: int) -> None:
        """Make wallets, with the library's cache on and its fast-forward off."""
        parts = urlsplit(urls.owner_url)
        self.wallets = Wallets(
            env={
                "PERSISTENCE_MODULE": "eventsourcing.postgres",
                "POSTGRES_DBNAME": urls.name,
                "POSTGRES_HOST": parts.hostname or "",
                "POSTGRES_PORT": str(parts.port),
                "POSTGRES_USER": parts.username or "",
                "POSTGRES_PASSWORD": parts.password or "",
                "POSTGRES_POOL_SIZE": "16",
                "AGGREGATE_CACHE_MAXSIZE": "100000",
                "AGGREGATE_CACHE_FASTFORWARD": "no",
            }
        )
        self.ids = [self.wallets.open(PLENTY) for _ in range(accounts)]

    def run(self, pairs: int, threads: int) -> float:
        """Return commands a second. Each thread has wallets of its own, so that none waits."""
        shares = [self.ids[number::threads] for number in range(threads)]
        began = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda share: self._some(share, pairs // threads), shares))
        return 2 * (pairs // threads) * threads / (time.perf_counter() - began)

    def _some(self, ids: list[UUID], pairs: int) -> None:
        for _ in range(pairs):
            wallet_id, name = random.choice(ids), f"r{next(_numbers)}"  # noqa: S311
            self.wallets.reserve(wallet_id, name, RESERVED)
            self.wallets.capture(wallet_id, name, CAPTURED)

    def close(self) -> None:
        """Close the library's connections."""
        self.wallets.close()


@contextmanager
def contestants(
    ours: DatabaseUrls, theirs: DatabaseUrls, accounts: int, seconds: float
) -> Iterator[list[Contestant]]:
    """Yield what is compared, each doing about `seconds` of work a round."""
    pairs = int(seconds * 6_000)
    few = int(seconds * 250)
    store = Store.open(ours.app_url)
    baseline = AggregateLoad(theirs, min(accounts, 1_000))
    with Writer(store) as writer:
        load = WriterLoad(writer, accounts)
        yield [
            Contestant("eventsourcing, cached, 1 thread", lambda: baseline.run(few, 1)),
            Contestant("eventsourcing, cached, 16 threads", lambda: baseline.run(few, 16)),
            Contestant("writer, 64 in flight", lambda: load.singly(pairs, 64, accounts)),
            Contestant("writer, 256 in flight", lambda: load.singly(pairs, 256, accounts)),
            Contestant("writer, 256 in flight, one account", lambda: load.singly(pairs, 256, 1)),
            Contestant("writer, batches of 1 000", lambda: load.in_batches(pairs, 1_000)),
        ]
        load.check()
    baseline.close()
    store.close()
