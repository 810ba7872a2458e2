"""What a webhook of Asaas is about, as Asaas itself tells it: nothing else of it is believed."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from api.provider_problems import ProviderRefused
from api.providers.asaas_api import AsaasApi
from api.providers.asking import Providers
from api.webhooks import asaas_facts
from ledger.domain.facts import PaymentFact
from ledger.payment_messages import PaymentMessage

NOT_THERE: Final = str(HTTPStatus.NOT_FOUND.value)


class AsaasPayments:
    """Fetches payments."""

    def __init__(self, providers: Providers) -> None:
        """Ask with the keys of the tenants."""
        self._providers = providers

    async def payment(self, tenant: str, told: PaymentMessage) -> tuple[PaymentFact, ...]:
        """Return what Asaas tells now of the payment that a delivery is about.

        Raises ProviderKeyMissing, ProviderRefused, ProviderUnavailable, SecretsUnreadable, and
        Unreadable if a field that is needed is not there.
        """
        assert told.fetch is not None
        api = await self._providers.asaas(tenant)
        payment = await api.payment(told.fetch)
        if not payment.get("externalReference"):
            payment["externalReference"] = await reference_of_link(api, payment)
        return asaas_facts.facts(told.delivery, told.type, payment)


def is_not_there(error: ProviderRefused) -> bool:
    """Tell whether a provider has answered that there is no such thing."""
    return bool(error.facts["provider_code"] == NOT_THERE)


async def reference_of_link(api: AsaasApi, payment: dict[str, Any]) -> str | None:
    """Return the reference of the link by which it was paid: it may stand there alone."""
    link = payment.get("paymentLink")
    if not isinstance(link, str):
        return None
    try:
        reference = (await api.link(link)).get("externalReference")
    except ProviderRefused as error:
        if is_not_there(error):
            return None  # The link was removed since.
        raise
    return reference if isinstance(reference, str) else None
