"""`eventsourcing` as its documentation shows it: reserve and capture on a cached aggregate."""

from __future__ import annotations

from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import IntegrityError


class Insufficient(Exception):
    """Fewer credits are available than were asked for."""


class Wallet(Aggregate):
    """A balance with reservations."""

    @event("Opened")
    def __init__(self, amount: int) -> None:
        """Open with an amount, in millionths."""
        self.available = amount
        self.reservations: dict[str, int] = {}

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


class Wallets(Application[UUID]):
    """Commands on wallets; a lost race is tried again."""

    name = "wallets"

    def open(self, amount: int) -> UUID:
        """Make a wallet."""
        wallet = Wallet(amount=amount)
        self.save(wallet)
        return wallet.id

    def reserve(self, wallet_id: UUID, reservation: str, amount: int) -> None:
        """Set an amount aside, once a reservation."""
        while True:
            wallet: Wallet = self.repository.get(wallet_id)
            if reservation in wallet.reservations:
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
