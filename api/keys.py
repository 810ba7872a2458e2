"""API keys: how they are spelled, stored, made and revoked. Only a hash of a key is ever kept.

A key is `scrip_live_` or `scrip_test_`, 37 random characters, and a checksum of all before it in 6
more. The checksum tells a typing error from a key without asking the database, and lets scanners of
leaked secrets recognise ours.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final, Literal

from msgspec import Struct
from psycopg import Connection
from psycopg.rows import tuple_row

Role = Literal["service", "admin", "reader"]
AnyRole = Literal["service", "admin", "reader", "account"]
"""`account`: an end user, with a key of `api.account_keys`."""
Mode = Literal["live", "test"]

ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
RANDOM_CHARS: Final = 37
CHECKSUM_CHARS: Final = 6
HINT_CHARS: Final = 4
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_SPELLING = re.compile(r"scrip_(?:live|test)_[0-9A-Za-z]{37,80}", re.ASCII)

INSERT_TENANT = "INSERT INTO scrip.tenants (tenant, mode) VALUES (%(tenant)s, %(mode)s)"
SELECT_TENANTS = "SELECT tenant, mode, created_at FROM scrip.tenants ORDER BY tenant"
SELECT_MODE = "SELECT mode FROM scrip.tenants WHERE tenant = %(tenant)s"
INSERT_KEY = """
INSERT INTO scrip.keys (id, tenant, role, label, secret_hash, hint, expires_at)
VALUES (%(id)s, %(tenant)s, %(role)s, %(label)s, %(secret_hash)s, %(hint)s, %(expires_at)s)
"""
SELECT_KEYS = """
SELECT id, tenant, role, label, hint, created_at, expires_at, revoked_at, last_used_at
FROM scrip.keys WHERE %(tenant)s::text IS NULL OR tenant = %(tenant)s ORDER BY created_at, id
"""
REVOKE_KEY = """
UPDATE scrip.keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = %(id)s
RETURNING id, tenant, role, label, hint, created_at, expires_at, revoked_at, last_used_at
"""


class UnknownTenant(Exception):
    """There is no such tenant. Create it first: scrip tenants create."""


class UnknownKey(Exception):
    """There is no key with this id."""


class Tenant(Struct, frozen=True):
    """One product. Its mode, live or test, is spelled out in each of its keys."""

    tenant: str
    mode: Mode
    created_at: datetime


class Key(Struct, frozen=True, kw_only=True):
    """All that is known of a key: never the key itself. `hint` is how it begins and ends."""

    id: str
    tenant: str
    role: Role
    label: str | None
    hint: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


def mint(mode: Mode) -> str:
    """Return a new secret key, never seen before: 220 bits of chance."""
    body = f"scrip_{mode}_" + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_CHARS))
    return body + checksum(body)


def checksum(body: str) -> str:
    """Return the 6 characters that a key beginning with `body` ends in."""
    number = zlib.crc32(body.encode())
    digits = []
    for _ in range(CHECKSUM_CHARS):
        number, digit = divmod(number, len(ALPHABET))
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))


def is_spelled_right(secret: str) -> bool:
    """Tell whether this could be a key at all. Asks nobody."""
    return (
        _SPELLING.fullmatch(secret) is not None
        and len(secret) >= len("scrip_live_") + RANDOM_CHARS + CHECKSUM_CHARS
        and checksum(secret[:-CHECKSUM_CHARS]) == secret[-CHECKSUM_CHARS:]
    )


def hash_of(secret: str) -> bytes:
    """Return what is stored of a key. A plain hash will do: there is no guessing 220 bits."""
    return hashlib.sha256(secret.encode()).digest()


def hint_of(secret: str) -> str:
    """Return how a key begins and ends, which is all that is shown of it later."""
    return f"{secret[: len('scrip_live_')]}…{secret[-HINT_CHARS:]}"


def is_tenant_name(text: str) -> bool:
    """Tell whether a tenant can be called this: its name is also a word of NATS subjects."""
    return _TENANT.fullmatch(text) is not None


def create_tenant(connection: Connection[Any], tenant: str, mode: Mode) -> None:
    """Add a tenant. Raises psycopg.errors.UniqueViolation if there is one of this name."""
    connection.execute(INSERT_TENANT, {"tenant": tenant, "mode": mode})


def list_tenants(connection: Connection[Any]) -> list[Tenant]:
    """Return all tenants by name."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(SELECT_TENANTS).fetchall()
    return [Tenant(tenant, mode, created_at.astimezone(UTC)) for tenant, mode, created_at in rows]


def create_key(
    connection: Connection[Any],
    tenant: str,
    role: Role,
    label: str | None = None,
    expires_at: datetime | None = None,
) -> tuple[str, str]:
    """Add a key and return its id and the secret, which nobody can read again.

    Raises UnknownTenant.
    """
    with connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(SELECT_MODE, {"tenant": tenant}).fetchone()
        if row is None:
            raise UnknownTenant(tenant)
        secret = mint(row[0])
        name = "key_" + "".join(secrets.choice(ALPHABET) for _ in range(16))
        parameters = {
            "id": name,
            "tenant": tenant,
            "role": role,
            "label": label,
            "secret_hash": hash_of(secret),
            "hint": hint_of(secret),
            "expires_at": expires_at,
        }
        cursor.execute(INSERT_KEY, parameters)
    return name, secret


def list_keys(connection: Connection[Any], tenant: str | None = None) -> list[Key]:
    """Return the keys of a tenant, or of all, oldest first: revoked and expired ones too."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        return _keys(cursor.execute(SELECT_KEYS, {"tenant": tenant}).fetchall())


def revoke_key(connection: Connection[Any], name: str) -> Key:
    """Revoke a key for good and return it. Every process refuses it within 5 seconds.

    Raises UnknownKey.
    """
    with connection.cursor(row_factory=tuple_row) as cursor:
        found = _keys(cursor.execute(REVOKE_KEY, {"id": name}).fetchall())
    if not found:
        raise UnknownKey(name)
    return found[0]


def _keys(rows: Iterable[tuple[Any, ...]]) -> list[Key]:
    return [
        Key(
            id=name,
            tenant=tenant,
            role=role,
            label=label,
            hint=hint,
            **{
                field: when and when.astimezone(UTC)
                for field, when in zip(_TIMES, times, strict=True)
            },
        )
        for name, tenant, role, label, hint, *times in rows
    ]


_TIMES: Final = ("created_at", "expires_at", "revoked_at", "last_used_at")
