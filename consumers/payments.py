"""Payment facts to the ledger: kept first, then settled, then acknowledged.

A crash anywhere comes to the same: what is kept is kept once, what is settled is settled again to
no effect, and a message is acknowledged only after both. A delivery that proves nothing by itself
(Asaas signs nothing) is asked of the provider before anything follows from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import msgspec
import psycopg
import structlog
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from psycopg_pool import AsyncConnectionPool

from consumers.deliveries import keep
from consumers.fact_book import Told, keep_facts
from consumers.fetching import Fetch, FetchLater, FetchNever
from consumers.health import Part
from consumers.settling import NotYet, Settler
from consumers.streams import PAYMENT, PAYMENT_DURABLE, tenant_of
from consumers.taking import Dead, Fate, Later, Source, take
from ledger.payment_messages import PaymentMessage, decode_message

log = structlog.get_logger(__name__)

SOURCE: Final = Source(
    stream=PAYMENT, durable=PAYMENT_DURABLE, batch_max=100, ahead_max=400, batches_at_once=2
)
AT_ONCE: Final = 8
"""How many groups of one batch are settled at the same time."""
DELIVERIES_MAX: Final = 6
"""How often a message is tried that meets a bug: for about 12 s."""


class Received(Struct):
    """A message on its way through, and what became of it so far."""

    message: Msg
    tenant: str
    told: PaymentMessage
    fate: Fate = None


class Payments(Struct, frozen=True):
    """What the part works with."""

    pool: AsyncConnectionPool[Any]
    settler: Settler
    fetch: Fetch | None


async def capture_payments(
    client: Client, payments: Payments, part: Part, stop: asyncio.Event
) -> None:
    """Bring payment facts into the ledger until `stop`; then finish what is in flight."""
    await take(client, SOURCE, partial(handle, payments), part, stop)


async def handle(payments: Payments, messages: Sequence[Msg]) -> list[Fate]:
    """Keep and settle what messages tell, and return what becomes of each."""
    received: list[Received] = []
    fates: dict[int, Fate] = {}
    for place, message in enumerate(messages):
        try:
            told = decode_message(message.data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            fates[place] = Dead("invalid_message", str(error))
        else:
            received.append(Received(message, tenant_of(message.subject), told))
    room = asyncio.Semaphore(AT_ONCE)
    await asyncio.gather(*(_fetch(payments, one, room) for one in received))
    await _keep(payments, received)
    groups = _groups([one for one in received if one.fate is None])
    await asyncio.gather(
        *(_settle(payments, tenant, fact, of, room) for (tenant, fact), of in groups.items()),
        *(_alert(payments, one, room) for one in received if one.told.unreadable),
    )
    rest = iter(received)
    return [fates[place] if place in fates else next(rest).fate for place in range(len(messages))]


def _groups(received: Sequence[Received]) -> dict[tuple[str, str], list[Received]]:
    """Return facts to settle, by tenant and id, with what came with each or is connected to it.

    To settle one is to settle all that are connected: it need not be done for each.
    """
    groups: dict[tuple[str, str], list[Received]] = {}
    first: dict[tuple[str, str], str] = {}
    for one in received:
        for fact in one.told.facts:
            names = [(one.tenant, ref) for ref in fact.refs]
            known = next((first[name] for name in names if name in first), fact.id)
            first |= dict.fromkeys(names, known)
            groups.setdefault((one.tenant, known), []).append(one)
    return groups


async def _fetch(payments: Payments, one: Received, room: asyncio.Semaphore) -> None:
    """Ask the provider for the payment that a delivery is about, if it proves nothing itself."""
    if one.told.fetch is None:
        return
    if payments.fetch is None:
        one.fate = Later("provider_not_asked")
        return
    try:
        async with room:
            facts = await payments.fetch.payment(one.tenant, one.told)
    except FetchLater as error:
        log.warning("payment.not_fetched", tenant=one.tenant, why=str(error))
        one.fate = Later("provider_unavailable")
    except FetchNever as error:
        one.fate = Dead("payment_not_found", str(error))
    except Exception:
        log.exception("payment.fetch_failed", tenant=one.tenant)
        one.fate = _after_a_bug(one)
    else:
        one.told = msgspec.structs.replace(one.told, facts=facts)


async def _keep(payments: Payments, received: Sequence[Received]) -> None:
    """Keep deliveries and their facts, all at once; one that cannot be kept, apart from the others.

    Raises psycopg.OperationalError: the database is away, and all come again.
    """
    try:
        await _keep_all(payments, received)
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        if len(received) == 1:
            log.warning("payment.not_kept", tenant=received[0].tenant, error=str(error))
            received[0].fate = _after_a_bug(received[0])
            return
        for one in received:
            await _keep(payments, [one])


async def _keep_all(payments: Payments, received: Sequence[Received]) -> None:
    if not received:
        return
    async with payments.pool.connection() as connection:
        await keep(connection, [(one.tenant, one.told) for one in received])
        await keep_facts(
            connection, [Told(one.tenant, fact) for one in received for fact in one.told.facts]
        )


async def _settle(
    payments: Payments, tenant: str, fact: str, of: Sequence[Received], room: asyncio.Semaphore
) -> None:
    fate: Fate = None
    try:
        async with room:
            await payments.settler.settle(tenant, fact)
    except NotYet as error:
        fate = Later(str(error))
    except psycopg.OperationalError:
        raise
    except Exception:
        # A bug with one payment must not keep all others from the ledger.
        log.exception("payment.settle_failed", tenant=tenant, fact=fact)
        fate = _after_a_bug(of[0])
    if fate is not None:
        for one in of:
            one.fate = fate


async def _alert(payments: Payments, one: Received, room: asyncio.Semaphore) -> None:
    """Tell people of a delivery that was proved to be the provider's, and could not be read."""
    assert one.told.unreadable is not None
    try:
        async with room:
            await payments.settler.alert_unreadable(
                one.tenant, one.told.endpoint, one.told.unreadable
            )
    except NotYet as error:
        one.fate = Later(str(error))


def _after_a_bug(one: Received) -> Fate:
    if one.message.metadata.num_delivered < DELIVERIES_MAX:
        return Later("internal_error")
    return Dead("internal_error", "a bug; the log says more")
