"""Who asks: the key of a request, its tenant and its role. What is not allowed is refused."""

from __future__ import annotations

import asyncio
import hashlib
import time
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from msgspec import Struct
from psycopg import OperationalError
from psycopg.rows import tuple_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from api.headers import Headers
from api.keys import AnyRole, hash_of, is_spelled_right
from api.problems import Unauthenticated
from ledger.domain.errors import StoreUnavailable

KNOWN_SECONDS: Final = 3.0
"""How long an answer of the database about a key is believed: a revoked key dies within this."""
KNOWN_MAX: Final = 10_000
STAMP_SECONDS: Final = 60
HEADER_MAX: Final = 200

SELECT_KEY = """
SELECT id, tenant, role, expires_at, last_used_at, NULL AS account FROM scrip.keys
WHERE secret_hash = %(secret_hash)s AND revoked_at IS NULL
UNION ALL
SELECT id, tenant, 'account', expires_at, NULL, account FROM scrip.account_keys
WHERE secret_hash = %(secret_hash)s
"""
STAMP_KEY = """
UPDATE scrip.keys SET last_used_at = now() WHERE id = %(id)s
AND (last_used_at IS NULL OR last_used_at < now() - make_interval(secs => %(seconds)s))
"""

log = structlog.get_logger("scrip.api")


class Principal(Struct, frozen=True):
    """Whoever holds a key: what it may do, and for which tenant."""

    key: str
    tenant: str
    role: AnyRole
    expires_at: datetime | None = None
    account: str | None = None
    """The one account that an end user's key is of; None for all other keys."""


NOBODY: Final = Principal("", "", "reader")
"""Who asks on a route that asks for no key. There is no such tenant."""


class _Known(Struct):
    until: float
    principal: asyncio.Task[Principal | None]


class Keys:
    """Finds out who asks. Asks the database about a key once in a few seconds, however many ask."""

    def __init__(
        self, pool: AsyncConnectionPool[Any], *, known_seconds: float = KNOWN_SECONDS
    ) -> None:
        """Look keys up through `pool`."""
        self._pool = pool
        self._known_seconds = known_seconds
        self._known: dict[bytes, _Known] = {}
        self._stamping: set[asyncio.Task[None]] = set()
        self.lookups = 0
        """How often the database was asked."""

    async def principal(self, headers: Headers) -> Principal:
        """Return who asks. Raises Unauthenticated, the same for every way of not being known."""
        value = headers.only(b"authorization")
        if value is None:
            raise Unauthenticated
        return await self.holder(value)

    def knows(self, headers: Headers) -> bool:
        """Tell whether `principal` has its answer at hand, and will not wait for the database."""
        value = headers.only(b"authorization")
        known = value and self._known.get(hashlib.sha256(value).digest())
        return bool(known and known.until > time.monotonic() and known.principal.done())

    async def holder(self, authorization: bytes) -> Principal:
        """Return whose key `authorization`, the value of such a header, holds."""
        # Known by its hash: what stays in memory is no key.
        digest = hashlib.sha256(authorization).digest()
        known = self._known.get(digest)
        if known is None or known.until <= time.monotonic():
            secret = bearer(authorization)
            if secret is None or not is_spelled_right(secret):
                raise Unauthenticated
            known = self._look_up(digest, hash_of(secret))
        asked = known.principal
        # Shielded: whoever goes away must not take the answer from the others that wait for it.
        principal = asked.result() if asked.done() else await asyncio.shield(asked)
        expired = principal and principal.expires_at and principal.expires_at <= datetime.now(UTC)
        if principal is None or expired:
            raise Unauthenticated
        return principal

    def _look_up(self, digest: bytes, secret_hash: bytes) -> _Known:
        while len(self._known) >= KNOWN_MAX:
            del self._known[next(iter(self._known))]
        self._known.pop(digest, None)
        known = _Known(
            time.monotonic() + self._known_seconds, asyncio.create_task(self._read(secret_hash))
        )
        known.principal.add_done_callback(lambda task: self._forget_failure(digest, task))
        self._known[digest] = known
        return known

    def _forget_failure(self, digest: bytes, task: asyncio.Task[Principal | None]) -> None:
        if task.cancelled() or task.exception() is not None:
            self._known.pop(digest, None)

    async def _read(self, secret_hash: bytes) -> Principal | None:
        self.lookups += 1
        try:
            async with (
                self._pool.connection() as connection,
                connection.cursor(row_factory=tuple_row) as cursor,
            ):
                await cursor.execute(SELECT_KEY, {"secret_hash": secret_hash})
                row = await cursor.fetchone()
        except (OperationalError, PoolTimeout) as error:
            raise StoreUnavailable from error
        if row is None:
            return None
        name, tenant, role, expires_at, last_used_at, account = row
        now = datetime.now(UTC)
        stale = last_used_at is None or (now - last_used_at).total_seconds() > STAMP_SECONDS
        if account is None and stale:
            task = asyncio.create_task(self._stamp(name))
            self._stamping.add(task)
            task.add_done_callback(self._stamping.discard)
        return Principal(name, tenant, role, expires_at, account)

    async def _stamp(self, name: str) -> None:
        """Note that a key is in use. Nobody waits for this, and nothing depends on it."""
        try:
            async with self._pool.connection() as connection:
                await connection.execute(STAMP_KEY, {"id": name, "seconds": STAMP_SECONDS})
        except (OperationalError, PoolTimeout) as error:
            log.warning("key.not_stamped", key=name, error=type(error).__name__)


def bearer(authorization: bytes) -> str | None:
    """Return the bearer token of an Authorization header, if it is one, in plain ASCII."""
    if len(authorization) > HEADER_MAX or not authorization.isascii():
        return None
    scheme, _, secret = authorization.decode("ascii").partition(" ")
    return secret if scheme.lower() == "bearer" else None
