"""What the clock grants comes once, whatever dies and however many work at it."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta

import pytest
from psycopg import AsyncConnection

from consumers.ended_grants import Ends, read_ends
from consumers.health import Part
from consumers.plans import grant_by_clock, grant_due
from ledger.domain.offers import Plan
from ledger.records import View
from ledger.writer import Writer
from tests.consumers.plans_room import World, world
from tests.consumers.room import Room, until
from tests.ledger.room import Clock

START = datetime(2027, 1, 31, 22, 30, tzinfo=UTC)
BOUNDARY = datetime(2027, 2, 28, 22, 30, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)
FREE = Plan(name="Free", credits=100, fallback=True)
CAPPED = Plan(name="Free", credits=100, fallback=True, rollover="capped", rollover_max=70)


def test_a_crash_after_the_ledger_has_the_grant_grants_nothing_twice(room: Room) -> None:
    with world(room, START) as one:
        one.put_plan("free", FREE)
        one.open()
        one.tick()
        # As if the worker had died before it could write that the ledger has it.
        one.sql(
            "INSERT INTO scrip.clock_grants (tenant, account, grant_id, command, once, decided_at)"
            " VALUES (%(tenant)s, 'ann', 'free~0', %(command)s, false, now())",
            command=b'{"type":"GrantCredits","id":"free~0","amount":100,"kind":"promotional"}',
        )
        one.tick()
        assert one.amounts() == {"free~0": 100}
        assert one.sql("SELECT 1 FROM scrip.clock_grants WHERE tenant = %(tenant)s") == []


def test_a_crash_before_the_ledger_is_told_loses_nothing(room: Room) -> None:
    with world(room, START) as one:
        one.put_plan("free", FREE)
        one.open()
        dead = Writer(one.store, clock=one.clock)  # It never starts: the ledger hears nothing.
        dead.command_timeout_seconds = 0.01

        async def dies() -> None:
            url = room.urls.app_url
            async with await AsyncConnection.connect(url, autocommit=True) as connection:
                await asyncio.wait_for(grant_due(connection, dead, one.now), 1)

        with pytest.raises(TimeoutError):
            asyncio.run(dies())
        assert one.amounts() == {}
        one.tick()
        assert one.amounts() == {"free~0": 100}


class Late(Writer):
    """A writer that is asked to settle just before the boundary, and looked at just after it."""

    def view(self, tenant: str, account: str) -> Future[View]:
        """Return the account as it is on 28 February."""
        assert isinstance(self.clock, Clock)
        self.clock.now = BOUNDARY
        return super().view(tenant, account)


def test_a_boundary_that_passes_while_one_looks_is_seen_with_what_was_unspent(room: Room) -> None:
    clock = Clock(START)
    with World(room, START, writer=Late(room.store, clock=clock)) as one:
        one.clock = clock
        one.put_plan("free", CAPPED)
        one.open()
        one.tick()
        clock.now = BOUNDARY - INSTANT

        async def ends() -> Ends:
            url = room.urls.app_url
            async with await AsyncConnection.connect(url, autocommit=True) as connection:
                return await read_ends(connection, one.writer, one.tenant, "ann", lambda _: True)

        assert asyncio.run(ends()).unspent == {"free~0": 100}


def test_workers_at_once_grant_each_period_once(room: Room) -> None:
    with world(room, START) as one:
        one.put_plan("free", FREE)
        for number in range(40):
            one.open(account=f"a{number}")

        async def one_of_them() -> None:
            url = room.urls.app_url
            async with await AsyncConnection.connect(url, autocommit=True) as connection:
                for _ in range(3):
                    await grant_due(connection, one.writer, one.now)

        async def all_of_them() -> None:
            await asyncio.gather(*(one_of_them() for _ in range(4)))

        asyncio.run(all_of_them())
        one.tick()
        for number in range(40):
            assert one.amounts(f"a{number}") == {"free~0": 100}


async def test_the_part_runs_and_one_of_two_stands_by(room: Room) -> None:
    stop = asyncio.Event()
    one = World(room, START, writer=room.writer)
    parts = [Part(name="plans"), Part(name="plans")]
    one.put_plan("free", FREE, effective_at=datetime(2020, 1, 1, tzinfo=UTC))
    tasks = [
        asyncio.create_task(grant_by_clock(room.urls.app_url, room.writer, part, stop, 0.05))
        for part in parts
    ]
    one.open()
    await until(lambda: "free~0" in one.amounts())
    assert sorted(part.state for part in parts) == ["running", "standby"]
    stop.set()
    await asyncio.gather(*tasks)
