"""The writer on somebody's event loop: it never keeps the loop from others, nor loses an answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, LiteralString

import psycopg
import pytest

from ledger.append import LOCK, Append
from ledger.batch import Batch
from ledger.bell import Bell
from ledger.committer import Committer
from ledger.domain.errors import Overloaded, StoreUnavailable
from ledger.records import Outcome
from ledger.store import Store
from ledger.wire import Flight
from ledger.writer import Writer
from tests.ledger.room import ANSWER_SECONDS, ask, deduct, opened, until

TABLE: LiteralString = "LOCK TABLE scrip.ledger_events IN ACCESS EXCLUSIVE MODE"
WAITING: LiteralString = """
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
"""
TURNS = 20
RINGS, RINGERS = 2_000, 4


def on_a_loop(store: Store, work: Callable[[Writer], Awaitable[None]]) -> None:
    """Do something with a writer that runs on the same loop."""

    async def main() -> None:
        async with asyncio.timeout(ANSWER_SECONDS), Writer(store).running() as writer:
            assert writer.alive
            await work(writer)
        assert not writer.alive

    asyncio.run(main())


async def so(condition: Callable[[], bool]) -> None:
    """Let the loop turn until it is so."""
    while not condition():  # noqa: ASYNC110 - no event tells of a row of the database
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("held", [LOCK, TABLE], ids=["the lock", "a cold account"])
def test_what_waits_for_the_database_leaves_the_loop_to_others(
    held: LiteralString, store: Store, owner: psycopg.Connection[Any]
) -> None:
    with Writer(store) as before:
        ask(before, [*opened("warm"), *opened("cold")])

    async def work(writer: Writer) -> None:
        await asyncio.wrap_future(writer.submit(deduct(1, "first", "warm")))
        account = "warm" if held is LOCK else "cold"
        with owner.transaction():
            owner.execute(held)
            future = asyncio.wrap_future(writer.submit(deduct(1, "second", account)))
            for _ in range(TURNS):
                # Were the loop kept waiting, the lock would never be given back.
                await asyncio.sleep(0.005)
            assert not future.done()
        assert isinstance(await future, Outcome)
        assert writer.stats.failures == 0

    on_a_loop(store, work)


def test_what_was_accepted_is_answered_before_it_ends(store: Store) -> None:
    futures = []

    async def work(writer: Writer) -> None:
        for one in opened("a", 1_000):
            await asyncio.wrap_future(writer.submit(one))
        futures.extend(writer.submit(deduct(1, f"d{i}")) for i in range(500))

    on_a_loop(store, work)
    assert [future.result(0).recorded.version for future in futures] == list(range(3, 503))


@pytest.mark.parametrize(
    ("where", "what"),
    [(Committer, "_launch"), (Flight, "advance"), (Append, "result"), (Committer, "_settle")],
    ids=lambda named: getattr(named, "__name__", named),
)
def test_a_bug_ends_it_with_an_answer_for_everybody(
    where: type, what: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(writer: Writer) -> None:
        def broken(*_: object) -> None:
            raise ZeroDivisionError

        await asyncio.wrap_future(writer.submit(opened()[0]))
        monkeypatch.setattr(where, what, broken)
        with pytest.raises(StoreUnavailable):
            await asyncio.wrap_future(writer.submit(deduct(1, "d")))
        await asyncio.sleep(0)
        assert not writer.alive
        with pytest.raises(Overloaded):
            writer.submit(deduct(1, "e"))

    on_a_loop(store, work)


def test_a_bug_in_sending_what_follows_answers_that_too(
    store: Store, owner: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(writer: Writer) -> None:
        def broken(*_: object) -> None:
            raise ZeroDivisionError

        for one in opened():
            await asyncio.wrap_future(writer.submit(one))
        with owner.transaction():
            owner.execute(LOCK)
            first = asyncio.wrap_future(writer.submit(deduct(1, "first")))
            await so(lambda: owner.execute(WAITING).fetchone() == (1,))
            follows = asyncio.wrap_future(writer.submit(deduct(1, "follows")))
            await so(lambda: writer.stats.overlapped == 1)
            monkeypatch.setattr(Batch, "depart", broken)
        with pytest.raises(StoreUnavailable):
            await follows
        # It was committed; whoever asks again under its key finds it.
        with pytest.raises(StoreUnavailable):
            await first

    on_a_loop(store, work)


def test_whatever_was_done_before_a_ring_is_seen_by_whoever_hears_it() -> None:
    """Rung by many threads at once, whoever listens looks again after the last of them."""
    done: list[int] = []

    async def listen() -> None:
        bell = Bell()

        def work() -> None:
            for number in range(RINGS):
                done.append(number)
                bell.ring()

        threads = [threading.Thread(target=work) for _ in range(RINGERS)]
        for thread in threads:
            thread.start()
        seen = 0
        async with asyncio.timeout(ANSWER_SECONDS):
            while seen < RINGS * RINGERS:
                await bell.heard()
                seen = len(done)
        for thread in threads:
            thread.join()
        with suppress(TimeoutError):  # One more may be due: of a ring between the look and here.
            async with asyncio.timeout(0.05):
                await bell.heard()
        bell.ring()
        await bell.heard()

    asyncio.run(listen())


def test_a_bell_that_nobody_can_hear_any_more_hurts_nobody() -> None:
    bells: list[Bell] = []

    async def leave() -> None:
        bells.append(Bell())

    asyncio.run(leave())
    thread = threading.Thread(target=bells[0].ring)
    thread.start()
    until(lambda: not thread.is_alive())
