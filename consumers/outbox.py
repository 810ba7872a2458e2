"""Every ledger event to the LEDGER stream, once, in position order: an outbox that has no table.

What is published is known from the stream itself: its last message names the last position. So
when NATS has lost the stream, or its tail, what is missing is published again, from what is really
there. One process publishes at a time (a lock in PostgreSQL); one that has lost the lock without
noticing is stopped by NATS: each message names the one that must be before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, LiteralString

import structlog
from msgspec import Struct
from nats.aio.client import Client
from nats.errors import ConnectionReconnectingError
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from psycopg import AsyncConnection
from psycopg.rows import tuple_row

from consumers.health import Part
from consumers.publishing import AckUnknown, Message, Publisher, Refused
from consumers.rendering import COLUMNS, Row, cloud_event
from consumers.streams import (
    LEDGER,
    LEDGER_DEDUP_SECONDS,
    LEDGER_SUBJECTS,
    ensure_streams,
    jetstream,
    ledger_subject,
)
from ledger.recorder import LIVELY

log = structlog.get_logger(__name__)

LOCK: Final = 7_305_804_385_213
"""The advisory lock of the process that publishes. Of a session: it ends with its connection."""
WINDOW_MAX: Final = 1_000
WINDOW_BYTES_MAX: Final = 8 * 1024 * 1024
"""About what is sent before an answer is waited for: JetStream queues 128 MiB, and drops more."""
POLL_SECONDS: Final = 0.1
"""To look, to send and to be answered costs as much as a hundred events more: few at a time, they
would cost ten times as much as many."""
STANDBY_SECONDS: Final = 1.0
CHECK_SECONDS: Final = 2.0
PAUSE_SECONDS: Final = 0.5
CONNECT_SECONDS_MAX: Final = 5

TRY_LOCK = "SELECT pg_try_advisory_lock(%(lock)s)"
SELECT_NEXT: LiteralString = (
    "SELECT " + COLUMNS + " FROM scrip.ledger_events e WHERE e.notification_id > %(position)s"
    " ORDER BY e.notification_id LIMIT %(limit)s"
)
SELECT_AT = "SELECT 1 FROM scrip.ledger_events e WHERE e.notification_id = %(position)s"


class StreamIsAhead(Exception):
    """The stream tells of events that this ledger does not have. See docs/nats.md."""


class Tail(Struct, frozen=True):
    """The end of the stream: the last position published, and NATS's own number of that message.

    The number serves as a fence for the next message and for nothing else: NATS may give it again.
    """

    position: int
    sequence: int


async def publish_ledger(
    client: Client, database_url: str, part: Part, stop: asyncio.Event
) -> None:
    """Publish until `stop`. Raises what it cannot wait out; start it again then."""
    connection = await AsyncConnection.connect(
        database_url, autocommit=True, connect_timeout=CONNECT_SECONDS_MAX, **LIVELY
    )
    async with connection:
        while not await _is_leading(connection):
            part.standby()
            if await _paused(stop, STANDBY_SECONDS):
                return
        part.running()
        log.info("outbox.leading")
        publisher = await Publisher(client).start()
        try:
            await ensure_streams(jetstream(client))
            while not stop.is_set():
                await _publish_from_tail(connection, client, publisher, part, stop)
        finally:
            await publisher.close()


async def _publish_from_tail(
    connection: AsyncConnection[Any],
    client: Client,
    publisher: Publisher,
    part: Part,
    stop: asyncio.Event,
) -> None:
    """Publish from where the stream ends until `stop`, or until NATS says it ends elsewhere."""
    tail = await read_tail(jetstream(client))
    await _compare(connection, tail)
    log.info("outbox.resumed", position=tail.position)
    reconnects = client.stats["reconnects"]
    loop = asyncio.get_running_loop()
    checked_at = loop.time()
    # The first goes alone: if it is what NATS refuses, NATS says why (see `publish_window`).
    most = 1
    while not stop.is_set() and client.stats["reconnects"] == reconnects:
        part.alive(connected=client.is_connected)
        if not client.is_connected:
            await _paused(stop, PAUSE_SECONDS)
            continue
        part.facts["position"] = tail.position
        rows = await _rows(connection, SELECT_NEXT, {"position": tail.position, "limit": most})
        if rows:
            try:
                tail = await publish_window(publisher, tail, rows)
            except (Refused, AckUnknown, ConnectionReconnectingError) as error:
                log.warning("outbox.interrupted", position=tail.position, error=str(error))
                part.waiting(str(error))
                await _paused(stop, PAUSE_SECONDS)
                return
        elif loop.time() - checked_at > CHECK_SECONDS:
            checked_at = loop.time()
            if await read_tail(jetstream(client)) != tail:
                log.warning("outbox.tail_changed", position=tail.position)
                return
        if len(rows) < most:
            await _paused(stop, POLL_SECONDS)
        most = WINDOW_MAX


async def publish_window(publisher: Publisher, tail: Tail, rows: Sequence[Row]) -> Tail:
    """Publish events, which follow `tail`, and return the new tail: all, or what is enough at once.

    Each message names what must be before it, so JetStream stores one only if it has stored all
    those before; the last one's answer answers for all. Raises Refused if the stream does not end
    in `tail`: then none of them was stored. Or if it refuses one of them (it says why only of the
    last), or AckUnknown: then some were stored, from the first one on, without a gap.
    """
    messages = _messages(tail, rows, publisher.payload_bytes_max)
    ack = await publisher.publish_chain(messages)
    if ack.duplicate:
        # NATS remembers the ids of messages that were purged, and has not stored them again.
        await asyncio.sleep(LEDGER_DEDUP_SECONDS)
        raise Refused("NATS took a message for a duplicate of one that is gone")
    if (ack.stream, ack.seq) != (LEDGER, tail.sequence + len(messages)):
        raise Refused(f"the last message is number {ack.seq} of {ack.stream}")
    return Tail(rows[len(messages) - 1][0], ack.seq)


def _messages(tail: Tail, rows: Sequence[Row], payload_bytes_max: int) -> list[Message]:
    """Return the messages of as many of the events as are sent at once: the first, at least."""
    messages: list[Message] = []
    size = 0
    fence = f"Nats-Expected-Stream: {LEDGER}\r\n"
    for sequence, row in enumerate(rows, tail.sequence):
        position, _, tenant, _, name, *_ = row
        # Both are needed. NATS takes the id of a purged message for stored, and does not count it;
        # and a stream that was deleted and made again comes to the same number with other messages.
        headers = f"{fence}Nats-Expected-Last-Sequence: {sequence}\r\nNats-Msg-Id: {position}\r\n"
        fence = f"Nats-Expected-Last-Msg-Id: {position}\r\n"
        # What is too large for the server would stand in the way of all that follows.
        payload = cloud_event(row, payload_bytes_max)
        messages.append(Message(ledger_subject(tenant, name), headers, payload))
        size += len(payload)
        if size > WINDOW_BYTES_MAX:
            break
    return messages


async def read_tail(js: JetStreamContext) -> Tail:
    """Return where the stream really ends; position 0 if there is no event in it."""
    try:
        info = await js.stream_info(LEDGER)
    except NotFoundError:
        await ensure_streams(js)
        return Tail(0, 0)
    try:
        last = await js.get_last_msg(LEDGER, LEDGER_SUBJECTS)
    except NotFoundError:
        return Tail(0, info.state.last_seq)
    assert last.headers is not None
    return Tail(int(last.headers["Nats-Msg-Id"]), info.state.last_seq)


async def _compare(connection: AsyncConnection[Any], tail: Tail) -> None:
    """Raise StreamIsAhead unless the ledger has the event at the end of the stream."""
    if tail.position and not await _rows(connection, SELECT_AT, {"position": tail.position}):
        raise StreamIsAhead(
            f"the last message of {LEDGER} is position {tail.position}, which the ledger does not"
            " have; if the ledger is the right one, delete the stream and it will be made again"
        )


async def _rows(
    connection: AsyncConnection[Any], query: LiteralString, parameters: dict[str, int]
) -> list[Any]:
    async with connection.cursor(row_factory=tuple_row, binary=True) as cursor:
        await cursor.execute(query, parameters, prepare=True)
        return await cursor.fetchall()


async def _is_leading(connection: AsyncConnection[Any]) -> bool:
    rows = await _rows(connection, TRY_LOCK, {"lock": LOCK})
    return bool(rows[0][0])


async def _paused(stop: asyncio.Event, seconds: float) -> bool:
    """Wait, and tell whether `stop` was set meanwhile."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return False
    return True
