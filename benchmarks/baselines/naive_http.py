"""What a team writes first: FastAPI and psycopg, one transaction a request, the balance row locked.

The same paths and bodies as Scrip's for reserving and capturing, and as correct: the balance never
goes below zero, a key has one effect however often and however concurrently it is sent, and a
reservation is captured once. To its favour: it knows one key, which it need not look up; nothing is
logged, nothing expires, and a reservation is not a row of its own but the usage row that made it.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Annotated, Any, LiteralString

import psycopg
from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation
from psycopg_pool import AsyncConnectionPool
from pydantic import BaseModel, Field

POOL_SIZE = 16
MICRO = 1_000_000
TABLES = """
CREATE TABLE balances (
    account text PRIMARY KEY,
    available bigint NOT NULL CHECK (available >= 0),
    reserved bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    consumed bigint NOT NULL DEFAULT 0 CHECK (consumed >= 0)
);
CREATE TABLE usage (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account text NOT NULL REFERENCES balances,
    kind text NOT NULL CHECK (kind IN ('reserve', 'capture')),
    reservation uuid NOT NULL,
    amount bigint NOT NULL CHECK (amount > 0),
    key text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (account, key)
);
CREATE UNIQUE INDEX usage_once ON usage (reservation, kind);
"""
OPEN = """
INSERT INTO balances (account, available)
SELECT 'account-' || n, %(amount)s FROM generate_series(0, %(accounts)s - 1) AS n
"""
LOCK = "SELECT available FROM balances WHERE account = %(account)s FOR UPDATE"
SET_ASIDE = """
UPDATE balances SET available = available - %(amount)s, reserved = reserved + %(amount)s
WHERE account = %(account)s
"""
SPEND = """
UPDATE balances SET reserved = reserved - %(reserved)s, consumed = consumed + %(amount)s,
    available = available + %(reserved)s - %(amount)s
WHERE account = %(account)s
"""
USE = """
INSERT INTO usage (account, kind, reservation, amount, key)
VALUES (%(account)s, %(kind)s, %(reservation)s, %(amount)s, %(key)s)
"""
FIND = """
SELECT amount FROM usage
WHERE reservation = %(reservation)s AND kind = 'reserve' AND account = %(account)s
"""
DONE_BEFORE = (
    "SELECT kind, reservation, amount FROM usage WHERE account = %(account)s AND key = %(key)s"
)
SUMS = "SELECT count(*), sum(available), sum(reserved), sum(consumed) FROM balances"
USED = "SELECT count(*), sum(amount) FILTER (WHERE kind = 'capture') FROM usage"

Key = Annotated[str, Header(alias="Idempotency-Key")]
Bearer = Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]


class Amount(BaseModel, extra="forbid"):
    """How many credits."""

    amount: Annotated[Decimal, Field(gt=0, decimal_places=6, max_digits=16)]

    @property
    def micro(self) -> int:
        """In millionths."""
        return int(self.amount * MICRO)


class Used(BaseModel):
    """What was done."""

    id: str
    account: str
    kind: str
    amount: str


def create_app(url: str, token: str) -> FastAPI:
    """Return the application, for whoever holds `token`."""
    pool = AsyncConnectionPool(url, min_size=POOL_SIZE, max_size=POOL_SIZE, open=False)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with pool:
            yield

    async def authorise(bearer: Bearer) -> None:
        if not secrets.compare_digest(bearer.credentials, token):
            raise HTTPException(401)

    app = FastAPI(lifespan=lifespan, dependencies=[Depends(authorise)])

    @app.post("/v1/accounts/{account}/reservations", status_code=201)
    async def reserve(account: str, body: Amount, key: Key) -> Used:
        use = {"account": account, "kind": "reserve", "amount": body.micro, "key": key}
        try:
            async with pool.connection() as connection:
                available = await _value(connection, LOCK, use)
                if available is None:
                    raise HTTPException(404)
                use["reservation"] = uuid.uuid4()
                await connection.execute(USE, use)
                if available < body.micro:
                    raise HTTPException(402)
                await connection.execute(SET_ASIDE, use)
        except UniqueViolation:
            use = await _done_before(pool, use)
        return _used(use)

    @app.post("/v1/accounts/{account}/reservations/{reservation}/capture")
    async def capture(account: str, reservation: uuid.UUID, body: Amount, key: Key) -> Used:
        use = {"account": account, "kind": "capture", "amount": body.micro, "key": key}
        use["reservation"] = reservation
        try:
            async with pool.connection() as connection:
                await _value(connection, LOCK, use)
                reserved = await _value(connection, FIND, use)
                if reserved is None:
                    raise HTTPException(404)
                await connection.execute(USE, use)
                if reserved < body.micro:
                    raise HTTPException(409)
                await connection.execute(SPEND, {**use, "reserved": reserved})
        except UniqueViolation:
            use = await _done_before(pool, use)
        return _used(use)

    return app


async def _value(
    connection: AsyncConnection[Any], query: LiteralString, parameters: dict[str, Any]
) -> int | None:
    row = await (await connection.execute(query, parameters)).fetchone()
    return None if row is None else row[0]


async def _done_before(pool: AsyncConnectionPool[Any], asked: dict[str, Any]) -> dict[str, Any]:
    """Return what was done with a key before. A key that asks for something else is refused."""
    async with pool.connection() as connection:
        row = await (await connection.execute(DONE_BEFORE, asked)).fetchone()
    if row is None:  # Another key has captured this reservation.
        raise HTTPException(409)
    kind, reservation, amount = row
    if (kind, amount) != (asked["kind"], asked["amount"]):
        raise HTTPException(422)
    return {**asked, "reservation": reservation}


def _used(use: dict[str, Any]) -> Used:
    amount = format(Decimal(use["amount"]) / MICRO, "f")
    return Used(id=str(use["reservation"]), account=use["account"], kind=use["kind"], amount=amount)


def prepare(url: str, accounts: int, granted: int) -> None:
    """Make the tables and so many accounts, each with `granted` millionths."""
    with psycopg.connect(url) as connection:
        connection.execute(TABLES)
        connection.execute(OPEN, {"accounts": accounts, "amount": granted})
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ANALYZE")


def check(url: str, *, commands: int, granted: int) -> None:
    """Assert that no credit was made or lost, and that each command was done once."""
    with psycopg.connect(url) as connection:
        sums = connection.execute(SUMS).fetchone()
        used = connection.execute(USED).fetchone()
    assert sums is not None
    assert used is not None
    accounts, available, reserved, consumed = sums
    assert reserved == 0
    assert available + consumed == accounts * granted
    assert used == (commands, consumed if commands else None), (used, commands, consumed)
