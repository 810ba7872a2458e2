"""What is kept of webhooks: each once, as it came, for as long as somebody wants it."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import replace
from psycopg import AsyncConnection

from consumers.deliveries import keep, purge, purge_old
from consumers.health import Part
from consumers.publishing import Publisher
from consumers.streams import (
    PAYMENT,
    PAYMENT_DURABLE,
    ensure_streams,
    jetstream,
    payment_subject,
    tenant_of,
)
from ledger.domain.facts import Link, fact
from ledger.payment_messages import PaymentMessage, decode_message, encode_message
from tests.consumers.room import TENANT, Room, until

NOW = datetime.now(UTC)
MESSAGE = PaymentMessage(
    id="dlv_1",
    endpoint="whe_1",
    provider="stripe",
    delivery="evt_1",
    type="charge.succeeded",
    occurred_at=NOW - timedelta(seconds=3),
    received_at=NOW,
    payload=Raw(b'{"id":"evt_1","type":"charge.succeeded"}'),
    facts=(
        fact(
            provider="stripe",
            delivery="evt_1",
            type="charge.succeeded",
            occurred_at=NOW,
            refs={"stripe:charge:ch_1"},
            owners=set(),
            content=Link(),
        ),
    ),
)
SELECT = """
SELECT id, type, received_at, payload, facts, to_fetch, unreadable
FROM scrip.webhook_deliveries ORDER BY id
"""
INSERT_TENANT = "INSERT INTO scrip.tenants (tenant, mode) VALUES ('acme', 'test')"


async def kept(room: Room, *messages: PaymentMessage) -> list[tuple[Any, ...]]:
    """Keep messages, and return all that is kept then."""
    async with await AsyncConnection.connect(room.urls.app_url, autocommit=True) as connection:
        await keep(connection, [(TENANT, message) for message in messages])
        return await (await connection.execute(SELECT)).fetchall()


async def with_tenant(room: Room) -> None:
    """Make the tenant whose deliveries are kept."""
    async with await AsyncConnection.connect(room.urls.owner_url, autocommit=True) as connection:
        await connection.execute(INSERT_TENANT)


def test_a_message_is_the_same_when_it_is_read_again() -> None:
    asked = replace(MESSAGE, fetch="pay_1", unreadable="data.object.id must be an id")
    for message in (MESSAGE, asked):
        read = decode_message(encode_message(message))
        assert bytes(read.payload) == bytes(message.payload)
        assert replace(read, payload=message.payload) == message


async def test_a_delivery_is_kept_once_and_as_it_first_came(room: Room) -> None:
    await with_tenant(room)
    other = replace(MESSAGE, id="dlv_2", facts=(), fetch="pay_1", unreadable="why")
    later = replace(MESSAGE, received_at=NOW + timedelta(hours=1))
    await kept(room, other, MESSAGE, other)
    rows = await kept(room, later, MESSAGE)
    assert rows == [
        ("dlv_1", "charge.succeeded", NOW, bytes(MESSAGE.payload), 1, None, None),
        ("dlv_2", "charge.succeeded", NOW, bytes(MESSAGE.payload), 0, "pay_1", "why"),
    ]
    assert await kept(room) == rows


async def test_what_is_old_is_removed_so_many_at_a_time(room: Room) -> None:
    await with_tenant(room)
    await kept(
        room,
        *[
            replace(MESSAGE, id=f"dlv_{days}", received_at=NOW - timedelta(days=days, minutes=1))
            for days in range(5)
        ],
    )
    async with await AsyncConnection.connect(room.urls.app_url, autocommit=True) as connection:
        assert await purge(connection, older_than_days=2, limit=2) == 2
        assert await purge(connection, older_than_days=2, limit=2) == 1
        assert await purge(connection, older_than_days=2, limit=2) == 0
    assert [row[0] for row in await kept(room)] == ["dlv_0", "dlv_1"]


async def test_a_worker_goes_on_removing_what_gets_old(room: Room) -> None:
    await with_tenant(room)
    stop, part = asyncio.Event(), Part(name="deliveries")
    purging = asyncio.create_task(purge_old(room.urls.app_url, 30, part, stop, 0.05))
    for name in ("dlv_1", "dlv_2"):
        old = replace(MESSAGE, id=name, received_at=NOW - timedelta(days=31))
        await kept(room, old, replace(MESSAGE, id="dlv_young"))

        async def is_gone() -> bool:
            return [row[0] for row in await kept(room)] == ["dlv_young"]

        await until(is_gone)
    stop.set()
    await purging


async def test_a_message_comes_through_nats_to_the_workers_consumer(room: Room) -> None:
    async with room.client() as client:
        js = jetstream(client)
        await ensure_streams(js)
        publisher = await Publisher(client).start()
        subject = payment_subject("acme.eu", "stripe")
        body = encode_message(MESSAGE)
        first = await publisher.publish(subject, body, {"Nats-Msg-Id": MESSAGE.id})
        again = await publisher.publish(subject, body, {"Nats-Msg-Id": MESSAGE.id})
        await publisher.close()
        assert (first.stream, first.duplicate, again.duplicate) == (PAYMENT, False, True)
        pull = await js.pull_subscribe_bind(PAYMENT_DURABLE, PAYMENT)
        (message,) = await pull.fetch(1, timeout=5)
        assert tenant_of(message.subject) == "acme.eu"
        assert msgspec.to_builtins(decode_message(message.data).facts) == msgspec.to_builtins(
            MESSAGE.facts
        )
