"""API keys of tenants at payment providers: stored sealed, shown as a hint, opened to ask with."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

from msgspec import Struct, structs
from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg_pool import AsyncConnectionPool
from pydantic import SecretStr

from api.keys import UnknownTenant
from api.problems import SecretsKeyMissing, SecretsUnreadable
from api.provider_problems import ProviderKeyNotFound
from api.sealing import CannotOpen, Place, Sealed, SecretKeys
from api.webhook_endpoints import Rotation

Processor = Literal["stripe", "asaas"]
"""A payment provider that Scrip asks for something, and so needs a key to."""
PROCESSORS: Final[tuple[Processor, ...]] = get_args(Processor)
PURPOSE: Final = "scrip.provider-key.v1"
SEALED_AS: Final = "api_key"
LENGTH_MAX: Final = 255
HINT_CHARS: Final = 4
RULES: Final[dict[tuple[Processor, bool], tuple[str, str]]] = {
    ("stripe", True): (r"(?:sk|rk)_live_", "sk_live_ or rk_live_, for this tenant is live"),
    ("stripe", False): (r"(?:sk|rk)_test_", "sk_test_ or rk_test_, for this tenant is for tests"),
    ("asaas", True): (r"\$aact_prod_", "$aact_prod_, for this tenant is live"),
    ("asaas", False): (r"\$aact_hmlg_", "$aact_hmlg_, for this tenant is for tests"),
}
"""How a key begins, by provider and livemode."""
_REST: Final = r"[!-~]{12,}"

SELECT_LIVEMODE = "SELECT mode = 'live' FROM scrip.tenants WHERE tenant = %(tenant)s"
UPSERT_KEY = """
INSERT INTO scrip.provider_keys (tenant, provider, key_id, nonce, ciphertext, hint)
VALUES (%(tenant)s, %(provider)s, %(key_id)s, %(nonce)s, %(ciphertext)s, %(hint)s)
ON CONFLICT (tenant, provider) DO UPDATE
SET key_id = EXCLUDED.key_id, nonce = EXCLUDED.nonce, ciphertext = EXCLUDED.ciphertext,
    hint = EXCLUDED.hint, updated_at = now()
"""
SELECT_NOTE = """
SELECT k.provider, k.hint, t.mode = 'live' AS livemode, k.updated_at
FROM scrip.provider_keys k JOIN scrip.tenants t USING (tenant)
WHERE k.tenant = %(tenant)s AND k.provider = %(provider)s
"""
DELETE_KEY = """
DELETE FROM scrip.provider_keys WHERE tenant = %(tenant)s AND provider = %(provider)s
RETURNING provider
"""
SELECT_SEALED = """
SELECT k.key_id, k.nonce, k.ciphertext, t.mode = 'live' AS livemode
FROM scrip.provider_keys k JOIN scrip.tenants t USING (tenant)
WHERE k.tenant = %(tenant)s AND k.provider = %(provider)s
"""
SELECT_OLD_SEALED = """
SELECT tenant, provider, key_id, nonce, ciphertext FROM scrip.provider_keys
WHERE key_id <> %(newest)s ORDER BY tenant, provider FOR UPDATE
"""
UPDATE_SEALED = """
UPDATE scrip.provider_keys
SET key_id = %(key_id)s, nonce = %(nonce)s, ciphertext = %(ciphertext)s
WHERE tenant = %(tenant)s AND provider = %(provider)s
"""


class BadKey(ValueError):
    """No such key can be the tenant's; the text is the rule that it breaks, and no more."""


class KeyNote(Struct, frozen=True, kw_only=True):
    """What is shown of a key: never the key itself. `hint` is how it begins and ends."""

    provider: Processor
    hint: str
    livemode: bool
    updated_at: datetime


class ProviderKey(Struct, frozen=True, kw_only=True):
    """A key, opened, and whether it is of a live tenant. Printed, it is masked."""

    value: SecretStr
    livemode: bool


class _Row(Sealed, frozen=True, kw_only=True):
    livemode: bool


class _OldRow(Sealed, frozen=True, kw_only=True):
    tenant: str
    provider: Processor


async def put_key(
    connection: AsyncConnection[Any],
    keys: SecretKeys | None,
    *,
    tenant: str,
    provider: Processor,
    value: SecretStr,
) -> KeyNote:
    """Keep a key, in the place of any before it.

    Raises SecretsKeyMissing, UnknownTenant, BadKey.
    """
    if keys is None:
        raise SecretsKeyMissing
    row = await (await connection.execute(SELECT_LIVEMODE, {"tenant": tenant})).fetchone()
    if row is None:
        raise UnknownTenant(tenant)
    (livemode,) = row
    hint = checked_hint(provider, value.get_secret_value(), livemode=livemode)
    sealed = structs.asdict(keys.seal(_place(tenant, provider), value))
    named = {"tenant": tenant, "provider": provider, "hint": hint}
    await connection.execute(UPSERT_KEY, named | sealed)
    return await read_note(connection, tenant, provider)


async def read_note(connection: AsyncConnection[Any], tenant: str, provider: Processor) -> KeyNote:
    """Return what is shown of a key. Raises ProviderKeyNotFound."""
    async with connection.cursor(row_factory=class_row(KeyNote)) as cursor:
        await cursor.execute(SELECT_NOTE, {"tenant": tenant, "provider": provider})
        note = await cursor.fetchone()
    if note is None:
        raise ProviderKeyNotFound(provider=provider)
    return structs.replace(note, updated_at=note.updated_at.astimezone(UTC))


async def delete_key(connection: AsyncConnection[Any], tenant: str, provider: Processor) -> None:
    """Remove a key. Raises ProviderKeyNotFound."""
    deleted = await connection.execute(DELETE_KEY, {"tenant": tenant, "provider": provider})
    if await deleted.fetchone() is None:
        raise ProviderKeyNotFound(provider=provider)


async def reseal_keys(connection: AsyncConnection[Any], keys: SecretKeys) -> Rotation:
    """Seal every key that an older one of `keys` has sealed with the newest one, all or none.

    Those that none of `keys` opens are left as they are, and named.
    """
    resealed, unreadable = 0, []
    async with connection.transaction():
        async with connection.cursor(row_factory=class_row(_OldRow)) as cursor:
            await cursor.execute(SELECT_OLD_SEALED, {"newest": keys.newest})
            rows = await cursor.fetchall()
        for row in rows:
            place = _place(row.tenant, row.provider)
            try:
                new = keys.seal(place, keys.open(place, row))
            except CannotOpen:
                unreadable.append(f"{row.tenant}/{row.provider}")
                continue
            at = {"tenant": row.tenant, "provider": row.provider}
            await connection.execute(UPDATE_SEALED, at | structs.asdict(new))
            resealed += 1
    return Rotation(newest=keys.newest, resealed=resealed, unreadable=tuple(unreadable))


class ProviderKeys:
    """Finds the key to ask a provider with. Asks the database each time: a key put is in use."""

    def __init__(self, pool: AsyncConnectionPool[Any], keys: SecretKeys | None) -> None:
        """Read through `pool`, and open with `keys`."""
        self._pool = pool
        self._keys = keys

    async def of(self, tenant: str, provider: Processor) -> SecretStr | None:
        """Return the tenant's key, or None if it has put none. Raises SecretsUnreadable."""
        found = await self.find(tenant, provider)
        return None if found is None else found.value

    async def find(self, tenant: str, provider: Processor) -> ProviderKey | None:
        """Return the same with the tenant's mode."""
        async with (
            self._pool.connection() as connection,
            connection.cursor(row_factory=class_row(_Row)) as cursor,
        ):
            await cursor.execute(SELECT_SEALED, {"tenant": tenant, "provider": provider})
            row = await cursor.fetchone()
        if row is None:
            return None
        if self._keys is None:
            raise SecretsUnreadable
        try:
            value = self._keys.open(_place(tenant, provider), row)
        except CannotOpen:
            raise SecretsUnreadable from None
        return ProviderKey(value=value, livemode=row.livemode)


def _place(tenant: str, provider: Processor) -> Place:
    return Place(tenant=tenant, provider=provider, endpoint="", secret=SEALED_AS, purpose=PURPOSE)


def checked_hint(provider: Processor, text: str, *, livemode: bool) -> str:
    """Return how a key begins and ends, if it can be one of such a tenant. Raises BadKey."""
    begins, rule = RULES[provider, livemode]
    found = re.match(begins, text, re.ASCII)
    if found is None:
        raise BadKey(f"must begin with {rule}")
    if len(text) > LENGTH_MAX or re.fullmatch(begins + _REST, text, re.ASCII) is None:
        raise BadKey(f"must be whole, without spaces, and have at most {LENGTH_MAX} characters")
    return f"{found[0]}…{text[-HINT_CHARS:]}"
