"""The LEDGER stream says what the ledger says: every event, once, in order, whatever happens."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import msgspec
import psycopg
import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.js.api import ConsumerConfig, RawStreamMsg
from psycopg.rows import tuple_row

from consumers.health import Part
from consumers.outbox import (
    LOCK,
    SELECT_NEXT,
    StreamIsAhead,
    Tail,
    publish_ledger,
    publish_window,
    read_tail,
)
from consumers.publishing import Publisher, Refused
from consumers.rendering import Row, cloud_event
from consumers.streams import (
    LEDGER,
    LEDGER_SUBJECTS,
    connect,
    ensure_streams,
    jetstream,
    ledger_subject,
    stream_configs,
)
from consumers.worker import supervised
from ledger.domain.commands import Adjust, Deduct, PutAccount
from ledger.domain.entities import Charge, Usage
from ledger.domain.events import NAMES
from ledger.domain.values import MICRO
from ledger.records import Order
from scrip.embedded import EmbeddedNats
from tests.consumers.room import ANSWER_SECONDS_MAX, FEATURE, MODEL, TENANT, Room, until

TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_locks
WHERE locktype = 'advisory' AND (classid::bigint << 32 | objid::bigint) = %(lock)s AND granted
"""


@asynccontextmanager
async def publishing(room: Room) -> AsyncIterator[Part]:
    """Run an outbox on a connection of its own, started again when it fails."""
    stop, part = asyncio.Event(), Part(name="outbox")
    client = await connect(room.nats.url, "outbox")
    task = asyncio.create_task(
        supervised(
            part, lambda part, stop: publish_ledger(client, room.urls.app_url, part, stop), stop
        )
    )
    try:
        yield part
    finally:
        stop.set()
        await task
        await client.close()


def spend(room: Room, count: int) -> None:
    """Write `count` events quickly."""
    futures = [
        room.writer.submit(
            Order(
                tenant=TENANT,
                account="account-1",
                command=Deduct(charge=Charge(amount=1)),
                key=f"spend-{room.store.max_position()}-{number}",
                by="service:test",
            )
        )
        for number in range(count)
    ]
    for future in futures:
        future.result(ANSWER_SECONDS_MAX)


def stored_rows(room: Room) -> list[Row]:
    """Return the whole ledger, as the outbox reads it."""
    with (
        psycopg.connect(room.urls.app_url, row_factory=tuple_row) as connection,
        connection.cursor(binary=True) as cursor,
    ):
        return cursor.execute(SELECT_NEXT, {"position": 0, "limit": 100_000}).fetchall()


async def published(client: Client) -> list[RawStreamMsg]:
    """Return the whole stream."""
    js = jetstream(client)
    state = (await js.stream_info(LEDGER)).state
    return [
        await js.get_msg(LEDGER, number) for number in range(state.first_seq, state.last_seq + 1)
    ]


async def all_published(room: Room, client: Client) -> None:
    async def is_done() -> bool:
        with suppress(NatsError):
            return (await read_tail(jetstream(client))).position == room.store.max_position()
        return False

    await until(is_done)


async def assert_the_stream_is_the_ledger(room: Room, client: Client) -> None:
    await all_published(room, client)
    events = stored_rows(room)
    messages = await published(client)
    assert [message.headers and message.headers["Nats-Msg-Id"] for message in messages] == [
        str(position) for position, *_ in events
    ]
    assert [message.data for message in messages] == [cloud_event(event) for event in events]
    assert [message.subject for message in messages] == [
        f"scrip.{TENANT}.ledger.{event.name}" for event in room.store.events_after(0, 100_000)
    ]


async def test_every_event_is_published_once_in_order_while_others_are_written(room: Room) -> None:
    room.set_prices()
    room.open_account("account-1")
    async with room.client() as client, publishing(room):
        for _ in range(5):
            await asyncio.to_thread(spend, room, 100)
        await assert_the_stream_is_the_ledger(room, client)


async def test_publishing_resumes_where_the_stream_ends(room: Room) -> None:
    room.open_account("account-1")
    async with room.client() as client:
        for _ in range(3):
            async with publishing(room):
                spend(room, 20)
                await all_published(room, client)
            spend(room, 20)
        async with publishing(room):
            await assert_the_stream_is_the_ledger(room, client)


async def test_the_stream_is_made_again_when_jetstreams_store_was_deleted(
    own_room: Room, own_nats: EmbeddedNats
) -> None:
    room = own_room
    room.open_account("account-1")
    async with room.client() as client, publishing(room):
        spend(room, 100)
        await all_published(room, client)
        await asyncio.to_thread(own_nats.stop)
        shutil.rmtree(own_nats.folder / "jetstream")
        spend(room, 100)
        await asyncio.to_thread(own_nats.start)
        await assert_the_stream_is_the_ledger(room, client)


async def test_a_killed_nats_server_leaves_no_gap_and_no_double(
    own_room: Room, own_nats: EmbeddedNats
) -> None:
    room = own_room
    room.open_account("account-1")
    async with room.client() as client, publishing(room):
        for _ in range(3):
            await asyncio.to_thread(spend, room, 300)
            await asyncio.to_thread(own_nats.kill)
            await asyncio.to_thread(own_nats.start)
        await assert_the_stream_is_the_ledger(room, client)


@pytest.mark.parametrize("harm", ["purged", "tail deleted", "stream deleted"])
async def test_what_was_deleted_from_the_stream_is_published_again(room: Room, harm: str) -> None:
    room.open_account("account-1")
    async with room.client() as client, publishing(room):
        spend(room, 50)
        await all_published(room, client)
        js = jetstream(client)
        last = (await js.stream_info(LEDGER)).state.last_seq
        if harm == "purged":
            await js.purge_stream(LEDGER)
        elif harm == "stream deleted":
            await js.delete_stream(LEDGER)
        else:
            for number in range(last - 9, last + 1):
                await js.delete_msg(LEDGER, number)

        async def is_whole() -> bool:
            with suppress(NatsError):
                return (await js.stream_info(LEDGER)).state.messages == room.store.max_position()
            return False

        await until(is_whole)
        await asyncio.to_thread(spend, room, 5)
        await until(is_whole)
        state = (await js.stream_info(LEDGER)).state
        messages = [
            await js.get_msg(LEDGER, number)
            for number in range(state.first_seq, state.last_seq + 1)
            if not (harm == "tail deleted" and last - 9 <= number <= last)
        ]
        ids = [int((message.headers or {})["Nats-Msg-Id"]) for message in messages]
        assert ids == list(range(1, room.store.max_position() + 1))


async def test_of_two_processes_one_publishes_and_the_other_takes_over(room: Room) -> None:
    room.open_account("account-1")
    async with room.client() as client, AsyncExitStack() as first, publishing(room) as other:
        one = await first.enter_async_context(publishing(room))
        await until(lambda: {one.state, other.state} == {"running", "standby"})
        await asyncio.to_thread(spend, room, 200)
        with psycopg.connect(room.urls.superuser_url, autocommit=True) as connection:
            assert connection.execute(TERMINATE, {"lock": LOCK}).rowcount == 1
        await asyncio.to_thread(spend, room, 200)
        await until(lambda: {one.state, other.state} == {"running", "standby"})
        await asyncio.to_thread(spend, room, 200)
        await first.aclose()
        await until(lambda: other.state == "running")
        await asyncio.to_thread(spend, room, 200)
        await assert_the_stream_is_the_ledger(room, client)


async def test_a_process_that_is_behind_the_stream_can_store_nothing(room: Room) -> None:
    room.open_account("account-1")
    spend(room, 30)
    events = stored_rows(room)
    async with room.client() as client:
        await ensure_streams(jetstream(client))
        publisher = await Publisher(client).start()
        tail = await publish_window(publisher, Tail(0, 0), events[:20])
        for stale in (Tail(0, 0), Tail(10, 10), Tail(25, 25)):
            with pytest.raises(Refused):
                await publish_window(publisher, stale, events[20:])
        assert await read_tail(jetstream(client)) == tail
        assert (await publish_window(publisher, tail, events[20:])).position == 32
        await assert_the_stream_is_the_ledger(room, client)


async def test_a_stream_that_is_ahead_of_the_ledger_is_left_alone(room: Room) -> None:
    room.open_account("account-1")
    async with room.client() as client:
        js = jetstream(client)
        await ensure_streams(js)
        publisher = await Publisher(client).start()
        subject = ledger_subject(TENANT, "credits.granted.v1")
        await publisher.publish(subject, b"{}", {"Nats-Msg-Id": "1000"})
        with pytest.raises(StreamIsAhead):
            await publish_ledger(client, room.urls.app_url, Part(name="outbox"), asyncio.Event())
        assert (await js.stream_info(LEDGER)).state.messages == 1


def test_the_stream_takes_every_event_that_there_is() -> None:
    words = {name: len(name.split(".")) for name in NAMES}
    assert set(words.values()) == {LEDGER_SUBJECTS.count("*") - 1}, words


async def test_a_stream_that_took_requests_for_events_is_narrowed(room: Room) -> None:
    """JetStream answered a request to the ledger, and the outbox met what is no event."""
    room.open_account("account-1")
    async with room.client() as client:
        js = jetstream(client)
        (wide,) = (config for config in stream_configs() if config.name == LEDGER)
        await js.add_stream(wide, subjects=["scrip.*.ledger.>"])
        reader = ConsumerConfig(durable_name="reader", filter_subject=f"scrip.{TENANT}.ledger.>")
        await js.add_consumer(LEDGER, reader)
        swallowed = await client.request(f"scrip.{TENANT}.ledger.reserve", b"{}")
        assert msgspec.json.decode(swallowed.data)["stream"] == LEDGER
        async with publishing(room):
            await all_published(room, client)
        with pytest.raises(NoRespondersError):
            await client.request(f"scrip.{TENANT}.ledger.reserve", b"{}")
        # Who read all of a tenant's subjects before reads on.
        assert (await js.consumer_info(LEDGER, "reader")).num_pending == 1 + len(
            room.store.events_after(0, 10)
        )


async def test_an_event_too_large_for_nats_is_told_of_and_holds_up_nothing(room: Room) -> None:
    """One event of a megabyte stopped the stream of all tenants."""
    room.do("account-1", PutAccount(label="x" * (1 << 20)))
    room.open_account("account-2")
    async with room.client() as client, publishing(room):
        await all_published(room, client)
        large, *rest = (msgspec.json.decode(each.data or b"") for each in await published(client))
    assert (large["type"], large["id"]) == ("account.opened.v1", "1")
    assert large["data"]["data"] is None
    assert [each["data"]["data"] is None for each in rest] == [False, False]


async def test_an_event_is_a_cloud_event_with_amounts_as_decimals(room: Room) -> None:
    room.set_prices()
    room.do("account-1", PutAccount())
    room.do("account-1", Adjust(amount=MICRO * 5 // 2), key="key-1")
    usage = Charge(feature=FEATURE, model=MODEL, usage=Usage(250_000))
    room.do("account-1", Deduct(charge=usage), key="key-2")
    card, _, adjusted, deducted = (
        msgspec.json.decode(cloud_event(event)) for event in stored_rows(room)
    )

    assert "subject" not in card
    assert card["data"]["balance"] is None
    assert card["data"]["data"]["models"][MODEL]["input_per_million"] == "2"
    assert adjusted["data"]["data"]["amount"] == "2.5"
    assert adjusted["data"]["data"]["grant"]["amount"] == "2.5"
    envelope: dict[str, Any] = {
        name: deducted[name] for name in ("specversion", "id", "source", "type", "subject")
    }
    assert envelope == {
        "specversion": "1.0",
        "id": "4",
        "source": "/scrip/ledger",
        "type": "credits.deducted.v1",
        "subject": "account-1",
    }
    data = deducted["data"]
    assert data["position"] == "4"
    assert data["key"] == "key-2"
    assert data["actor"] == "service:test"
    assert data["data"]["amount"] == "0.5"
    assert data["data"]["price"]["usage"] == {"input_tokens": 250_000}
    assert [draw["amount"] for draw in data["data"]["draws"]] == ["0.5"]
    assert data["balance"] == {
        "granted": "2.5",
        "available": "2",
        "pending": "0",
        "reserved": "0",
        "consumed": "0.5",
        "expired": "0",
        "revoked": "0",
        "debt": "0",
        "overdraft_reserved": "0",
        "overdraft_limit": "0",
        "due_at": None,
    }
