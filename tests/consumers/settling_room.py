"""What tests of payments share: a ledger, its time, a catalog, and deliveries brought to it."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from psycopg_pool import AsyncConnectionPool

from consumers.fact_book import Told, keep_facts
from consumers.settling import Settler
from ledger.domain.commands import PutAccount, SetPack, SetPlan
from ledger.domain.entities import Balance
from ledger.domain.facts import PaymentFact
from ledger.domain.offers import Pack, Plan, ProviderIds
from ledger.domain.settled import Offer
from ledger.records import Order, View
from ledger.writer import Writer
from scrip.embedded import DatabaseUrls
from tests.domain.payment_stories import PRICES, T0, Delivery

NOW = datetime.fromtimestamp(T0 + 5_000, UTC)
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
ANSWER_SECONDS_MAX = 40.0
CLERK_USER = "clerk:user:user_1"
_numbers = itertools.count(1)


class Clock:
    """The time of a ledger under test."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


class Payments:
    """A ledger, and what settles payments on it."""

    def __init__(self, writer: Writer, pool: AsyncConnectionPool[Any]) -> None:
        self.writer = writer
        self.settler = Settler(pool, writer)

    async def ask(self, tenant: str, account: str | None, command: Any) -> Any:
        key = f"test-{next(_numbers)}"
        order = Order(tenant=tenant, account=account, command=command, key=key, by="service:test")
        return await asyncio.wrap_future(self.writer.submit(order))

    async def new_tenant(self, *, account: str | None = "acct", catalog: bool = True) -> str:
        """Return a tenant that sells what the stories buy, with an account."""
        tenant = f"tenant-{next(_numbers)}"
        await self.sql("INSERT INTO scrip.tenants (tenant, mode) VALUES (%(t)s, 'live')", t=tenant)
        if catalog:
            await self.put_catalog(tenant)
        if account is not None:
            await self.ask(tenant, account, PutAccount())
        return tenant

    async def put_catalog(self, tenant: str) -> None:
        for key, offer in _offers().items():
            terms = offer.terms
            if isinstance(terms, Plan):
                put: Any = SetPlan(plan=key, terms=terms, effective_at=LONG_AGO)
            else:
                put = SetPack(pack=key, terms=terms, effective_at=LONG_AGO)
            await self.ask(tenant, None, put)

    async def tell(self, tenant: str, facts: Sequence[PaymentFact]) -> None:
        """Keep facts and settle them, as the consumer does for a message."""
        async with self.settler.pool.connection() as connection:
            await keep_facts(connection, [Told(tenant, fact) for fact in facts])
        for fact in facts:
            await self.settler.settle(tenant, fact.id)

    async def deliver(self, tenant: str, delivery: Delivery, delivery_id: str = "evt_1") -> None:
        await self.tell(tenant, delivery.facts(delivery_id))

    async def link(self, tenant: str, owner: str, account: str) -> None:
        await self.sql(
            "INSERT INTO scrip.account_links (tenant, owner, account, by)"
            " VALUES (%(t)s, %(o)s, %(a)s, 'key:test')",
            t=tenant,
            o=owner,
            a=account,
        )

    async def view(self, tenant: str, account: str = "acct") -> View:
        return await asyncio.wrap_future(self.writer.view(tenant, account))

    async def balance(self, tenant: str, account: str = "acct") -> Balance:
        return (await self.view(tenant, account)).balance

    async def rows(self, query: str, **values: Any) -> list[Any]:
        async with self.settler.pool.connection() as connection:
            cursor = await connection.execute(query, values)  # type: ignore[arg-type]
            return await cursor.fetchall()

    async def sql(self, query: str, **values: Any) -> None:
        async with self.settler.pool.connection() as connection:
            await connection.execute(query, values)  # type: ignore[arg-type]


def _offers() -> dict[str, Offer]:
    """Return what the stories buy, by its key, with the ids that providers call it by."""
    offers: dict[str, Offer] = {}
    for (provider, price), offer in PRICES.items():
        terms = offers.get(offer.key, offer).terms
        ids = terms.providers
        named = {name: ids.of(name) for name in ("stripe", "clerk", "asaas")}
        named[provider] = (*named[provider], price)
        assert isinstance(terms, Plan | Pack)
        offers[offer.key] = Offer(offer.key, replace(terms, providers=ProviderIds(**named)))
    return offers


class Dated(Struct):
    """A ledger whose time is the clock's."""

    urls: DatabaseUrls
    writer: Writer
    clock: Clock

    @asynccontextmanager
    async def payments(self) -> AsyncIterator[Payments]:
        """Settle payments on it."""
        pool = AsyncConnectionPool(self.urls.app_url, min_size=1, max_size=8, open=False)
        async with pool:
            yield Payments(self.writer, pool)
