"""Many messages are sent at once and the last alone is answered: none may be missing unnoticed."""

import asyncio
from typing import Any

import msgspec
import psutil
import psycopg
import pytest
from nats.aio.client import Client
from nats.errors import BadSubjectError, MaxPayloadError

from consumers.outbox import (
    WINDOW_BYTES_MAX,
    Tail,
    _messages,
    publish_window,
    read_tail,
)
from consumers.publishing import AckUnknown, Message, Publisher, Refused
from consumers.streams import LEDGER, ensure_streams, jetstream, stream_configs
from ledger.domain.commands import PutAccount
from scrip.embedded import EmbeddedNats
from tests.consumers.room import Room, until
from tests.consumers.test_outbox import (
    all_published,
    assert_the_stream_is_the_ledger,
    published,
    publishing,
    spend,
    stored_rows,
)

PAYLOAD_BYTES = 1 << 20
DAMAGE = """
UPDATE scrip.ledger_events SET state = convert_to('{"by":', 'UTF8') WHERE notification_id = 20
"""


def messages_of(room: Room) -> list[Message]:
    return _messages(Tail(0, 0), stored_rows(room), PAYLOAD_BYTES)


async def limit_messages_to(client: Client, size: int) -> None:
    """Set the largest message that LEDGER takes, as an operator might."""
    (config,) = (config for config in stream_configs() if config.name == LEDGER)
    await jetstream(client).update_stream(config, max_msg_size=size)


async def test_the_last_of_many_messages_is_answered_and_no_other(room: Room) -> None:
    room.open_account("account-1")
    spend(room, 300)
    async with room.client() as client:
        await ensure_streams(jetstream(client))
        publisher = await Publisher(client).start()
        before = client.stats["in_msgs"]
        assert await publish_window(publisher, Tail(0, 0), stored_rows(room)) == Tail(302, 302)
        assert client.stats["in_msgs"] - before == 1
        await assert_the_stream_is_the_ledger(room, client)


@pytest.mark.parametrize("lost", [slice(0, 1), slice(10, 11), slice(5, 30), slice(30, 31)])
async def test_where_a_message_is_lost_none_of_those_after_it_is_stored(
    room: Room, lost: slice
) -> None:
    room.open_account("account-1")
    spend(room, 30)
    messages = messages_of(room)
    del messages[lost]
    async with room.client() as client:
        await ensure_streams(jetstream(client))
        publisher = await Publisher(client).start()
        with pytest.raises(Refused):
            await publisher.publish_chain(messages)
        tail = await read_tail(jetstream(client))
        assert tail == Tail(lost.start, lost.start)
        await publish_window(publisher, tail, stored_rows(room)[lost.start :])
        await assert_the_stream_is_the_ledger(room, client)


async def test_where_somebody_elses_message_comes_between_none_of_those_after_it_is_stored(
    room: Room,
) -> None:
    room.open_account("account-1")
    spend(room, 30)
    messages = messages_of(room)
    messages.insert(10, Message(messages[0].subject, "", b"{}"))
    async with room.client() as client:
        await ensure_streams(jetstream(client))
        publisher = await Publisher(client).start()
        with pytest.raises(Refused, match="wrong last sequence"):
            await publisher.publish_chain(messages)
        assert len(await published(client)) == 11


async def test_what_jetstream_refuses_in_the_middle_is_named_and_waited_for(room: Room) -> None:
    """All that follows is refused for its place: only the one that is refused first says why."""
    room.open_account("account-1")
    async with room.client() as client, publishing(room) as part:
        await all_published(room, client)
        await limit_messages_to(client, 4_096)
        spend(room, 20)
        room.do("account-2", PutAccount(label="x" * 5_000))
        await asyncio.to_thread(spend, room, 20)
        await until(lambda: part.state == "waiting" and "maximum" in (part.error or ""))
        assert (await read_tail(jetstream(client))).position == 22
        await limit_messages_to(client, -1)
        await assert_the_stream_is_the_ledger(room, client)
        assert part.state == "running"


async def test_messages_that_are_stored_after_all_are_not_published_again(
    own_room: Room, own_nats: EmbeddedNats
) -> None:
    """A server that stands still for longer than an answer is waited for stores them later."""
    room = own_room
    room.open_account("account-1")
    assert own_nats.pid is not None
    server = psutil.Process(own_nats.pid)
    processes = [server, *server.children(recursive=True)]
    async with room.client() as client, publishing(room):
        await all_published(room, client)
        rows = stored_rows(room)
        publisher = await Publisher(client).start()
        for process in processes:
            process.suspend()
        try:
            await asyncio.to_thread(spend, room, 300)
            assert len(rows) == 2
            with pytest.raises(AckUnknown):
                await publish_window(publisher, Tail(2, 2), stored_rows(room)[2:])
        finally:
            for process in processes:
                process.resume()
        await assert_the_stream_is_the_ledger(room, client)


async def test_events_that_are_large_together_are_not_all_sent_at_once(room: Room) -> None:
    """JetStream drops messages beyond what it queues."""
    size = WINDOW_BYTES_MAX // 10
    for number in range(15):
        room.do(f"account-{number}", PutAccount(label="x" * size))
    rows = stored_rows(room)
    async with room.client() as client:
        await ensure_streams(jetstream(client))
        publisher = await Publisher(client).start()
        tail = await publish_window(publisher, Tail(0, 0), rows)
        assert tail == Tail(10, 10)
        assert await publish_window(publisher, tail, rows[10:]) == Tail(15, 15)
        await assert_the_stream_is_the_ledger(room, client)


async def test_an_event_too_large_for_nats_does_not_keep_its_neighbours_back(room: Room) -> None:
    room.open_account("account-1")
    spend(room, 10)
    room.do("account-2", PutAccount(label="x" * PAYLOAD_BYTES))
    spend(room, 10)
    async with room.client() as client:
        await ensure_streams(jetstream(client))
        publisher = await Publisher(client).start()
        assert await publish_window(publisher, Tail(0, 0), stored_rows(room)) == Tail(23, 23)
        told: list[Any] = [
            msgspec.json.decode(each.data or b"") for each in await published(client)
        ]
    assert [each["id"] for each in told if each["data"]["data"] is None] == ["13"]


async def test_an_event_that_has_been_damaged_does_not_keep_its_neighbours_back(room: Room) -> None:
    room.open_account("account-1")
    spend(room, 30)
    with psycopg.connect(room.urls.superuser_url, autocommit=True) as connection:
        assert connection.execute(DAMAGE).rowcount == 1
    async with room.client() as client, publishing(room):
        await all_published(room, client)
        told: list[Any] = [
            msgspec.json.decode(each.data or b"") for each in await published(client)
        ]
    assert [each["id"] for each in told] == [str(number) for number in range(1, 33)]
    assert [each["id"] for each in told if each["data"]["data"] is None] == ["20"]


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (Message("scrip.acme.ledger.a.b.v1", "", b"x" * PAYLOAD_BYTES), MaxPayloadError),
        (Message("scrip.acme\r\nPUB x.ledger.a.b.v1", "", b""), BadSubjectError),
        (Message("", "", b""), BadSubjectError),
    ],
)
async def test_what_the_server_would_close_the_connection_for_is_not_sent(
    room: Room, message: Message, error: type[Exception]
) -> None:
    room.open_account("account-1")
    messages = messages_of(room)
    async with room.client() as client:
        await ensure_streams(jetstream(client))
        publisher = await Publisher(client).start()
        for place in range(len(messages) + 1):
            with pytest.raises(error):
                await publisher.publish_chain([*messages[:place], message, *messages[place:]])
        await client.flush()
        assert (await jetstream(client).stream_info(LEDGER)).state.last_seq == 0
        assert client.stats["reconnects"] == 0
        await publisher.publish_chain(messages)
        await assert_the_stream_is_the_ledger(room, client)
