"""Generation events to the ledger: reserve when a job starts, charge its largest total, close it.

Handled, committed, then acknowledged. Any order, any repetition and any restart give the same
ledger: the key in the event's row tells a repetition, and a total that is no larger changes
nothing. So this file decides only what becomes of a message: acknowledged, tried later, or dead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg

from consumers.health import Part
from consumers.messages import InvalidMessage, order_of
from consumers.streams import DURABLE, GENERATION
from consumers.taking import Dead, Fate, Later, Source, take
from consumers.writing import Answer, submit_all
from ledger.domain.commands import Reserve
from ledger.domain.errors import AccountNotFound, InternalError, LedgerError, OperationExists
from ledger.domain.values import format_decimal
from ledger.records import Order
from ledger.writer import Writer

SOURCE: Final = Source(
    stream=GENERATION, durable=DURABLE, batch_max=500, ahead_max=2_000, batches_at_once=2
)
DELIVERIES_MAX: Final = 6
"""How often a message is tried whose account is unknown (it may be about to be opened), or that
meets a bug: for about 12 s."""


async def capture_generations(
    client: Client, writer: Writer, part: Part, stop: asyncio.Event
) -> None:
    """Bring generation events into the ledger until `stop`; then finish what is in flight."""
    await take(client, SOURCE, partial(_handle, writer), part, stop)


async def _handle(writer: Writer, messages: Sequence[Msg]) -> list[Fate]:
    """Have the ledger do what messages ask for, and return what becomes of each."""
    fates: list[Fate] = [None] * len(messages)
    readable: list[tuple[int, Order]] = []
    for place, message in enumerate(messages):
        try:
            readable.append((place, order_of(message.subject, message.data)))
        except InvalidMessage as error:
            fates[place] = Dead("invalid_message", str(error))
    answers = await submit_all(writer, [order for _, order in readable])
    for (place, order), answer in zip(readable, answers, strict=True):
        fates[place] = _fate(order, answer, messages[place].metadata.num_delivered)
    return fates


def _fate(order: Order, answer: Answer, deliveries: int) -> Fate:
    if not isinstance(answer, LedgerError):
        return None
    if isinstance(answer, OperationExists) and isinstance(order.command, Reserve):
        # A job that has started already, or has even ended, needs no reservation.
        return None
    if is_worth_a_retry(answer, deliveries):
        return Later(answer.code)
    return Dead(answer.code, _detail(answer))


def is_worth_a_retry(refusal: LedgerError, deliveries: int) -> bool:
    """Tell whether the same message may succeed later, unaided."""
    if isinstance(refusal, AccountNotFound | InternalError):
        return deliveries < DELIVERIES_MAX
    return refusal.retryable


def _detail(refusal: LedgerError) -> str:
    facts = ", ".join(
        f"{name}={format_decimal(fact) if name in refusal.amounts else fact}"
        for name, fact in sorted(refusal.facts.items())
        if fact is not None
    )
    return f"{refusal.detail} ({facts})" if facts else refusal.detail
