"""The least that a durable write can take: one row inserted and committed, from Python.

`python -m benchmarks.baselines.one_insert` reads a Question as JSON and prints an Answer.
"""

from __future__ import annotations

import asyncio
import sys
import time

import msgspec
import psycopg
import uvloop
from msgspec import Struct
from psycopg_pool import AsyncConnectionPool

from benchmarks.measure import percentile

TABLE = """
CREATE TABLE IF NOT EXISTS rows (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account text NOT NULL, amount bigint NOT NULL, created_at timestamptz NOT NULL DEFAULT now()
)
"""
INSERT = "INSERT INTO rows (account, amount) VALUES (%(account)s, %(amount)s)"
MILLISECONDS = 1_000.0
WARM = 50


class Question(Struct, frozen=True):
    """Where, for how long, and whether BEGIN and COMMIT are statements of their own."""

    url: str
    seconds: float
    autocommit: bool


class Answer(Struct, frozen=True):
    """In milliseconds."""

    p50: float
    p99: float


async def measure(question: Question) -> Answer:
    """Insert rows one after another through a pool of an event loop, as an API does."""
    pool = AsyncConnectionPool(
        question.url, min_size=2, open=False, kwargs={"autocommit": question.autocommit}
    )
    taken: list[float] = []
    async with pool:
        ends = time.perf_counter() + question.seconds
        while (began := time.perf_counter()) < ends or len(taken) <= WARM:
            async with pool.connection() as connection:
                await connection.execute(INSERT, {"account": "account-1", "amount": 3_000_000})
            taken.append(time.perf_counter() - began)
    ordered = sorted(taken[WARM:])
    return Answer(
        p50=percentile(ordered, 0.5) * MILLISECONDS, p99=percentile(ordered, 0.99) * MILLISECONDS
    )


def prepare(url: str) -> None:
    """Make the table."""
    with psycopg.connect(url) as connection:
        connection.execute(TABLE)


if __name__ == "__main__":
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.stdout.buffer.write(msgspec.json.encode(runner.run(measure(asked))))
