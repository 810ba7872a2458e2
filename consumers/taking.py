"""The life of a message of a shared consumer: pulled, handled, and then told what became of it.

Whoever handles a batch says of each message whether it is done, to be tried later, or dead. Only
what is done or safely put aside is ended; anything else comes again, after a crash as well.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from consumers.dead import bury
from consumers.health import Part
from consumers.publishing import AckUnknown, Publisher, Refused
from consumers.pulling import Pull
from consumers.streams import ACK_WAIT_SECONDS, ensure_streams, jetstream, trim

log = structlog.get_logger(__name__)

WAIT_SECONDS: Final = 1.0
TRIM_SECONDS: Final = 60.0
PROGRESS_SECONDS: Final = ACK_WAIT_SECONDS / 3
RETRY_SECONDS_FIRST: Final = 0.5
RETRY_SECONDS_MAX: Final = 60.0
RETRY_DOUBLINGS_MAX: Final = 10


class Later(Struct, frozen=True):
    """The same message may succeed later, unaided. `why` is a code."""

    why: str


class Dead(Struct, frozen=True):
    """The message can never be handled as it is."""

    reason: str
    detail: str


Fate = Later | Dead | None
"""What becomes of a message; None: it is done."""


class Source(Struct, frozen=True, kw_only=True):
    """Where messages come from, and how many are taken at once."""

    stream: str
    durable: str
    batch_max: int
    ahead_max: int
    batches_at_once: int


async def take(
    client: Client,
    source: Source,
    handle: Callable[[Sequence[Msg]], Awaitable[list[Fate]]],
    part: Part,
    stop: asyncio.Event,
) -> None:
    """Have messages handled until `stop`; then finish what is in flight.

    `handle` returns the fate of each message, in order. What it raises ends the taking.
    """
    js = jetstream(client)
    await ensure_streams(js)
    publisher = await Publisher(client).start()
    pull = await Pull(client, js, source.stream, source.durable, ahead=source.ahead_max).start()
    part.running()
    in_flight: set[asyncio.Task[None]] = set()
    stopping = asyncio.create_task(stop.wait())
    stopping.add_done_callback(lambda _: pull.interrupt())
    trimming = _Trimming(js, source)
    try:
        while not stop.is_set():
            await trimming.now_and_then(connected=client.is_connected)
            messages = await pull.batch(source.batch_max, WAIT_SECONDS)
            part.alive(connected=client.is_connected)
            if messages:
                in_flight.add(asyncio.create_task(_handled(source, messages, handle, publisher)))
            in_flight = await _settled(in_flight, at_most=source.batches_at_once - 1)
        await pull.close()
        await _settled(in_flight, at_most=0)
    finally:
        stopping.cancel()
        for task in in_flight:
            task.cancel()
        await asyncio.gather(*in_flight, return_exceptions=True)
        await publisher.close()
        await pull.close()


class _Trimming:
    """Removes from the stream what is handled, once a minute."""

    def __init__(self, js: JetStreamContext, source: Source) -> None:
        self._js, self._source = js, source
        self._loop = asyncio.get_running_loop()
        self._at = self._loop.time() + TRIM_SECONDS * random.random()  # noqa: S311 - not a secret

    async def now_and_then(self, *, connected: bool) -> None:
        if connected and self._loop.time() > self._at:
            await trim(self._js, self._source.stream, self._source.durable)
            self._at = self._loop.time() + TRIM_SECONDS


async def _settled(tasks: set[asyncio.Task[None]], *, at_most: int) -> set[asyncio.Task[None]]:
    """Wait until `at_most` batches are in flight, and return them. Raises what one has raised."""
    finished = {task for task in tasks if task.done()}
    tasks = tasks - finished
    while len(tasks) > at_most:
        done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finished |= done
    for task in finished:
        task.result()
    return tasks


async def _handled(
    source: Source,
    messages: Sequence[Msg],
    handle: Callable[[Sequence[Msg]], Awaitable[list[Fate]]],
    publisher: Publisher,
) -> None:
    """Take a batch from its messages to their acknowledgements."""
    began = time.monotonic()
    fates = await _while_in_progress(messages, handle)
    for message, fate in zip(messages, fates, strict=True):
        if fate is None:
            await _tell(message.ack())
        elif isinstance(fate, Later):
            await _tell(message.nak(retry_seconds(message.metadata.num_delivered)))
        else:
            await _bury(publisher, message, fate)
    later = [fate for fate in fates if isinstance(fate, Later)]
    log.info(
        "messages.handled",
        stream=source.stream,
        messages=len(messages),
        dead=sum(isinstance(fate, Dead) for fate in fates),
        later=len(later),
        why=sorted({fate.why for fate in later}),
        duration_ms=round((time.monotonic() - began) * 1_000, 1),
    )


async def _while_in_progress(
    messages: Sequence[Msg], handle: Callable[[Sequence[Msg]], Awaitable[list[Fate]]]
) -> list[Fate]:
    """Handle; while it takes long, tell JetStream that the messages are being worked on."""
    handling = asyncio.ensure_future(handle(messages))
    try:
        while True:
            done, _ = await asyncio.wait({handling}, timeout=PROGRESS_SECONDS)
            if done:
                return handling.result()
            for message in messages:
                await _tell(message.in_progress())
    finally:
        handling.cancel()


async def _bury(publisher: Publisher, message: Msg, fate: Dead) -> None:
    """Put a dead message aside, then end its delivery; where that fails, it comes again."""
    try:
        await bury(publisher, message, fate.reason, fate.detail)
    except (Refused, AckUnknown, NatsError) as error:
        log.warning("dead.not_stored", subject=message.subject, error=str(error))
        await _tell(message.nak(retry_seconds(message.metadata.num_delivered)))
    else:
        log.warning("dead.stored", subject=message.subject, reason=fate.reason, detail=fate.detail)
        await _tell(message.term())


def retry_seconds(deliveries: int) -> float:
    """Return how long a message waits after so many deliveries: doubled each time, with jitter."""
    doublings = min(deliveries - 1, RETRY_DOUBLINGS_MAX)
    seconds = min(RETRY_SECONDS_FIRST * 2.0**doublings, RETRY_SECONDS_MAX)
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret


async def _tell(telling: Awaitable[None]) -> None:
    """Tell JetStream what became of a message. What is lost comes again: harmless."""
    try:
        await telling
    except NatsError as error:
        log.info("ack.not_sent", error=str(error))
