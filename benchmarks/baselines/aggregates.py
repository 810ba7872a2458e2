"""`eventsourcing` as its documentation shows it: reserve and capture on cached aggregates.

Everything that the library offers for speed without being wrong is on. To the baseline's favour, a
wallet remembers the names of the last closed reservations only: remembering all of them would make
each copy of it, and so each command, dearer than the one before.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import IntegrityError

from scrip.embedded import DatabaseUrls

CLOSED_KEPT: Final = 16
GRANTED, RESERVED, CAPTURED = 10**15, 3_000_000, 2_000_000
CACHED: Final = {"AGGREGATE_CACHE_MAXSIZE": "100000"}
SETTINGS: Final[Mapping[str, Mapping[str, str]]] = {
    # Each command reads what other processes may have added to its aggregate.
    "as it comes": CACHED,
    # Right as long as there is one process: another one's events would never be seen.
    "no fast-forward": {**CACHED, "AGGREGATE_CACHE_FASTFORWARD": "no"},
}
_numbers = itertools.count()


class Insufficient(Exception):
    """Fewer credits are available than were asked for."""


class Wallet(Aggregate):
    """A balance with reservations."""

    @event("Opened")
    def __init__(self, amount: int) -> None:
        """Open with an amount, in millionths."""
        self.available = amount
        self.reservations: dict[str, int] = {}
        self.closed: list[str] = []

    @event("Reserved")
    def reserve(self, reservation: str, amount: int) -> None:
        """Set an amount aside."""
        if amount > self.available:
            raise Insufficient
        self.available -= amount
        self.reservations[reservation] = amount

    @event("Captured")
    def capture(self, reservation: str, amount: int) -> None:
        """Spend a reservation and give the rest back."""
        reserved = self.reservations.pop(reservation)
        assert amount <= reserved
        self.available += reserved - amount
        self.closed = [*self.closed[1 - CLOSED_KEPT :], reservation]


class Wallets(Application[UUID]):
    """Commands on wallets; a lost race is tried again, a repeated name changes nothing."""

    name = "wallets"

    def open(self, amount: int) -> UUID:
        """Make a wallet."""
        wallet = Wallet(amount=amount)
        self.save(wallet)
        return wallet.id

    def reserve(self, wallet_id: UUID, reservation: str, amount: int) -> None:
        """Set an amount aside, once a name."""
        while True:
            wallet: Wallet = self.repository.get(wallet_id)
            if reservation in wallet.reservations or reservation in wallet.closed:
                return
            wallet.reserve(reservation, amount)
            try:
                self.save(wallet)
            except IntegrityError:
                continue
            return

    def capture(self, wallet_id: UUID, reservation: str, amount: int) -> None:
        """Spend a reservation, once."""
        while True:
            wallet: Wallet = self.repository.get(wallet_id)
            if reservation not in wallet.reservations:
                return
            wallet.capture(reservation, amount)
            try:
                self.save(wallet)
            except IntegrityError:
                continue
            return


class AggregateLoad:
    """Pairs of reserve and capture on wallets, by so many threads."""

    def __init__(
        self, urls: DatabaseUrls, settings: Mapping[str, str], accounts: int, seconds: float
    ) -> None:
        """Make wallets, in the library's cache from the start."""
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
                **settings,
            }
        )
        self.seconds = seconds
        self.ids = [self.wallets.open(GRANTED) for _ in range(accounts)]
        for wallet_id in self.ids:
            self.wallets.repository.get(wallet_id)
        self.pairs = 0

    def run(self, threads: int) -> float:
        """Return commands a second. Each thread has wallets of its own, so that none waits."""
        shares = [self.ids[number::threads] for number in range(threads)]
        began = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            pairs = sum(pool.map(lambda share: self._some(share, began + self.seconds), shares))
        self.pairs += pairs
        return 2 * pairs / (time.perf_counter() - began)

    def _some(self, ids: Sequence[UUID], until: float) -> int:
        pairs = 0
        while time.perf_counter() < until:
            wallet_id, name = random.choice(ids), f"r{next(_numbers)}"  # noqa: S311 - a load
            self.wallets.reserve(wallet_id, name, RESERVED)
            self.wallets.capture(wallet_id, name, CAPTURED)
            pairs += 1
        return pairs

    def check(self) -> None:
        """Assert that every command is one event, and that nothing is lost or left reserved."""
        wallets: list[Wallet] = [self.wallets.repository.get(one) for one in self.ids]
        assert not any(wallet.reservations for wallet in wallets)
        left = sum(wallet.available for wallet in wallets)
        assert left == GRANTED * len(wallets) - CAPTURED * self.pairs
        # Not by the last position: a lost race leaves a gap.
        assert sum(wallet.version for wallet in wallets) == len(wallets) + 2 * self.pairs

    def close(self) -> None:
        """Close the library's connections."""
        self.wallets.close()
