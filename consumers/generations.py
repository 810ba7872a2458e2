"""Generation events to the ledger: reserve when a job starts, charge its largest total, close it.

Handled, committed, then acknowledged. Any order, any repetition and any restart give the same
ledger: the key in the event's row tells a repetition, and a total that is no larger changes
nothing. So this file decides only what becomes of a message: acknowledged, tried later, or dead.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Final

import structlog
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from consumers.dead import bury
from consumers.health import Part
from consumers.messages import InvalidMessage, order_of
from consumers.publishing import AckUnknown, Publisher, Refused
from consumers.pulling import Pull
from consumers.streams import (
    ACK_WAIT_SECONDS,
    DURABLE,
    GENERATION,
    ensure_streams,
    jetstream,
    trim,
)
from consumers.writing import Answer, submit_all
from ledger.domain.commands import Reserve
from ledger.domain.errors import AccountNotFound, InternalError, LedgerError, OperationExists
from ledger.domain.values import format_decimal
from ledger.records import Order
from ledger.writer import Writer

log = structlog.get_logger(__name__)

BATCH_MAX: Final = 500
AHEAD_MAX: Final = 2_000
BATCHES_AT_ONCE: Final = 2
WAIT_SECONDS: Final = 1.0
TRIM_SECONDS: Final = 60.0
PROGRESS_SECONDS: Final = ACK_WAIT_SECONDS / 3
RETRY_SECONDS_FIRST: Final = 0.5
RETRY_SECONDS_MAX: Final = 60.0
RETRY_DOUBLINGS_MAX: Final = 10
DELIVERIES_MAX: Final = 6
"""How often a message is tried whose account is unknown (it may be about to be opened), or that
meets a bug: for about 12 s."""


class Handled(Struct):
    """A message, and the reason for which it is not simply acknowledged."""

    message: Msg
    reason: str
    detail: str


async def capture_generations(
    client: Client, writer: Writer, part: Part, stop: asyncio.Event
) -> None:
    """Bring generation events into the ledger until `stop`; then finish what is in flight."""
    js = jetstream(client)
    await ensure_streams(js)
    publisher = await Publisher(client).start()
    pull = await Pull(client, js, GENERATION, DURABLE, ahead=AHEAD_MAX).start()
    part.running()
    in_flight: set[asyncio.Task[None]] = set()
    loop = asyncio.get_running_loop()
    trim_at = loop.time() + TRIM_SECONDS * random.random()  # noqa: S311 - not a secret
    stopping = asyncio.create_task(stop.wait())
    stopping.add_done_callback(lambda _: pull.interrupt())
    try:
        while not stop.is_set():
            if loop.time() > trim_at and client.is_connected:
                await trim(js, GENERATION, DURABLE)
                trim_at = loop.time() + TRIM_SECONDS
            messages = await pull.batch(BATCH_MAX, WAIT_SECONDS)
            part.alive(connected=client.is_connected)
            if messages:
                in_flight.add(asyncio.create_task(_handle(messages, writer, publisher)))
            in_flight = await _settled(in_flight, at_most=BATCHES_AT_ONCE - 1)
        await pull.close()
        await _settled(in_flight, at_most=0)
    finally:
        stopping.cancel()
        for task in in_flight:
            task.cancel()
        await asyncio.gather(*in_flight, return_exceptions=True)
        await publisher.close()
        await pull.close()


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


async def _handle(messages: Sequence[Msg], writer: Writer, publisher: Publisher) -> None:
    """Take a batch from its messages to their acknowledgements."""
    began = time.monotonic()
    readable: list[tuple[Msg, Order]] = []
    dead: list[Handled] = []
    for message in messages:
        try:
            readable.append((message, order_of(message.subject, message.data)))
        except InvalidMessage as error:
            dead.append(Handled(message, "invalid_message", str(error)))
    answers = await _answers(writer, readable)
    later: list[tuple[Msg, LedgerError]] = []
    for (message, order), answer in zip(readable, answers, strict=True):
        if is_done(order, answer):
            await _tell(message.ack())
            continue
        assert isinstance(answer, LedgerError)
        if is_worth_a_retry(answer, message.metadata.num_delivered):
            later.append((message, answer))
        else:
            dead.append(Handled(message, answer.code, _detail(answer)))
    for message, _ in later:
        await _tell(message.nak(retry_seconds(message.metadata.num_delivered)))
    await _bury_all(publisher, dead)
    log.info(
        "generations.handled",
        messages=len(messages),
        dead=len(dead),
        later=len(later),
        why=sorted({error.code for _, error in later}),
        duration_ms=round((time.monotonic() - began) * 1_000, 1),
    )


async def _answers(writer: Writer, readable: list[tuple[Msg, Order]]) -> list[Answer]:
    """Ask the ledger; while it takes long, tell JetStream that the messages are being worked on."""
    asking = {asyncio.create_task(submit_all(writer, [order for _, order in readable]))}
    while True:
        done, _ = await asyncio.wait(asking, timeout=PROGRESS_SECONDS)
        if done:
            return done.pop().result()
        for message, _ in readable:
            await _tell(message.in_progress())


async def _bury_all(publisher: Publisher, dead: list[Handled]) -> None:
    """Put dead messages aside, then end their delivery; where that fails, they come again."""
    for each in dead:
        message = each.message
        try:
            await bury(publisher, message, each.reason, each.detail)
        except (Refused, AckUnknown, NatsError) as error:
            log.warning("dead.not_stored", subject=message.subject, error=str(error))
            await _tell(message.nak(retry_seconds(message.metadata.num_delivered)))
        else:
            log.warning(
                "dead.stored", subject=message.subject, reason=each.reason, detail=each.detail
            )
            await _tell(message.term())


def is_done(order: Order, answer: Answer) -> bool:
    """Tell whether the ledger now says what the message asked for.

    A job that has started already, or has even ended, needs no reservation: it has its operation.
    """
    if isinstance(answer, LedgerError):
        return isinstance(answer, OperationExists) and isinstance(order.command, Reserve)
    return True


def is_worth_a_retry(refusal: LedgerError, deliveries: int) -> bool:
    """Tell whether the same message may succeed later, unaided."""
    if isinstance(refusal, AccountNotFound | InternalError):
        return deliveries < DELIVERIES_MAX
    return refusal.retryable


def retry_seconds(deliveries: int) -> float:
    """Return how long a message waits after so many deliveries: doubled each time, with jitter."""
    doublings = min(deliveries - 1, RETRY_DOUBLINGS_MAX)
    seconds = min(RETRY_SECONDS_FIRST * 2.0**doublings, RETRY_SECONDS_MAX)
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret


def _detail(refusal: LedgerError) -> str:
    facts = ", ".join(
        f"{name}={format_decimal(fact) if name in refusal.amounts else fact}"
        for name, fact in sorted(refusal.facts.items())
        if fact is not None
    )
    return f"{refusal.detail} ({facts})" if facts else refusal.detail


async def _tell(telling: object) -> None:
    """Tell JetStream what became of a message. What is lost comes again: harmless."""
    try:
        await telling  # type: ignore[misc]
    except NatsError as error:
        log.info("ack.not_sent", error=str(error))
