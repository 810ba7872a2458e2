"""Connections that die around COMMIT, locks that are stuck, a server that is killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ledger.append import LOCK
from ledger.domain.commands import CaptureUpTo
from ledger.domain.entities import Charge
from ledger.domain.errors import StoreUnavailable
from ledger.migrate import migrate
from ledger.records import Order, Outcome, Recorded, stream_id
from ledger.store import Store
from ledger.writer import Writer
from scrip.embedded import DatabaseUrls, EmbeddedPostgres
from tests.ledger.conftest import APP, NewWriter
from tests.ledger.proxy import Proxy
from tests.ledger.room import TENANT, ask, deduct, opened, order, put, until

WAITING = """
SELECT pid FROM pg_stat_activity
WHERE datname = %(name)s AND wait_event_type = 'Lock' AND wait_event = 'advisory'
"""
TERMINATE = "SELECT pg_terminate_backend(%(pid)s)"
SOME = Charge(amount=1)


@pytest.mark.parametrize(
    "one",
    [deduct(1, "d"), order(CaptureUpTo(operation="job", charge=SOME, final=True), "d")],
    ids=["deduct", "capture up to"],
)
def test_a_command_whose_answer_was_lost_after_the_commit_is_told_its_own_success(
    one: Order, database: DatabaseUrls, new_writer: NewWriter
) -> None:
    with Proxy(database.app_url) as proxy:
        writer = new_writer(proxy.url)
        ask(writer, opened())
        put(writer, order(CaptureUpTo(operation="job", charge=Charge(amount=0)), "warm"))
        proxy.lose_next_answer()
        outcome = writer.submit(one).result(20)
        assert proxy.lost.is_set()
        assert writer.stats.failures >= 1
        events = writer.store.events_of(stream_id(TENANT, "a"))
        assert outcome.recorded == events[-1]
        assert [event.key for event in events].count("d") == 1
        assert writer.view(TENANT, "a").result(10).balance.consumed == 1
        writer.close()


def test_a_whole_batch_whose_answer_was_lost_has_one_effect_each(
    database: DatabaseUrls, new_writer: NewWriter
) -> None:
    with Proxy(database.app_url) as proxy:
        writer = new_writer(proxy.url)
        ask(writer, [*opened("a", 100), *opened("b", 100)])
        for round_ in range(5):
            proxy.lose_next_answer()
            orders = [deduct(1, f"{round_}-{i}", "ab"[i % 2]) for i in range(20)]
            answers = ask(writer, orders)
            assert all(isinstance(answer, Outcome) for answer in answers)
            assert proxy.lost.is_set()
        for account in "ab":
            assert writer.view(TENANT, account).result(10).balance.consumed == 50
        writer.close()


def test_a_backend_that_is_terminated_while_it_appends_costs_one_retry(
    postgres_server: EmbeddedPostgres,
    database: DatabaseUrls,
    owner: psycopg.Connection[Any],
    writer: Writer,
) -> None:
    ask(writer, opened())
    with owner.transaction():
        owner.execute(LOCK)
        future = writer.submit(deduct(1, "d"))
        with psycopg.connect(postgres_server.superuser_url, autocommit=True) as superuser:
            name = {"name": database.name}
            until(lambda: superuser.execute(WAITING, name).fetchone())
            waiting = superuser.execute(WAITING, name).fetchone()
            assert waiting is not None
            superuser.execute(TERMINATE, {"pid": waiting[0]})
    assert not future.result(20).replayed
    assert writer.stats.failures == 1
    assert writer.view(TENANT, "a").result(10).balance.consumed == 1


def test_a_lock_that_is_stuck_is_answered_with_store_unavailable_and_not_with_a_hang(
    owner: psycopg.Connection[Any], new_writer: NewWriter
) -> None:
    writer = new_writer(lock_timeout_ms=200, command_timeout_seconds=1.0, batch_max=5)
    setup = new_writer()
    ask(setup, opened(credits_given=100))
    with owner.transaction():
        owner.execute(LOCK)
        began = time.monotonic()
        # The last ones have never been tried when their time is up.
        futures = [writer.submit(deduct(1, f"d{i}")) for i in range(20)]
        assert all(isinstance(future.exception(30), StoreUnavailable) for future in futures)
        assert 0.9 < time.monotonic() - began < 15
    # The connections that failed inside a pipeline work again, and nothing was half done.
    assert all(isinstance(one, Outcome) for one in ask(writer, [deduct(1, "d1"), deduct(1, "d2")]))
    assert writer.view(TENANT, "a").result(10).balance.consumed == 2


def test_the_first_append_of_a_connection_may_fail(
    owner: psycopg.Connection[Any], new_writer: NewWriter
) -> None:
    """What it would have prepared must not be taken for prepared."""
    writer = new_writer(lock_timeout_ms=100, pool_size=1)
    with owner.transaction():
        owner.execute(LOCK)
        answers = [writer.submit(one) for one in opened()]
        until(lambda: writer.stats.failures >= 2)
    assert not wait(answers, 20).not_done
    assert all(not answer.result().replayed for answer in answers)


class Load:
    """Callers that each repeat a command until it is answered, whatever becomes of the server."""

    def __init__(self, writer: Writer, callers: int) -> None:
        self.acknowledged: dict[str, Recorded] = {}
        self.doubts = 0
        self._writer = writer
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(i,)) for i in range(callers)]
        for thread in self._threads:
            thread.start()

    def go_on(self) -> None:
        """Wait until some more is acknowledged."""
        before = len(self.acknowledged)
        until(lambda: len(self.acknowledged) > before + 200, 30)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a caller waits for ever"

    def _call(self, caller: int) -> None:
        number = 0
        while not self._stop.is_set():
            key = f"{caller}-{number}"
            try:
                one = deduct(1, key, f"a{caller % 4}")
                recorded = self._writer.submit(one).result(30).recorded
            except StoreUnavailable:
                self.doubts += 1
                continue
            assert recorded is not None
            self.acknowledged[key] = recorded
            number += 1


@pytest.mark.timeout(120)
def test_a_server_killed_under_load_loses_and_repeats_nothing(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "postgres") as server:
        migrate(server.owner_url, APP)
        store = Store.open(server.app_url)
        with Writer(store, snapshot_every=50) as writer:
            ask(writer, [one for i in range(4) for one in opened(f"a{i}", 1_000_000)])
            load = Load(writer, callers=16)
            for _ in range(3):
                load.go_on()
                os.kill(server.pid, signal.SIGKILL)
                server.stop()
                server.start()
            load.go_on()
            load.stop()
            assert writer.stats.failures > 0
        for i in range(4):
            events = store.events_of(stream_id(TENANT, f"a{i}"), limit=1_000_000)
            assert [event.version for event in events] == list(range(1, len(events) + 1))
            stored = {event.key: event for event in events[2:]}
            assert len(stored) == len(events) - 2
            assert stored == {
                key: recorded
                for key, recorded in load.acknowledged.items()
                if recorded.account == f"a{i}"
            }
        store.close()
