"""What the tests of reconciliation share: people who pay, webhooks that are lost, the command."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from psycopg_pool import AsyncConnectionPool

from api.webhooks import asaas_facts, stripe_facts
from consumers.fact_book import Told, keep_facts
from consumers.health import Part
from consumers.payments import Payments as Consumer
from consumers.payments import capture_payments
from consumers.streams import connect
from ledger.domain.commands import PutAccount, SetPack, SetPlan
from ledger.domain.facts import PaymentFact
from ledger.domain.offers import Money, Pack, Plan, ProviderIds
from ledger.store import Store
from ledger.writer import Writer
from scrip.embedded import DatabaseUrls
from scrip.provider_server.server import ASAAS_KEY, STRIPE_KEY, ProviderServer
from scrip.reconcile.comparing import _connected
from scrip.settings import VARIABLES
from tests.consumers.room import until
from tests.consumers.settling_room import LONG_AGO, Payments

TENANT, ACCOUNT = "acme", "acct"
SINCE = "2026-01-01"
MICRO = 1_000_000
WAIT_SECONDS_MAX = 60
ROOT = Path(__file__).parents[2]
Object = dict[str, Any]
Done = subprocess.CompletedProcess[str]


class Shop:
    """A tenant that sells the plan `monthly` and the pack `small`, at both providers."""

    def __init__(
        self, urls: DatabaseUrls, nats_url: str, providers: ProviderServer, folder: Path
    ) -> None:
        self.urls = urls
        self.nats_url = nats_url
        self.providers = providers
        self.folder = folder
        self.stripe, self.asaas = providers.stripe, providers.asaas
        self.plan_price = self.stripe.add_price(2_000, interval="month")["id"]
        self.pack_price = self.stripe.add_price(500)["id"]

    # -- the ledger ------------------------------------------------------------------------------

    @asynccontextmanager
    async def payments(self) -> AsyncIterator[Payments]:
        store = Store.open(self.urls.app_url)
        pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
            self.urls.app_url, min_size=1, max_size=8, open=False
        )
        with Writer(store) as writer:
            async with pool:
                yield Payments(writer, pool)
        store.close()

    async def open(self) -> None:
        monthly = Plan(
            name="Monthly",
            price=Money(2_000, "USD"),
            credits=100 * MICRO,
            providers=ProviderIds(stripe=(self.plan_price,)),
        )
        small = Pack(
            name="Small",
            credits=10 * MICRO,
            bonus=MICRO,
            expires_days=30,
            providers=ProviderIds(stripe=(self.pack_price,), asaas=("small",)),
        )
        async with self.payments() as payments:
            await payments.sql(
                "INSERT INTO scrip.tenants (tenant, mode) VALUES (%(t)s, 'test')", t=TENANT
            )
            for put in (
                SetPlan(plan="monthly", terms=monthly, effective_at=LONG_AGO),
                SetPack(pack="small", terms=small, effective_at=LONG_AGO),
            ):
                await payments.ask(TENANT, None, put)
            await payments.ask(TENANT, ACCOUNT, PutAccount())

    def hear(self, facts: Iterable[PaymentFact], *, settle: bool = True) -> None:
        """Keep facts as if webhooks had told them, and settle them."""

        async def hear() -> None:
            told = list(facts)
            async with self.payments() as payments:
                async with payments.settler.pool.connection() as connection:
                    await keep_facts(connection, [Told(TENANT, fact) for fact in told])
                # To settle one fact is to settle all that are connected to it.
                firsts = [group[0].id for group in _connected(told)]
                for fact in firsts if settle else ():
                    await payments.settler.settle(TENANT, fact)

        asyncio.run(hear())

    def balance(self) -> tuple[int, int, int]:
        """Return what the account was given, what of it is left, and what is set aside."""

        async def read() -> tuple[int, int, int]:
            async with self.payments() as payments:
                balance = await payments.balance(TENANT, ACCOUNT)
                return balance.granted, balance.available, balance.pending

        return asyncio.run(read())

    def rows(self, query: str, **values: Any) -> list[Any]:
        async def read() -> list[Any]:
            async with self.payments() as payments:
                return await payments.rows(query, **values)

        return asyncio.run(read())

    def work(self) -> None:
        """Let a worker bring all that was sent into the ledger."""

        async def work() -> None:
            stop = asyncio.Event()
            client = await connect(self.nats_url, "worker")
            async with self.payments() as payments:
                consumer = Consumer(payments.settler.pool, payments.settler, None)
                part = Part(name="payments")
                task = asyncio.create_task(capture_payments(client, consumer, part, stop))
                js = client.jetstream()

                async def is_done() -> bool:
                    info = await js.consumer_info("PAYMENT", "scrip-payments")
                    return info.num_pending == 0 and info.num_ack_pending == 0

                await asyncio.sleep(0.2)
                await until(is_done)
                stop.set()
                await task
            await client.close()

        asyncio.run(work())

    # -- the providers ---------------------------------------------------------------------------

    def told(self, lost: Iterable[str] = ()) -> list[PaymentFact]:
        """Return what Stripe's webhooks have told, but for those that name anything `lost`."""
        names = [f'"{name}"' for name in lost]
        return [
            fact
            for event in self.stripe.deliveries
            for text in [json.dumps(event) if names else ""]
            if not any(name in text for name in names)
            for fact in stripe_facts.facts(event["id"], event["type"], event)
        ]

    def asaas_facts(self, *payments: str) -> list[PaymentFact]:
        return [
            fact
            for id_ in payments
            for fact in asaas_facts.facts(id_, "PAYMENT_RECEIVED", self.asaas.payment(id_))
        ]

    def checkout(self, mode: str = "payment", quantity: int = 1) -> Object:
        """Begin a checkout session for the account."""
        prices = {"payment": self.pack_price, "subscription": self.plan_price}
        form = {
            "mode": mode,
            "line_items[0][price]": prices[mode],
            "line_items[0][quantity]": str(quantity),
            "success_url": "https://example.com/ok",
            "client_reference_id": ACCOUNT,
            "metadata[scrip_price]": prices[mode],
        }
        if mode == "subscription":
            form["subscription_data[metadata][scrip_account]"] = ACCOUNT
        return self.ask_stripe("checkout/sessions", form)

    def top_up(self, card: str = "", status: int = 200) -> Object:
        """Charge the customer's card while he is not there, as the worker does."""
        customer = self.stripe.add_customer(card=card or None)["id"]
        form = {
            "amount": "500",
            "currency": "usd",
            "customer": customer,
            "payment_method": card or self.stripe.save_card(customer)["id"],
            "off_session": "true",
            "confirm": "true",
            "metadata[scrip_account]": ACCOUNT,
            "metadata[scrip_top_up]": self.pack_price,
            "metadata[scrip_attempt]": "top_1",
        }
        return self.ask_stripe("payment_intents", form, status)

    def ask_stripe(self, path: str, form: dict[str, str], status: int = 200) -> Object:
        response = httpx.post(
            f"{self.providers.base_url}/v1/{path}",
            data=form,
            headers={"authorization": f"Bearer {self.stripe.key}"},
            trust_env=False,
        )
        assert response.status_code == status, response.text
        made: Object = response.json()
        return made

    def pay_asaas(self) -> str:
        """Let somebody pay for the pack at Asaas; return the payment."""
        reference = f"{ACCOUNT}:small"
        made = self.asaas.add_payment(5, status="RECEIVED", externalReference=reference)
        id_: str = made["id"]
        return id_

    def subscribe(self) -> str:
        """Let somebody subscribe; return the subscription."""
        subscription: str = self.stripe.pay(self.checkout("subscription")["id"])["subscription"]
        return subscription

    def charge_of(self, invoice: str) -> str:
        paid = self.stripe.get("invoices", invoice)["payments"]["data"][0]["payment"]
        charge: str = self.stripe.get("payment_intents", paid["payment_intent"])["latest_charge"]
        return charge

    # -- the command -----------------------------------------------------------------------------

    def command(self, provider: str, *words: str) -> list[str]:
        begin = [sys.executable, "-m", "scrip", "reconcile", provider, "--tenant", TENANT]
        return [*begin, "--since", SINCE, "--json", *words]

    def environment(self, provider: str = "stripe", **changes: str) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if k not in VARIABLES}
        return {
            **inherited,
            # The command runs in another folder, where a relative path leads nowhere.
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": self.urls.app_url,
            "NATS_URL": self.nats_url,
            "SCRIP_STRIPE_API_URL": self.providers.stripe_url,
            "SCRIP_ASAAS_API_URL": self.providers.asaas_url,
            "SCRIP_RECONCILE_API_KEY": STRIPE_KEY if provider == "stripe" else ASAAS_KEY,
            "NO_PROXY": "*",
            **changes,
        }

    def reconcile(self, provider: str, *words: str, **changes: str) -> Done:
        return subprocess.run(
            self.command(provider, *words),
            env=self.environment(provider, **changes),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def found(self, provider: str, *words: str) -> list[Object]:
        """Reconcile, and return the differences; the status must say whether there are any."""
        done = self.reconcile(provider, *words)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert done.returncode == (1 if lines else 0), done.stderr
        return lines


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def wait_for(check: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.002)
