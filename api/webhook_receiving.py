"""What whoever receives a webhook needs to know: is there such an endpoint, and which secrets.

Asked on the event loop for every request that comes, from anybody; so an answer is kept for a few
seconds, the database is asked once however many wait, and both are bounded.
"""

from __future__ import annotations

import asyncio
import re
import time
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from msgspec import Struct, structs
from psycopg import AsyncConnection, OperationalError
from psycopg.rows import class_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from pydantic import SecretStr

from api.problems import SecretsUnreadable
from api.sealing import CannotOpen, Place, Sealed, SecretKeys
from ledger.domain.errors import StoreUnavailable
from ledger.domain.facts import Provider

KNOWN_SECONDS: Final = 3.0
"""How long an answer of the database is believed: a secret removed is good no longer than this."""
KNOWN_MAX: Final = 1_000
_ID = re.compile(r"whe_[0-9A-Za-z]{26}", re.ASCII)

SELECT_LIVE = """
SELECT e.tenant, t.mode = 'live' AS livemode, s.id, s.key_id, s.nonce, s.ciphertext, s.expires_at
FROM scrip.webhook_endpoints e
JOIN scrip.tenants t USING (tenant)
JOIN scrip.webhook_secrets s ON s.endpoint = e.id
WHERE e.id = %(id)s AND e.provider = %(provider)s AND e.state = 'active'
  AND (s.expires_at IS NULL OR s.expires_at > now())
ORDER BY s.added_at, s.id
"""

log = structlog.get_logger("scrip.api")


class LiveSecret(Struct, frozen=True, kw_only=True):
    """A secret that is good now, opened. Printed, it is masked."""

    id: str
    value: SecretStr
    expires_at: datetime | None


class LiveEndpoint(Struct, frozen=True, kw_only=True):
    """An active endpoint with at least one secret that is good now, the oldest first."""

    id: str
    tenant: str
    provider: Provider
    livemode: bool
    secrets: tuple[LiveSecret, ...]


class _Row(Struct, frozen=True, kw_only=True):
    tenant: str
    livemode: bool
    id: str
    key_id: str
    nonce: bytes
    ciphertext: bytes
    expires_at: datetime | None


class _Known(Struct):
    until: float
    endpoint: asyncio.Task[LiveEndpoint | None]


async def secrets_of(
    connection: AsyncConnection[Any], keys: SecretKeys | None, endpoint: str, provider: Provider
) -> LiveEndpoint | None:
    """Return the endpoint with its secrets, as the database has it now.

    None: there is none, it is another provider's, it is disabled, or no secret of it is good.
    Raises SecretsUnreadable if there are good secrets, and none of our keys opens any of them.
    """
    async with connection.cursor(row_factory=class_row(_Row)) as cursor:
        await cursor.execute(SELECT_LIVE, {"id": endpoint, "provider": provider})
        rows = await cursor.fetchall()
    if not rows:
        return None
    opened = []
    for row in rows:
        place = Place(tenant=row.tenant, provider=provider, endpoint=endpoint, secret=row.id)
        sealed = Sealed(key_id=row.key_id, nonce=row.nonce, ciphertext=row.ciphertext)
        value = _opened(keys, place, sealed)
        if value is None:
            log.warning("webhook.unreadable", endpoint=endpoint, id=row.id, sealed_by=row.key_id)
        else:
            opened.append(LiveSecret(id=row.id, value=value, expires_at=row.expires_at))
    if not opened:
        raise SecretsUnreadable
    return LiveEndpoint(
        id=endpoint,
        tenant=rows[0].tenant,
        provider=provider,
        livemode=rows[0].livemode,
        secrets=tuple(opened),
    )


def _opened(keys: SecretKeys | None, place: Place, sealed: Sealed) -> SecretStr | None:
    try:
        return None if keys is None else keys.open(place, sealed)
    except CannotOpen:
        return None


class Receivers:
    """Finds endpoints for those who receive. Belongs to one event loop."""

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        keys: SecretKeys | None,
        known_seconds: float = KNOWN_SECONDS,
    ) -> None:
        """Ask the database through `pool`, and believe it for so long."""
        self._pool = pool
        self._keys = keys
        self._known_seconds = known_seconds
        self._known: dict[tuple[str, Provider], _Known] = {}
        self.lookups = 0

    async def find(self, endpoint: str, provider: Provider) -> LiveEndpoint | None:
        """Return the endpoint with the secrets that are good now, or None: see `secrets_of`.

        Raises SecretsUnreadable, StoreUnavailable: come again later.
        """
        if _ID.fullmatch(endpoint) is None:
            return None
        known = self._known.get((endpoint, provider))
        if known is None or known.until <= time.monotonic():
            known = self._look_up(endpoint, provider)
        asked = known.endpoint
        # Shielded: whoever goes away must not take the answer from the others that wait for it.
        found = asked.result() if asked.done() else await asyncio.shield(asked)
        return None if found is None else _without_expired(found, datetime.now(UTC))

    def _look_up(self, endpoint: str, provider: Provider) -> _Known:
        while len(self._known) >= KNOWN_MAX:
            del self._known[next(iter(self._known))]
        key = (endpoint, provider)
        self._known.pop(key, None)
        task = asyncio.create_task(self._read(endpoint, provider))
        known = self._known[key] = _Known(time.monotonic() + self._known_seconds, task)
        task.add_done_callback(lambda task: self._forget_failure(key, task))
        return known

    def _forget_failure(
        self, key: tuple[str, Provider], task: asyncio.Task[LiveEndpoint | None]
    ) -> None:
        if task.cancelled() or task.exception() is not None:
            known = self._known.get(key)
            if known is not None and known.endpoint is task:
                del self._known[key]

    async def _read(self, endpoint: str, provider: Provider) -> LiveEndpoint | None:
        self.lookups += 1
        try:
            async with self._pool.connection() as connection:
                return await secrets_of(connection, self._keys, endpoint, provider)
        except (OperationalError, PoolTimeout) as error:
            raise StoreUnavailable from error


def _without_expired(endpoint: LiveEndpoint, now: datetime) -> LiveEndpoint | None:
    good = tuple(
        secret
        for secret in endpoint.secrets
        if secret.expires_at is None or secret.expires_at > now
    )
    if len(good) == len(endpoint.secrets):
        return endpoint
    return structs.replace(endpoint, secrets=good) if good else None
