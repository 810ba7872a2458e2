"""What is asked of a provider that signs nothing: the payment, as it is told by the provider."""

from __future__ import annotations

from typing import Protocol

from ledger.domain.facts import PaymentFact
from ledger.payment_messages import PaymentMessage


class FetchLater(Exception):
    """The provider cannot be asked now; the text says why, and holds no secret."""


class FetchNever(Exception):
    """The provider has no such payment for us; the text says why, and holds no secret."""


class Fetch(Protocol):
    """Asks a provider."""

    async def payment(self, tenant: str, told: PaymentMessage) -> tuple[PaymentFact, ...]:
        """Return what the provider tells now of the payment that a delivery is about.

        Raises FetchLater, FetchNever.
        """
