"""What time does is right at once, and on record soon after."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import AsyncConnection

from consumers.deadlines import BY, settle_deadlines, settle_due
from consumers.health import Part
from ledger.domain.commands import GrantCredits, PutAccount, Reserve
from ledger.domain.entities import Charge
from ledger.domain.values import MICRO
from ledger.records import Recorded
from ledger.writer import Writer
from tests.consumers.room import Room, projecting, until


@pytest.fixture
def projected(room: Room) -> Iterator[Room]:
    """Give a room whose projections follow its ledger."""
    with projecting(room):
        yield room


@asynccontextmanager
async def settling(room: Room, writer: Writer | None = None) -> AsyncIterator[None]:
    """Run the clock's client."""
    stop = asyncio.Event()
    part = Part(name="deadlines")
    task = asyncio.create_task(
        settle_deadlines(room.urls.app_url, writer or room.writer, part, stop)
    )
    try:
        yield
    finally:
        stop.set()
        await task


def names(room: Room, account: str) -> list[str]:
    return [recorded.name for recorded in room.events(account)]


def is_projected(room: Room) -> bool:
    with psycopg.connect(room.urls.app_url) as connection:
        row = connection.execute("SELECT max(position) FROM projections.balances_v2").fetchone()
    return row == (room.store.max_position(),)


def reserve(room: Room, account: str, seconds: int) -> Recorded:
    charge = Charge(amount=10 * MICRO)
    outcome = room.do(account, Reserve(id="job-1", charge=charge, ttl_seconds=seconds))
    assert outcome.recorded is not None
    return outcome.recorded


async def until_past(deadline: datetime) -> None:
    await asyncio.sleep(max(0.0, (deadline - datetime.now(UTC)).total_seconds()) + 0.05)


async def test_a_reservation_that_expires_is_released_though_nobody_asks(projected: Room) -> None:
    projected.open_account("account-1")
    async with settling(projected):
        reserve(projected, "account-1", 1)
        await until(lambda: "reservation.expired.v1" in names(projected, "account-1"))

    last = projected.events("account-1")[-1]
    assert last.by == BY
    assert last.balance is not None
    assert last.balance.available == 1_000 * MICRO


async def test_balances_are_right_while_nobody_settles_anything(projected: Room) -> None:
    projected.open_account("account-1")
    held = reserve(projected, "account-1", 1)
    assert held.balance is not None
    assert held.balance.available == 990 * MICRO
    await until_past(held.recorded_at + timedelta(seconds=1))
    assert projected.view("account-1").balance.available == 1_000 * MICRO
    assert "reservation.expired.v1" not in names(projected, "account-1")


async def test_grants_become_effective_and_expire_by_themselves(projected: Room) -> None:
    now = datetime.now(UTC)
    projected.do("account-1", PutAccount())
    projected.do(
        "account-1",
        GrantCredits(
            amount=MICRO,
            kind="promotional",
            effective_at=now + timedelta(seconds=4),
            expires_at=now + timedelta(seconds=5),
        ),
    )
    async with settling(projected):
        await until(lambda: "grant.expired.v1" in names(projected, "account-1"))

    assert names(projected, "account-1")[2:] == ["grant.activated.v1", "grant.expired.v1"]


async def test_any_number_of_processes_settle_each_deadline_once(projected: Room) -> None:
    accounts = [f"account-{number}" for number in range(50)]
    for account in accounts:
        projected.open_account(account)
        reserve(projected, account, 1)
    with Writer(projected.store) as other:
        async with settling(projected), settling(projected, other), settling(projected, other):
            await until(
                lambda: all("reservation.expired.v1" in names(projected, one) for one in accounts)
            )
            await asyncio.sleep(1.5)

    for account in accounts:
        assert names(projected, account).count("reservation.expired.v1") == 1


async def test_a_projection_that_stands_still_does_no_harm(projected: Room) -> None:
    projected.open_account("account-1")
    deadline = reserve(projected, "account-1", 6).recorded_at + timedelta(seconds=6)
    async with await AsyncConnection.connect(projected.urls.app_url, autocommit=True) as connection:
        later = deadline + timedelta(seconds=1)
        await until(lambda: is_projected(projected))
        # The account is listed as due before it is.
        assert await settle_due(connection, projected.writer, later) == 0
        await until_past(deadline)
        assert await settle_due(connection, projected.writer, later) == 1
        assert await settle_due(connection, projected.writer, later) == 0
