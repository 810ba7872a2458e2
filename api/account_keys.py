"""Keys of end users: each reads one account, for a while, and can do nothing else.

Whoever runs the product asks for one on its server and hands it to its own page.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct
from psycopg import AsyncConnection
from psycopg.rows import scalar_row
from pydantic import SecretStr

from api.fields import Text
from api.keys import ALPHABET, hash_of, hint_of, mint
from api.looking import opened
from api.problems import AccountKeyNotFound
from api.routes import SPENDERS, Call, Change
from ledger.domain.errors import AccountNotFound, LimitReached, Overloaded, StoreUnavailable

KEYS_MAX: Final = 1_000
"""Keys of one account at a time: a page that asks for one at each visit stays far below."""
SECONDS_MIN: Final = 60
SECONDS_MAX: Final = 30 * 86_400
SECONDS_DEFAULT: Final = 3_600

LOCK_ACCOUNT = """
SELECT pg_advisory_xact_lock(
    hashtextextended('scrip.account_keys ' || %(tenant)s || ' ' || %(account)s, 0))
"""
DELETE_EXPIRED = """
DELETE FROM scrip.account_keys
WHERE tenant = %(tenant)s AND account = %(account)s AND expires_at <= now()
"""
COUNT = """
SELECT count(*) FROM scrip.account_keys WHERE tenant = %(tenant)s AND account = %(account)s
"""
SELECT_MODE = "SELECT mode FROM scrip.tenants WHERE tenant = %(tenant)s"
INSERT = """
INSERT INTO scrip.account_keys (id, tenant, account, label, secret_hash, hint, by, expires_at)
VALUES (%(id)s, %(tenant)s, %(account)s, %(label)s, %(secret_hash)s, %(hint)s, %(by)s,
    now() + %(life)s)
RETURNING expires_at
"""
DELETE = """
DELETE FROM scrip.account_keys
WHERE tenant = %(tenant)s AND account = %(account)s AND id = %(id)s RETURNING id
"""


class AccountKeyIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the key is good for, and what to call it."""

    label: Text | None = None
    expires_in_seconds: Annotated[
        int, Meta(ge=SECONDS_MIN, le=SECONDS_MAX, description="An hour, if nothing is said.")
    ] = SECONDS_DEFAULT


class AccountKeyMade(Struct, frozen=True, kw_only=True):
    """A key that reads one account. `key` is in the first answer only; nobody can read it again."""

    id: str
    account: str
    label: str | None
    key: SecretStr | None
    hint: str
    expires_at: datetime


class AccountKeyRevoked(Struct, frozen=True, kw_only=True):
    """The key is gone. Every process refuses it within 5 seconds."""

    id: str
    account: str
    revoked: Literal[True] = True


async def _create(
    call: Call, connection: AsyncConnection[Any], asked: AccountKeyIn
) -> AccountKeyMade:
    await opened(call)
    of_account = {"tenant": call.tenant, "account": call.path["account"]}
    async with connection.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(LOCK_ACCOUNT, of_account)
        await cursor.execute(DELETE_EXPIRED, of_account)
        count = await (await cursor.execute(COUNT, of_account)).fetchone()
        if (count or 0) >= KEYS_MAX:
            raise LimitReached(limit="keys", max=KEYS_MAX)
        mode = await (await cursor.execute(SELECT_MODE, of_account)).fetchone()
        assert mode is not None, "a key is of a tenant that is there"
        secret = mint(mode)
        name = "akey_" + "".join(secrets.choice(ALPHABET) for _ in range(16))
        row = {
            "id": name,
            "label": asked.label,
            "secret_hash": hash_of(secret),
            "hint": hint_of(secret),
            "by": call.by,
            "life": timedelta(seconds=asked.expires_in_seconds),
        }
        until = await (await cursor.execute(INSERT, of_account | row)).fetchone()
    assert until is not None
    return AccountKeyMade(
        id=name,
        account=call.path["account"],
        label=asked.label,
        key=SecretStr(secret),
        hint=hint_of(secret),
        expires_at=until.astimezone(UTC),
    )


async def _revoke(call: Call, connection: AsyncConnection[Any], _: object) -> AccountKeyRevoked:
    account, name = call.path["account"], call.path["key"]
    named = {"tenant": call.tenant, "account": account, "id": name}
    async with connection.cursor(row_factory=scalar_row) as cursor:
        gone = await (await cursor.execute(DELETE, named)).fetchone()
    if gone is None:
        await opened(call)
        raise AccountKeyNotFound(account=account, key=name)
    return AccountKeyRevoked(id=name, account=account)


CREATE_ACCOUNT_KEY = Change(
    method="POST",
    path="/v1/accounts/{account}/keys",
    name="create_account_key",
    tag="me",
    summary="Make a key with which an end user reads this account, for a while",
    details="It may ask `/v1/me/…` and nothing else. It is shown once: if this request is repeated"
    " under its Idempotency-Key, `key` is null.",
    roles=SPENDERS,
    refusals=(AccountNotFound, LimitReached, Overloaded, StoreUnavailable),
    body=AccountKeyIn,
    handle=_create,
    answer=AccountKeyMade,
)
REVOKE_ACCOUNT_KEY = Change(
    method="DELETE",
    path="/v1/accounts/{account}/keys/{key}",
    name="revoke_account_key",
    tag="me",
    summary="Revoke an end user's key",
    roles=SPENDERS,
    refusals=(AccountNotFound, AccountKeyNotFound, Overloaded, StoreUnavailable),
    handle=_revoke,
    answer=AccountKeyRevoked,
)
