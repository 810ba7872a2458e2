"""What is changed beside the ledger, once for each idempotency key of a tenant.

The ledger keeps a key on the event that it caused. Where there is no event, the receipt is a row of
its own, written in the transaction that makes the change.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any, Final

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import tuple_row
from pydantic import SecretStr

from api.headers import NO_STORE, REPLAYED
from api.routes import Call, Change, Reply
from ledger.domain.errors import IdempotencyMismatch

LOCK_KEY = """
SELECT pg_advisory_xact_lock(hashtextextended('scrip.changes ' || %(tenant)s || ' ' || %(key)s, 0))
"""
SELECT_CHANGE = """
SELECT content, status, location, answer FROM scrip.changes
WHERE tenant = %(tenant)s AND key = %(key)s
"""
INSERT_CHANGE = """
INSERT INTO scrip.changes (tenant, key, content, route, by, status, location, answer)
VALUES (%(tenant)s, %(key)s, %(content)s, %(route)s, %(by)s, %(status)s, %(location)s, %(answer)s)
"""
SCRYPT_COST: Final = {"n": 2**14, "r": 8, "p": 1}
"""Some 40 ms and 16 MiB for each guess at a secret whose hash is all that is known of it."""


async def answer_once(
    route: Change, call: Call, key: str, body: bytes, asked: Any
) -> tuple[Reply, bool]:
    """Do what is asked, or return what was answered to it before; and tell which.

    Raises IdempotencyMismatch, or the LedgerError that refuses it: then nothing is kept.
    """
    content = await _content(route, call, key, body)
    pool, named = call.room.deps.pool, {"tenant": call.tenant, "key": key}
    if route.ask is not None:
        async with pool.connection() as connection:
            known = await _receipt(connection, named)
        if known is None:
            # Without a connection: others may take long to answer.
            asked = await route.ask(call, key, asked)
    async with pool.connection() as connection, connection.transaction():
        await connection.execute(LOCK_KEY, named)
        row = await _receipt(connection, named)
        if row is not None:
            kept, status, location, answer = row
            if kept != content:
                raise IdempotencyMismatch
            return _reply(status, answer, location, replayed=True), True
        made = await route.handle(call, connection, asked)
        location = None if route.location is None else route.location(made)
        receipt = {
            **named,
            "content": content,
            "route": route.name,
            "by": call.by,
            "status": route.status,
            "location": location,
            "answer": msgspec.json.encode(made, enc_hook=_hidden),
        }
        await connection.execute(INSERT_CHANGE, receipt)
    answer = msgspec.json.encode(made, enc_hook=_shown)
    return _reply(route.status, answer, location, replayed=False), False


async def _receipt(
    connection: AsyncConnection[Any], named: dict[str, str]
) -> tuple[bytes, int, str | None, bytes] | None:
    async with connection.cursor(row_factory=tuple_row) as cursor:
        return await (await cursor.execute(SELECT_CHANGE, named)).fetchone()


def _reply(status: int, body: bytes, location: str | None, *, replayed: bool) -> Reply:
    headers = [NO_STORE]
    if location is not None:
        headers.append((b"location", location.encode()))
    if replayed:
        headers.append(REPLAYED)
    return Reply(status=status, body=body, headers=tuple(headers))


async def _content(route: Change, call: Call, key: str, body: bytes) -> bytes:
    """Return the hash of what is asked for, however its JSON is laid out."""
    asked = (route.name, sorted(call.path.items()), msgspec.json.decode(body))
    text = msgspec.json.encode(asked, order="sorted")
    if not route.holds_secret:
        return hashlib.sha256(text).digest()
    salt = msgspec.json.encode((call.tenant, key))
    return await asyncio.to_thread(_slow_hash, text, salt)


def _slow_hash(text: bytes, salt: bytes) -> bytes:
    return hashlib.scrypt(text, salt=salt, dklen=32, **SCRYPT_COST)


def _shown(value: object) -> object:
    assert isinstance(value, SecretStr)
    return value.get_secret_value()


def _hidden(value: object) -> object:
    assert isinstance(value, SecretStr)
    return None
