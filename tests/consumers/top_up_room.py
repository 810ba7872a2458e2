"""What tests of auto top-up share: an account, its customer at a pretended Stripe, a ledger."""

import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any, Literal

from msgspec import Struct
from pydantic import SecretStr

from api.problems import SecretsUnreadable
from api.providers.charging import StripeCharging
from api.providers.stripe_api import StripeHttp
from api.webhooks import stripe_facts
from consumers.charging import Charge
from consumers.health import Part
from consumers.top_ups import TopUps
from ledger.domain.commands import Deduct, GrantCredits
from ledger.domain.entities import Charge as Spent
from ledger.domain.top_ups import Card, Charged, TopUp
from ledger.records import stream_id
from ledger.store import Store
from projections.runner import Runner
from scrip.provider_server.server import STRIPE_KEY, ProviderServer
from tests.consumers.settling_room import Dated, Payments
from tests.domain.payment_stories import MICRO

GOOD, BAD = "pm_good", "pm_card_chargeDeclined"
PRICE = 1_000
THRESHOLD = 100 * MICRO
LOOK = timedelta(minutes=1, seconds=1)
_numbers = itertools.count(1)


class Keys:
    """The API keys of tenants: all have the pretended Stripe's, unless it is taken away."""

    key: SecretStr | None = SecretStr(STRIPE_KEY)
    unreadable = False

    async def of(self, tenant: str, provider: Literal["stripe"], /) -> SecretStr | None:
        assert tenant
        assert provider == "stripe"
        if self.unreadable:
            raise SecretsUnreadable
        return self.key


class Died(Exception):
    """The process is gone."""


def die() -> None:
    """End the process."""
    raise Died


def live() -> None:
    """Go on."""


class Meddling:
    """Charges, and something happens just before the request goes out, or as its answer comes."""

    def __init__(
        self, charge: Charge, before: Callable[[], None] = live, after: Callable[[], None] = live
    ) -> None:
        self.charging = charge
        self.before = before
        self.after = after

    async def card(self, tenant: str, customer: str) -> Card:
        return await self.charging.card(tenant, customer)

    async def charge(self, top_up: TopUp) -> Charged:
        self.before()
        charged = await self.charging.charge(top_up)
        self.after()
        return charged

    async def find(self, top_up: TopUp, payment: str | None) -> Charged:
        return await self.charging.find(top_up, payment)


class Shop(Struct):
    """A tenant with one account, which is to be topped up with packs of 1 000 for 10 USD."""

    dated: Dated
    payments: Payments
    server: ProviderServer
    keys: Keys
    charging: StripeCharging
    tenant: str
    customer: str
    told: int = 0

    @property
    def top_ups(self) -> TopUps:
        return TopUps(self.payments.settler.pool, self.dated.writer, self.charging)

    def meddled(
        self, before: Callable[[], None] = live, after: Callable[[], None] = live
    ) -> TopUps:
        """Return what tops up while something happens."""
        meddling = Meddling(self.charging, before, after)
        return TopUps(self.payments.settler.pool, self.dated.writer, meddling)

    async def put(self, **changes: Any) -> None:
        """Put auto top-up, as the route does."""
        row: dict[str, Any] = {
            "t": self.tenant,
            "enabled": True,
            "threshold": THRESHOLD,
            "pack": "pack",
            "monthly_max": 10 * PRICE,
            "now": self.dated.clock(),
        }
        await self.payments.sql(
            "INSERT INTO scrip.auto_top_ups AS a (tenant, account, version, enabled, threshold,"
            " pack, monthly_max, currency, reversed_known, look_at, by, put_at, updated_at)"
            " VALUES (%(t)s, 'acct', 1, %(enabled)s, %(threshold)s, %(pack)s, %(monthly_max)s,"
            " 'USD', 0, %(now)s, 'key:test', %(now)s, %(now)s)"
            " ON CONFLICT (tenant, account) DO UPDATE SET version = a.version + 1,"
            " enabled = excluded.enabled, threshold = excluded.threshold, pack = excluded.pack,"
            " monthly_max = excluded.monthly_max, look_at = excluded.look_at, why = NULL,"
            " why_since = NULL",
            **{**row, **changes},
        )

    async def look(self, top_ups: TopUps | None = None) -> None:
        await (top_ups or self.top_ups).look(self.tenant, "acct")

    async def try_again(self, top_ups: TopUps | None = None) -> None:
        """Take up what is open and due, as a round does."""
        found = top_ups or self.top_ups
        async for page in found._to_try():
            for attempt in page:
                await found._try_again(attempt)

    async def granted(self) -> None:
        await self.top_ups._granted()

    async def webhooks(self) -> None:
        """Let all that Stripe has told come in."""
        events = self.server.stripe.deliveries[self.told :]
        self.told += len(events)
        for event in events:
            facts = stripe_facts.facts(event["id"], event["type"], event)
            await self.payments.tell(self.tenant, facts)

    async def spend(self, credits_: int) -> None:
        command = Deduct(charge=Spent(amount=credits_ * MICRO))
        await self.payments.ask(self.tenant, "acct", command)

    async def give(self, credits_: int) -> None:
        command = GrantCredits(amount=credits_ * MICRO, kind="promotional")
        await self.payments.ask(self.tenant, "acct", command)

    async def available(self) -> int:
        return (await self.payments.balance(self.tenant)).available // MICRO

    def later(self, step: timedelta = LOOK) -> None:
        self.dated.clock.now += step

    def use(self, card: str) -> None:
        self.server.stripe.save_card(self.customer, card)

    @property
    def charges(self) -> int:
        return len(self.server.stripe.kept["charges"])

    @property
    def asked(self) -> int:
        """How often Stripe was asked to charge."""
        return self.server.stripe.requests.count(("POST", "/v1/payment_intents"))

    async def attempts(self) -> list[Any]:
        return await self.payments.rows(
            "SELECT number, state, code FROM scrip.top_up_attempts WHERE tenant = %(t)s"
            " ORDER BY number",
            t=self.tenant,
        )

    async def states(self) -> list[str]:
        return [state for _, state, _ in await self.attempts()]

    async def why(self) -> str | None:
        rows = await self.payments.rows(
            "SELECT why FROM scrip.auto_top_ups WHERE tenant = %(t)s", t=self.tenant
        )
        why: str | None = rows[0][0]
        return why

    async def open_alerts(self) -> list[str]:
        """Return the codes of the alerts that `GET /v1/alerts?open=true` lists."""
        rows = await self.payments.rows(
            "SELECT code FROM scrip.payment_alerts WHERE tenant = %(t)s AND subject = 'acct'"
            " AND resolved_at IS NULL ORDER BY code",
            t=self.tenant,
        )
        return [code for (code,) in rows]

    async def resolve_alerts(self) -> None:
        """Note that all have been seen to, as the route does."""
        await self.payments.sql(
            "UPDATE scrip.payment_alerts SET resolved_at = now() WHERE tenant = %(t)s",
            t=self.tenant,
        )

    async def alerts(self) -> list[tuple[str, str]]:
        """Return the alerts in the ledger: their codes and details."""
        store = Store.open(self.dated.urls.app_url)
        try:
            events = store.events_of(stream_id(self.tenant, None))
        finally:
            store.close()
        raised = [one.event for one in events if one.name == "alert.raised.v1"]
        return [(event.code, event.detail) for event in raised]  # type: ignore[union-attr]


@asynccontextmanager
async def shop(
    dated: Dated, *, card: str | None = GOOD, linked: bool = True
) -> AsyncIterator[Shop]:
    """Open a shop, with an account that has 50 credits and is to be topped up below 100."""
    clock = dated.clock
    with ProviderServer(clock=lambda: clock().timestamp()) as server:
        http = StripeHttp(server.stripe_url)
        try:
            async with dated.payments() as payments:
                tenant = await payments.new_tenant()
                customer = server.stripe.add_customer(card=card)["id"]
                if linked:
                    await payments.link(tenant, f"stripe:customer:{customer}", "acct")
                keys = Keys()
                charging = StripeCharging(http, keys)
                made = Shop(dated, payments, server, keys, charging, tenant, customer)
                await made.give(50)
                await made.put()
                yield made
        finally:
            await http.close()


@contextmanager
def projecting(dated: Dated) -> Iterator[None]:
    """Keep the projections up with the ledger."""
    store = Store.open(dated.urls.app_url)
    runner = Runner(store)
    runner.start()
    try:
        while not runner.active:  # Its tables are there from then on.
            time.sleep(0.02)
        yield
    finally:
        runner.close()
        store.close()


def part() -> Part:
    return Part(name=f"top_ups_{next(_numbers)}")
