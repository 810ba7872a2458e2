"""How a customer is charged who is not there: what auto top-up asks of a provider."""

from __future__ import annotations

from typing import Protocol

from ledger.domain.top_ups import Card, Charged, TopUp


class Charge(Protocol):
    """Asks a provider. Nothing here raises because of what the provider says, or does not say."""

    async def card(self, tenant: str, customer: str) -> Card:
        """Return what the customer pays with."""

    async def charge(self, top_up: TopUp) -> Charged:
        """Charge the customer, once for the id of `top_up`, by one request."""

    async def find(self, top_up: TopUp, payment: str | None) -> Charged:
        """Return what became of a charge: of the one that `payment` names, if it is known."""
