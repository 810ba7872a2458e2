"""What can go wrong where a payment provider is asked for something."""

from __future__ import annotations

import re
from typing import Final

from ledger.domain.errors import LedgerError

MESSAGE_MAX: Final = 300
_SECRET: Final = re.compile(r"\b(?:sk|rk|pk|whsec)_\S+|\$?aact_\S+")


class ProviderKeyMissing(LedgerError):
    """The tenant has no API key at this payment provider. An admin can put one."""

    code, status = "provider_key_missing", 422


class ProviderKeyNotFound(LedgerError):
    """The tenant has put no API key of this payment provider."""

    code, status = "provider_key_not_found", 404


class ProviderRefused(LedgerError):
    """The payment provider was asked, and refused."""

    code, status = "provider_refused", 502

    @property
    def detail(self) -> str:
        """What the provider says."""
        said = self.facts["message"]
        return f"{self.facts['provider']} refused: {said}" if said else super().detail


class ProviderUnavailable(LedgerError):
    """The payment provider did not answer, or has too much to do. The same request may succeed."""

    code, status, retryable = "provider_unavailable", 503, True


class PaymentDeclined(LedgerError):
    """The customer's payment method was declined."""

    code, status = "payment_declined", 402


class OfferNotFound(LedgerError):
    """There is no such plan or pack for sale: none with this key is in force, or it is retired."""

    code, status = "offer_not_found", 404


class OfferNotSold(LedgerError):
    """The plan or pack cannot be bought through this payment provider."""

    code, status = "offer_not_sold", 422

    @property
    def detail(self) -> str:
        """What the catalog lacks."""
        return f"{self.facts['offer']} cannot be bought through {self.facts['provider']}: " + str(
            self.facts["why"]
        )


def told(message: object) -> str:
    """Return what a provider says, short, and without anything that looks like a secret."""
    text = " ".join(str(message or "").split())
    return _SECRET.sub("…", text)[:MESSAGE_MAX]
