"""The way to payment providers, made from the settings; and what the worker asks of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from psycopg import OperationalError
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from api.problems import SecretsUnreadable
from api.provider_problems import ProviderKeyMissing, ProviderRefused, ProviderUnavailable
from api.providers.asking import Providers
from api.providers.fetching import AsaasPayments, is_not_there
from api.providers.keys import ProviderKeys
from api.sealing import SecretKeys
from api.webhooks.reading import Unreadable
from consumers.fetching import FetchLater, FetchNever
from ledger.domain.facts import PaymentFact
from ledger.payment_messages import PaymentMessage
from scrip.settings import Settings

CONNECTIONS_MAX: Final = 2


def secrets_keys(settings: Settings) -> SecretKeys | None:
    """Return the keys that seal and open secrets, if there are any."""
    keys = settings.secrets_keys
    return None if keys is None else SecretKeys.parse(keys.get_secret_value())


@asynccontextmanager
async def providers(settings: Settings) -> AsyncIterator[Providers]:
    """Open the way to the providers, for a process that has no other use for the database."""
    pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
        settings.database_url.get_secret_value(),
        min_size=0,
        max_size=CONNECTIONS_MAX,
        open=False,
        name="keys",
        check=AsyncConnectionPool.check_connection,
        kwargs={"autocommit": True, "application_name": "scrip-keys"},
    )
    asked = Providers(
        ProviderKeys(pool, secrets_keys(settings)),
        settings.stripe_api_url,
        settings.asaas_api_url,
    )
    async with pool:
        try:
            yield asked
        finally:
            await asked.close()


class Fetching:
    """The worker's way to what it must ask of a provider."""

    def __init__(self, asked: Providers) -> None:
        """Ask through `asked`."""
        self._payments = AsaasPayments(asked)

    async def payment(self, tenant: str, told: PaymentMessage) -> tuple[PaymentFact, ...]:
        """Return what the provider tells now. Raises FetchLater, FetchNever."""
        try:
            return await self._payments.payment(tenant, told)
        except ProviderRefused as error:
            # A key that is wrong can be put right; a payment of somebody else cannot.
            kind = FetchNever if is_not_there(error) else FetchLater
            raise kind(error.detail) from None
        except (ProviderKeyMissing, ProviderUnavailable, SecretsUnreadable) as error:
            raise FetchLater(error.detail) from None
        except (OperationalError, PoolTimeout):
            raise FetchLater("the database does not answer") from None
        except Unreadable as error:
            raise FetchNever(f"the payment cannot be read: {error}") from None
