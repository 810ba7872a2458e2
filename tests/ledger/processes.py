"""What the tests run in processes of their own. Started by `run`; everything is passed by value."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any
from uuid import UUID, uuid4

import psycopg

from ledger.append import LOCK, Append, Rows
from ledger.chain import GENESIS
from ledger.domain.errors import LedgerError
from ledger.records import Outcome
from ledger.store import Store
from ledger.writer import Writer, utc_now
from tests.ledger.room import ANSWER_SECONDS, deduct, reserve

SECONDS_MAX = 60
_dice = random.Random()  # noqa: S311 - chance, not secrecy


def run(work: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
    """Run `work` once for each tuple of arguments, in new processes at once; return the results."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(len(arguments)) as pool:
        return pool.starmap_async(work, arguments, chunksize=1).get(SECONDS_MAX)


def _said(future: Future[Outcome]) -> str:
    try:
        future.result(ANSWER_SECONDS)
    except LedgerError as refusal:
        return refusal.code
    return "accepted"


def reserve_one_by_one(url: str, process: int, count: int, start_at: float) -> dict[str, int]:
    """Ask at once for `count` reservations of 1 on one account; return how often each was said."""
    store = Store.open(url)
    with Writer(store) as writer:
        writer.view("acme", "a").result(ANSWER_SECONDS)
        time.sleep(max(0.0, start_at - time.time()))
        futures = [writer.submit(reserve(1, f"{process}-{i}")) for i in range(count)]
        said = Counter(_said(future) for future in futures)
        failures = writer.stats.failures
    store.close()
    return {**said, "failures": failures}


def deduct_at_random(
    url: str, process: int, accounts: int, count: int, in_flight: int
) -> dict[str, int]:
    """Deduct 1 from random accounts, `count` times; return how often each was said."""
    store = Store.open(url)
    said: Counter[str] = Counter()
    with Writer(store) as writer:
        for begin in range(0, count, in_flight):
            orders = [
                deduct(1, f"{process}-{i}", f"a{_dice.randrange(accounts)}")
                for i in range(begin, min(begin + in_flight, count))
            ]
            said.update(_said(future) for future in [writer.submit(one) for one in orders])
        failures = writer.stats.failures
    store.close()
    return {**said, "failures": failures}


def append_slowly(url: str, transactions: int, rows_each: int) -> list[int]:
    """Append in transactions that pause before they commit, one in five rolled back.

    Returns the positions that were committed.
    """
    committed: list[int] = []
    with psycopg.connect(url) as connection:
        for i in range(transactions):
            rows = _rows_of_a_new_stream(rows_each)
            connection.execute(LOCK)
            positions = Append(connection, rows, locked=True).land().positions
            connection.execute("SELECT pg_sleep(%(s)s)", {"s": _dice.uniform(0, 0.02)})
            if i % 5 == 4:
                connection.rollback()
            else:
                connection.commit()
                committed += positions
    return committed


def _rows_of_a_new_stream(count: int) -> Rows:
    stream: UUID = uuid4()
    rows = Rows(expected={stream: 1})
    previous = GENESIS
    for version in range(1, count + 1):
        previous = rows.add(
            previous,
            stream,
            version,
            name="account.updated.v1",
            state=b'{"by":"key:test","data":{}}',
            recorded_at=utc_now(),
            tenant="slow",
            account=stream.hex,
        )
    return rows
