"""Webhook endpoints: where providers send to, and the secrets by which they are known.

An endpoint has any number of secrets up to a bound, all of them good at once, so that one can be
exchanged without a gap. What is stored of a secret is sealed; what is shown of it is a hint.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

from msgspec import UNSET, Struct, UnsetType, structs
from psycopg import AsyncConnection
from psycopg.rows import class_row, scalar_row
from pydantic import SecretStr

from api.keys import ALPHABET, UnknownTenant
from api.problems import (
    SecretsKeyMissing,
    WebhookEndpointNotFound,
    WebhookLimitReached,
    WebhookSecretNotFound,
)
from api.sealing import CannotOpen, Place, Sealed, SecretKeys
from api.webhook_secrets import check_secret, hint_of
from ledger.domain.facts import Provider

State = Literal["active", "disabled"]

ENDPOINTS_MAX: Final = 100
SECRETS_MAX: Final = 10
ID_CHARS: Final = 26
SECRET_ID_CHARS: Final = 16

LOCK_TENANT = """
SELECT pg_advisory_xact_lock(hashtextextended('scrip.webhook_endpoints ' || %(tenant)s, 0))
"""
COUNT_ENDPOINTS = "SELECT count(*) FROM scrip.webhook_endpoints WHERE tenant = %(tenant)s"
SELECT_TENANT = "SELECT 1 FROM scrip.tenants WHERE tenant = %(tenant)s"
SELECT_TENANT_OF = "SELECT tenant FROM scrip.webhook_endpoints WHERE id = %(id)s"
INSERT_ENDPOINT = """
INSERT INTO scrip.webhook_endpoints (id, tenant, provider, label)
VALUES (%(id)s, %(tenant)s, %(provider)s, %(label)s)
"""
SELECT_ENDPOINT = """
SELECT e.id, e.tenant, e.provider, e.label, e.state, t.mode = 'live' AS livemode,
       e.created_at, e.updated_at
FROM scrip.webhook_endpoints e JOIN scrip.tenants t USING (tenant)
WHERE e.id = %(id)s AND e.tenant = %(tenant)s
"""
SELECT_ENDPOINTS = """
SELECT e.id, e.tenant, e.provider, e.label, e.state, t.mode = 'live' AS livemode,
       e.created_at, e.updated_at
FROM scrip.webhook_endpoints e JOIN scrip.tenants t USING (tenant)
WHERE (%(tenant)s::text IS NULL OR e.tenant = %(tenant)s)
  AND (%(after)s::timestamptz IS NULL OR (e.created_at, e.id) > (%(after)s, %(after_id)s))
ORDER BY e.created_at, e.id LIMIT %(limit)s
"""
LOCK_ENDPOINT = """
SELECT provider FROM scrip.webhook_endpoints WHERE id = %(id)s AND tenant = %(tenant)s FOR UPDATE
"""
UPDATE_ENDPOINT = """
UPDATE scrip.webhook_endpoints SET updated_at = now(), state = coalesce(%(state)s, state),
       label = CASE WHEN %(relabel)s THEN %(label)s ELSE label END
WHERE id = %(id)s AND tenant = %(tenant)s RETURNING id
"""
DELETE_ENDPOINT = """
DELETE FROM scrip.webhook_endpoints WHERE id = %(id)s AND tenant = %(tenant)s RETURNING id
"""
SELECT_NOTES = """
SELECT endpoint, id, hint, added_at, expires_at FROM scrip.webhook_secrets
WHERE endpoint = ANY(%(ids)s) ORDER BY added_at, id
"""
DELETE_EXPIRED = """
DELETE FROM scrip.webhook_secrets WHERE endpoint = %(endpoint)s AND expires_at <= now()
"""
COUNT_SECRETS = "SELECT count(*) FROM scrip.webhook_secrets WHERE endpoint = %(endpoint)s"
INSERT_SEALED = """
INSERT INTO scrip.webhook_secrets (endpoint, id, key_id, nonce, ciphertext, hint, expires_at)
VALUES (%(endpoint)s, %(id)s, %(key_id)s, %(nonce)s, %(ciphertext)s, %(hint)s, %(expires_at)s)
"""
DELETE_SEALED = """
DELETE FROM scrip.webhook_secrets WHERE endpoint = %(endpoint)s AND id = %(id)s RETURNING id
"""
SELECT_OLD_SEALED = """
SELECT e.tenant, e.provider, e.id AS endpoint, s.id AS secret, s.key_id, s.nonce, s.ciphertext
FROM scrip.webhook_secrets s JOIN scrip.webhook_endpoints e ON e.id = s.endpoint
WHERE s.key_id <> %(newest)s ORDER BY s.endpoint, s.id FOR UPDATE OF s
"""
UPDATE_SEALED = """
UPDATE scrip.webhook_secrets
SET key_id = %(key_id)s, nonce = %(nonce)s, ciphertext = %(ciphertext)s
WHERE endpoint = %(endpoint)s AND id = %(secret)s
"""


class SecretNote(Struct, frozen=True, kw_only=True):
    """What is shown of a secret: never the secret itself. `hint` is how it begins and ends."""

    id: str
    hint: str
    added_at: datetime
    expires_at: datetime | None


class WebhookEndpoint(Struct, frozen=True, kw_only=True):
    """All that is shown of an endpoint. `livemode` is that of its tenant."""

    id: str
    tenant: str
    provider: Provider
    label: str | None
    state: State
    livemode: bool
    created_at: datetime
    updated_at: datetime
    secrets: tuple[SecretNote, ...] = ()

    @property
    def path(self) -> str:
        """Where its provider sends to."""
        return f"/webhooks/{self.provider}/{self.id}"


class Rotation(Struct, frozen=True, kw_only=True):
    """What became of secrets that older keys had sealed: sealed anew, or not to be opened."""

    newest: str
    resealed: int
    unreadable: tuple[str, ...]


class _Note(SecretNote, frozen=True, kw_only=True):
    endpoint: str


class _OldSealed(Place, frozen=True, kw_only=True):
    key_id: str
    nonce: bytes
    ciphertext: bytes


async def create_endpoint(
    connection: AsyncConnection[Any],
    keys: SecretKeys | None,
    *,
    tenant: str,
    provider: Provider,
    label: str | None = None,
    secret: SecretStr | None = None,
) -> WebhookEndpoint:
    """Add an endpoint, with its first secret if one is given.

    Raises SecretsKeyMissing, UnknownTenant, BadSecret, WebhookLimitReached.
    """
    if keys is None:
        raise SecretsKeyMissing
    name = "whe_" + _chance(ID_CHARS)
    async with connection.transaction(), connection.cursor(row_factory=scalar_row) as cursor:
        of_tenant = {"tenant": tenant}
        if await (await cursor.execute(SELECT_TENANT, of_tenant)).fetchone() is None:
            raise UnknownTenant(tenant)
        await cursor.execute(LOCK_TENANT, of_tenant)
        count = await (await cursor.execute(COUNT_ENDPOINTS, of_tenant)).fetchone()
        if (count or 0) >= ENDPOINTS_MAX:
            raise WebhookLimitReached(limit="endpoints", max=ENDPOINTS_MAX)
        parameters = {"id": name, "tenant": tenant, "provider": provider, "label": label}
        await cursor.execute(INSERT_ENDPOINT, parameters)
        if secret is not None:
            await add_secret(connection, keys, tenant=tenant, endpoint=name, secret=secret)
        return await read_endpoint(connection, tenant, name)


async def read_endpoint(
    connection: AsyncConnection[Any], tenant: str, endpoint: str
) -> WebhookEndpoint:
    """Return an endpoint of the tenant. Raises WebhookEndpointNotFound."""
    async with connection.cursor(row_factory=class_row(WebhookEndpoint)) as cursor:
        found = await cursor.execute(SELECT_ENDPOINT, {"id": endpoint, "tenant": tenant})
        row = await found.fetchone()
    if row is None:
        raise WebhookEndpointNotFound(endpoint=endpoint)
    (whole,) = await _with_notes(connection, [row])
    return whole


async def list_endpoints(
    connection: AsyncConnection[Any],
    tenant: str | None,
    *,
    limit: int,
    after: tuple[datetime, str] | None = None,
) -> list[WebhookEndpoint]:
    """Return endpoints of a tenant, or of all (None), oldest first, from after that row on."""
    moment, name = after or (None, None)
    parameters = {"tenant": tenant, "after": moment, "after_id": name, "limit": limit}
    async with connection.cursor(row_factory=class_row(WebhookEndpoint)) as cursor:
        rows = await (await cursor.execute(SELECT_ENDPOINTS, parameters)).fetchall()
    return await _with_notes(connection, rows)


async def change_endpoint(
    connection: AsyncConnection[Any],
    *,
    tenant: str,
    endpoint: str,
    state: State | None = None,
    label: str | UnsetType | None = UNSET,
) -> WebhookEndpoint:
    """Set what is given and return the endpoint. Raises WebhookEndpointNotFound.

    Every process goes by the new state within a few seconds.
    """
    parameters = {
        "id": endpoint,
        "tenant": tenant,
        "state": state,
        "relabel": label is not UNSET,
        "label": None if isinstance(label, UnsetType) else label,
    }
    await _one(connection, UPDATE_ENDPOINT, parameters, WebhookEndpointNotFound(endpoint=endpoint))
    return await read_endpoint(connection, tenant, endpoint)


async def delete_endpoint(connection: AsyncConnection[Any], tenant: str, endpoint: str) -> None:
    """Remove an endpoint with its secrets. Raises WebhookEndpointNotFound."""
    parameters = {"id": endpoint, "tenant": tenant}
    await _one(connection, DELETE_ENDPOINT, parameters, WebhookEndpointNotFound(endpoint=endpoint))


async def add_secret(
    connection: AsyncConnection[Any],
    keys: SecretKeys | None,
    *,
    tenant: str,
    endpoint: str,
    secret: SecretStr,
    expires_at: datetime | None = None,
) -> SecretNote:
    """Add a secret, good from now on beside those that are there. Expired ones are removed.

    Raises SecretsKeyMissing, WebhookEndpointNotFound, BadSecret, WebhookLimitReached.
    """
    if keys is None:
        raise SecretsKeyMissing
    async with connection.transaction(), connection.cursor(row_factory=scalar_row) as cursor:
        provider = await _locked(connection, tenant, endpoint)
        check_secret(provider, secret)
        await cursor.execute(DELETE_EXPIRED, {"endpoint": endpoint})
        count = await (await cursor.execute(COUNT_SECRETS, {"endpoint": endpoint})).fetchone()
        if (count or 0) >= SECRETS_MAX:
            raise WebhookLimitReached(limit="secrets", max=SECRETS_MAX)
        name = "whs_" + _chance(SECRET_ID_CHARS)
        place = Place(tenant=tenant, provider=provider, endpoint=endpoint, secret=name)
        row = {"id": name, "endpoint": endpoint, "hint": hint_of(secret), "expires_at": expires_at}
        await cursor.execute(INSERT_SEALED, row | structs.asdict(keys.seal(place, secret)))
        await _touch(connection, tenant, endpoint)
        notes = (await read_endpoint(connection, tenant, endpoint)).secrets
    return next(note for note in notes if note.id == name)


async def remove_secret(
    connection: AsyncConnection[Any], *, tenant: str, endpoint: str, secret: str
) -> WebhookEndpoint:
    """Remove a secret for good and return the endpoint without it.

    Every process refuses what is signed with it within a few seconds.
    Raises WebhookEndpointNotFound, WebhookSecretNotFound.
    """
    async with connection.transaction():
        await _locked(connection, tenant, endpoint)
        parameters = {"endpoint": endpoint, "id": secret}
        missing = WebhookSecretNotFound(endpoint=endpoint, secret=secret)
        await _one(connection, DELETE_SEALED, parameters, missing)
        await _touch(connection, tenant, endpoint)
        return await read_endpoint(connection, tenant, endpoint)


async def tenant_of(connection: AsyncConnection[Any], endpoint: str) -> str:
    """Return whose an endpoint is, for operators. Raises WebhookEndpointNotFound."""
    missing = WebhookEndpointNotFound(endpoint=endpoint)
    tenant: str = await _one(connection, SELECT_TENANT_OF, {"id": endpoint}, missing)
    return tenant


async def reseal(connection: AsyncConnection[Any], keys: SecretKeys) -> Rotation:
    """Seal every secret that an older key has sealed with the newest one, all or none.

    Those that none of the keys opens are left as they are, and named.
    """
    resealed, unreadable = 0, []
    async with connection.transaction():
        async with connection.cursor(row_factory=class_row(_OldSealed)) as cursor:
            found = await cursor.execute(SELECT_OLD_SEALED, {"newest": keys.newest})
            rows = await found.fetchall()
        for row in rows:
            place = Place(**{name: getattr(row, name) for name in Place.__struct_fields__})
            old = Sealed(key_id=row.key_id, nonce=row.nonce, ciphertext=row.ciphertext)
            try:
                new = keys.seal(place, keys.open(place, old))
            except CannotOpen:
                unreadable.append(f"{row.endpoint}/{row.secret}")
                continue
            at = {"endpoint": row.endpoint, "secret": row.secret}
            await connection.execute(UPDATE_SEALED, at | structs.asdict(new))
            resealed += 1
    return Rotation(newest=keys.newest, resealed=resealed, unreadable=tuple(unreadable))


async def _locked(connection: AsyncConnection[Any], tenant: str, endpoint: str) -> Provider:
    parameters = {"id": endpoint, "tenant": tenant}
    missing = WebhookEndpointNotFound(endpoint=endpoint)
    provider: Provider = await _one(connection, LOCK_ENDPOINT, parameters, missing)
    return provider


async def _touch(connection: AsyncConnection[Any], tenant: str, endpoint: str) -> None:
    await change_endpoint(connection, tenant=tenant, endpoint=endpoint)


async def _one(
    connection: AsyncConnection[Any], query: Any, parameters: dict[str, Any], missing: Exception
) -> Any:
    async with connection.cursor(row_factory=scalar_row) as cursor:
        value = await (await cursor.execute(query, parameters)).fetchone()
    if value is None:
        raise missing
    return value


async def _with_notes(
    connection: AsyncConnection[Any], rows: Sequence[WebhookEndpoint]
) -> list[WebhookEndpoint]:
    ids = [row.id for row in rows]
    async with connection.cursor(row_factory=class_row(_Note)) as cursor:
        found = await (await cursor.execute(SELECT_NOTES, {"ids": ids})).fetchall()
    notes: dict[str, list[SecretNote]] = {}
    for note in found:
        shown = SecretNote(
            id=note.id,
            hint=note.hint,
            added_at=note.added_at.astimezone(UTC),
            expires_at=note.expires_at and note.expires_at.astimezone(UTC),
        )
        notes.setdefault(note.endpoint, []).append(shown)
    return [
        structs.replace(
            row,
            created_at=row.created_at.astimezone(UTC),
            updated_at=row.updated_at.astimezone(UTC),
            secrets=tuple(notes.get(row.id, ())),
        )
        for row in rows
    ]


def _chance(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))
