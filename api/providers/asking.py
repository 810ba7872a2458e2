"""The way to the providers: a tenant's key, and connections that all tenants share."""

from __future__ import annotations

import asyncio

import httpx

from api.provider_problems import ProviderKeyMissing
from api.providers import asaas_api, stripe_api
from api.providers.asaas_api import AsaasApi
from api.providers.keys import Processor, ProviderKey, ProviderKeys
from api.providers.patience import SHORT, Patience
from api.providers.stripe_api import StripeApi, StripeHttp


class Providers:
    """Gives whoever asks a provider for a tenant the means to. Belongs to one event loop."""

    def __init__(
        self,
        keys: ProviderKeys,
        stripe_url: str = stripe_api.URL,
        asaas_url: str | None = None,
        patience: Patience = SHORT,
    ) -> None:
        """Ask at these addresses; without one for Asaas, at that of the tenant's mode."""
        self.keys = keys
        self._stripe_http = StripeHttp(stripe_url)
        self._asaas_url = asaas_url
        self._asaas_http: httpx.AsyncClient | None = None
        self._patience = patience

    async def stripe(self, tenant: str) -> StripeApi:
        """Return the tenant's account at Stripe. Raises ProviderKeyMissing, SecretsUnreadable."""
        key = await self._key(tenant, "stripe")
        # Its import takes a second, in which nobody else would be answered.
        await asyncio.to_thread(stripe_api.library)
        return StripeApi(self._stripe_http, key.value, self._patience)

    async def asaas(self, tenant: str) -> AsaasApi:
        """Return the tenant's account at Asaas. Raises ProviderKeyMissing, SecretsUnreadable."""
        key = await self._key(tenant, "asaas")
        if self._asaas_http is None:
            self._asaas_http = httpx.AsyncClient(timeout=asaas_api.TIMEOUT_SECONDS)
        of_mode = asaas_api.LIVE_URL if key.livemode else asaas_api.TEST_URL
        return AsaasApi(self._asaas_http, self._asaas_url or of_mode, key.value, self._patience)

    async def close(self) -> None:
        """Close the connections."""
        await self._stripe_http.close()
        if self._asaas_http is not None:
            await self._asaas_http.aclose()

    async def _key(self, tenant: str, provider: Processor) -> ProviderKey:
        key = await self.keys.find(tenant, provider)
        if key is None:
            raise ProviderKeyMissing(provider=provider)
        return key
