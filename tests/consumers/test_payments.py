"""Payment messages over the real NATS: kept, settled, acknowledged; or later, or dead."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import Raw
from nats.aio.client import Client
from nats.errors import Error as NatsError

from consumers.dead import list_dead
from consumers.fetching import FetchLater, FetchNever
from consumers.health import Health
from consumers.payments import Payments, capture_payments
from consumers.streams import (
    PAYMENT,
    PAYMENT_DURABLE,
    connect,
    ensure_streams,
    jetstream,
    payment_subject,
)
from ledger.domain.facts import PaymentFact, Provider
from ledger.payment_messages import PaymentMessage, encode_message
from scrip.embedded import EmbeddedNats
from tests.consumers.room import until
from tests.consumers.settling_room import NOW, Dated
from tests.consumers.settling_room import Payments as Told
from tests.domain.payment_stories import BONUS, PACK, Delivery, asaas, done, session
from tests.nats_streams import delete_streams

PAID = session("paid", "completed")
_numbers = itertools.count(1)


class Asaas:
    """Stands in for Asaas: tells of payments what it is told to."""

    def __init__(self) -> None:
        self.facts: tuple[PaymentFact, ...] = ()
        self.away: Exception | None = None
        self.asked: list[str] = []

    async def payment(self, tenant: str, endpoint: str, payment: str) -> tuple[PaymentFact, ...]:
        assert (tenant, endpoint) != ("", "")
        self.asked.append(payment)
        if self.away is not None:
            raise self.away
        return self.facts


class Line:
    """A worker's part for payments, and a way to send it messages."""

    def __init__(self, told: Told, client: Client, fetch: Asaas) -> None:
        self.told, self.client, self.fetch = told, client, fetch

    async def send(self, tenant: str, payload: bytes, provider: Provider = "stripe") -> None:
        js = jetstream(self.client)
        await js.publish(payment_subject(tenant, provider), payload, stream=PAYMENT)

    async def deliver(self, tenant: str, delivery: Delivery, **changes: Any) -> None:
        await self.send(tenant, encode_message(message(delivery, **changes)))

    async def handled(self) -> None:
        js = jetstream(self.client)

        async def is_done() -> bool:
            try:
                last = (await js.stream_info(PAYMENT)).state.last_seq
                floor = (await js.consumer_info(PAYMENT, PAYMENT_DURABLE)).ack_floor
            except NatsError:
                return False
            return floor is not None and floor.stream_seq >= last

        await until(is_done)

    async def dead(self) -> list[tuple[str, str]]:
        letters = await list_dead(jetstream(self.client))
        return [(letter.reason, letter.detail) for letter in letters]


def message(delivery: Delivery, **changes: Any) -> PaymentMessage:
    fields: dict[str, Any] = {
        "id": f"dlv_{next(_numbers)}",
        "endpoint": "whe_1",
        "provider": delivery.provider,
        "delivery": "evt_1",
        "type": delivery.type,
        "received_at": NOW,
        "payload": Raw(b'{"id":"evt_1"}'),
        "facts": delivery.facts(),
    }
    return PaymentMessage(**{**fields, **changes})


@asynccontextmanager
async def line_of(dated: Dated, nats: EmbeddedNats) -> AsyncIterator[Line]:
    await delete_streams(nats.url)
    client = await connect(nats.url, "test")
    await ensure_streams(jetstream(client))
    fetch = Asaas()
    stop = asyncio.Event()
    async with dated.payments() as told:
        payments = Payments(told.settler.pool, told.settler, fetch)
        part = Health().part("payments")
        task = asyncio.create_task(capture_payments(client, payments, part, stop))
        try:
            yield Line(told, client, fetch)
        finally:
            stop.set()
            await task
            await client.close()


async def test_a_message_is_kept_and_settled_and_then_acknowledged(
    dated: Dated, nats_server: EmbeddedNats
) -> None:
    async with line_of(dated, nats_server) as line:
        tenant = await line.told.new_tenant()
        for _ in range(3):
            await line.deliver(tenant, PAID)
        await line.handled()
        assert (await line.told.balance(tenant)).available == PACK + BONUS
        rows = await line.told.rows("SELECT type, facts FROM scrip.webhook_deliveries")
        assert rows == [("checkout.session.completed", 1)] * 3
        assert await line.told.rows("SELECT count(*) FROM scrip.payment_facts") == [(1,)]


async def test_what_is_no_message_and_a_tenant_that_is_none_are_dead_and_the_others_go_on(
    dated: Dated, nats_server: EmbeddedNats
) -> None:
    async with line_of(dated, nats_server) as line:
        tenant = await line.told.new_tenant()
        await line.send(tenant, b"{")
        await line.deliver("nobody", PAID)
        await line.deliver(tenant, PAID)

        async def granted() -> bool:
            return (await line.told.balance(tenant)).granted > 0

        await until(granted)
        await line.handled()
        reasons = sorted(reason for reason, _ in await line.dead())
        assert reasons == ["internal_error", "invalid_message"]


async def test_what_proves_nothing_is_asked_of_the_provider_first(
    dated: Dated, nats_server: EmbeddedNats
) -> None:
    confirmed = asaas("confirmed", "PAYMENT_CONFIRMED", "CONFIRMED")
    refunded = asaas("full", "PAYMENT_REFUNDED", "REFUNDED", refunds=done("100"))
    async with line_of(dated, nats_server) as line:
        tenant = await line.told.new_tenant()
        line.fetch.away = FetchLater("it does not answer")
        await line.deliver(tenant, confirmed, facts=(), fetch="pay_1")
        await until(lambda: len(line.fetch.asked) > 1)
        assert (await line.told.balance(tenant)).granted == 0
        line.fetch.away, line.fetch.facts = None, confirmed.facts()
        await line.handled()
        assert (await line.told.balance(tenant)).available == PACK
        line.fetch.facts = refunded.facts()
        await line.deliver(tenant, confirmed, facts=(), fetch="pay_1")
        await line.handled()
        assert (await line.told.balance(tenant)).available == 0
        line.fetch.away = FetchNever("it has no payment pay_2")
        await line.deliver(tenant, confirmed, facts=(), fetch="pay_2")
        await line.handled()
        assert await line.dead() == [("payment_not_found", "it has no payment pay_2")]


async def test_a_delivery_that_cannot_be_read_is_an_alert(
    dated: Dated, nats_server: EmbeddedNats
) -> None:
    async with line_of(dated, nats_server) as line:
        tenant = await line.told.new_tenant()
        for _ in range(2):
            await line.deliver(tenant, PAID, facts=(), unreadable="data.id must be an id")
        await line.handled()
        rows = await line.told.rows("SELECT code, subject, price FROM scrip.payment_alerts")
        assert rows == [("unreadable_delivery", "whe_1", "data.id must be an id")]


@pytest.mark.parametrize("facts", [500])
async def test_a_flood_of_facts_is_settled_once_each(
    dated: Dated, nats_server: EmbeddedNats, facts: int
) -> None:
    async with line_of(dated, nats_server) as line:
        tenant = await line.told.new_tenant()
        for number in range(facts):
            one = session("paid", "completed", id=f"cs_{number}", payment_intent=f"pi_{number}")
            await line.deliver(tenant, one)
        await line.handled()
        assert (await line.told.balance(tenant)).available == facts * (PACK + BONUS)
