"""The API's connection to NATS: kept for ever, and given up only when the process stops.

NATS may be away at the start and at any time after it. HTTP does not notice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final

import structlog
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.js.errors import NotFoundError, ServiceUnavailableError
from prometheus_client import Gauge

from api.nats_discovery import QUEUE, Discovery
from api.nats_endpoints import SUBJECTS, endpoints
from api.nats_requests import BYTES_MAX, Requests
from api.routes import NatsWay, Room

OK: Final = "ok"
PAUSE_SECONDS: Final = 1.0
WATCH_SECONDS: Final = 0.5
JETSTREAM_SECONDS_MAX: Final = 5.0
DRAIN_SECONDS_MAX: Final = 5.0
"""How long requests that have come may take to be answered when the process stops."""
PENDING_MESSAGES_MAX: Final = 8_192
log = structlog.get_logger("scrip.api")


@asynccontextmanager
async def answering(room: Room) -> AsyncIterator[None]:
    """Answer requests over NATS meanwhile, if there is a way there; then finish those begun."""
    way = room.deps.nats
    if way is None:
        yield
        return
    connected = Gauge(
        "scrip_nats_connected",
        "Whether requests over NATS are being answered.",
        registry=room.metrics.registry,
    )
    connected.set_function(lambda: float(way.state == OK))
    stop = asyncio.Event()
    keeping = asyncio.create_task(_keep(room, way, stop))
    try:
        yield
    finally:
        stop.set()
        await keeping


async def _keep(room: Room, way: NatsWay, stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            await _connected(room, way, stop)
        except (NatsError, OSError, TimeoutError) as error:
            way.state = f"{type(error).__name__}: {error}"
            log.warning("nats.waits", why=way.state)
        except Exception as error:
            # A bug. The process answers over HTTP all the same.
            way.state = f"failed: {type(error).__name__}"
            log.exception("nats.failed")
        await _paused(stop, PAUSE_SECONDS)


async def _connected(room: Room, way: NatsWay, stop: asyncio.Event) -> None:
    """Answer over one connection, for as long as it lasts or until `stop`."""
    client = await _unless(stop, way.connect())
    if client is None:
        return
    way.client = client
    try:
        while not stop.is_set() and not client.is_closed:
            stream = await _capturing(client)
            if stream is None:
                await _answer(room, client, way, stop)
                continue
            why = f"the stream {stream} takes {SUBJECTS}, and JetStream would answer"
            if why != way.state:
                way.state = why
                log.warning("nats.waits", why=why, advice="a worker narrows LEDGER as it starts")
            await _paused(stop, PAUSE_SECONDS)
    finally:
        way.state, way.client = "is not connected", None
        await client.close()


async def _answer(room: Room, client: Client, way: NatsWay, stop: asyncio.Event) -> None:
    """Answer until `stop`, or until the streams have to be looked at again."""
    offered = endpoints()
    requests = Requests(room, client, way)
    discovery = Discovery(client, room.deps.version, offered)
    sending = asyncio.create_task(requests.send_answers())
    subscriptions: list[Subscription] = []
    try:
        for endpoint in offered:
            subscription = await client.subscribe(
                endpoint.subject,
                queue=QUEUE,
                cb=partial(requests.take, endpoint),
                pending_msgs_limit=PENDING_MESSAGES_MAX,
                pending_bytes_limit=BYTES_MAX,
            )
            subscriptions.append(subscription)
        await discovery.start()
        await client.flush()  # Until NATS has read them, nobody is there to be asked.
        log.info("nats.answering", subjects=SUBJECTS, queue=QUEUE)
        await _watch(client, way, sending, stop)
    finally:
        await _drain(client, requests, subscriptions, discovery)
        sending.cancel()


async def _watch(
    client: Client, way: NatsWay, sending: asyncio.Task[None], stop: asyncio.Event
) -> None:
    """Return on `stop`, when the connection is given up, and when streams stand in the way.

    Raises what ended the sending of answers.
    """
    looked = client.stats["reconnects"]
    while not stop.is_set() and not client.is_closed:
        if sending.done():
            sending.result()
        way.state = OK if client.is_connected else "is not connected"
        reconnects = client.stats["reconnects"]
        if reconnects != looked:
            # JetStream may come up later than the rest: then it is asked again.
            with suppress(NatsError, TimeoutError):
                if await _capturing(client) is not None:
                    return
                looked = reconnects
        await _paused(stop, WATCH_SECONDS)


async def _drain(
    client: Client, requests: Requests, subscriptions: list[Subscription], discovery: Discovery
) -> None:
    """Take no more requests, answer those that have come, and see the answers off."""
    with suppress(NatsError, OSError, TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS_MAX):
            if client.is_connected:
                await asyncio.gather(*(one.drain() for one in subscriptions))  # type: ignore[no-untyped-call]
            await requests.finish()
            if client.is_connected:
                await discovery.stop()
                await client.flush()
    log.info("nats.drained", unanswered=requests.in_flight)


async def _capturing(client: Client) -> str | None:
    """Return a stream that takes our subjects, if there is one; with JetStream off, none can."""
    js = client.jsm(timeout=JETSTREAM_SECONDS_MAX)
    try:
        return await js.find_stream_name_by_subject(SUBJECTS)
    except (NotFoundError, NoRespondersError, ServiceUnavailableError):
        return None


async def _unless(stop: asyncio.Event, connecting: Awaitable[Client]) -> Client | None:
    """Return the connection, however long it takes; None if `stop` comes first."""
    connected = asyncio.ensure_future(connecting)
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({connected, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if connected.done():
        return connected.result()
    connected.cancel()
    await asyncio.gather(connected, return_exceptions=True)
    return None


async def _paused(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
