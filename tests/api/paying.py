"""A whole service for tests of paying: the API, a worker, and the pretended providers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
from msgspec import Struct
from pydantic import SecretStr

from api.sealing import new_key
from consumers.worker import WorkerDeps, work
from ledger.store import Store
from ledger.writer import Writer
from scrip.asking import Fetching, providers, secrets_keys
from scrip.embedded import DatabaseUrls, EmbeddedNats
from scrip.provider_server.server import ASAAS_KEY, STRIPE_KEY, ProviderServer
from scrip.settings import Settings
from tests.api.nats_room import until_nats_is, way_to
from tests.api.room import WAIT_SECONDS_MAX, Service, Tenant

TOKEN = "t0k3n-f0r-th3-t3sts-0f-asaas-n0-1!"
EVERYTHING = {"enabled_events[]": "*"}


class Shop(Struct):
    """What tests of paying need."""

    service: Service
    tenant: Tenant
    providers: ProviderServer

    def put_keys(self) -> None:
        """Let the tenant have keys to both providers."""
        for provider, key in (("stripe", STRIPE_KEY), ("asaas", ASAAS_KEY)):
            put = self.tenant.admin.put(f"/v1/providers/{provider}", {"api_key": key})
            assert put.status == 200, put.body

    def sell(self, pack: str, price: dict[str, Any], **ids: list[str]) -> None:
        """Put a pack of 1 000 credits."""
        terms = {"name": "Small", "credits": "1000", "price": price, "providers": ids}
        put = self.tenant.admin.put(f"/v1/catalog/packs/{pack}", terms)
        assert put.status in {200, 201}, put.body

    def hear_of_stripe(self) -> None:
        """Let Stripe send what happens there."""
        made = self.tenant.admin.post("/v1/webhook-endpoints", {"provider": "stripe"}).body
        hook = httpx.post(
            f"{self.providers.stripe_url}/v1/webhook_endpoints",
            data={"url": self.service.base_url + made["path"], **EVERYTHING},
            headers={"authorization": f"Bearer {STRIPE_KEY}"},
            trust_env=False,
        ).json()
        path = f"/v1/webhook-endpoints/{made['id']}/secrets"
        assert self.tenant.admin.post(path, {"secret": hook["secret"]}).status == 201

    def hear_of_asaas(self) -> None:
        """Let Asaas send what happens there."""
        asked = {"provider": "asaas", "secret": TOKEN}
        made = self.tenant.admin.post("/v1/webhook-endpoints", asked).body
        httpx.post(
            f"{self.providers.asaas_url}/webhooks",
            json={"url": self.service.base_url + made["path"], "authToken": TOKEN},
            headers={"access_token": ASAAS_KEY},
            trust_env=False,
        ).raise_for_status()

    def available(self, account: str) -> str:
        """Return what an account has, as the ledger has it now."""
        path = f"/v1/accounts/{account}/balance"
        available: str = self.tenant.service.get(path, consistency="strong").body["available"]
        return available


@contextlib.contextmanager
def open_shop(urls: DatabaseUrls, nats: EmbeddedNats, *, working: bool = True) -> Iterator[Shop]:
    """Run all of it; without a worker, only the API and the providers."""
    with ProviderServer() as server:
        settings = Settings(
            database_url=SecretStr(urls.app_url),
            secrets_keys=SecretStr(new_key("test")),
            stripe_api_url=server.stripe_url,
            asaas_api_url=server.asaas_url,
        )
        service = Service(
            urls,
            nats=way_to(nats.url),
            secrets_keys=secrets_keys(settings),
            stripe_api_url=settings.stripe_api_url,
            asaas_api_url=settings.asaas_api_url,
        )
        worker = working_on(settings, nats) if working else contextlib.nullcontext()
        with worker, service:
            until_nats_is(service)
            tenant = service.tenant()
            yield Shop(service, tenant, server)
            tenant.close()


@contextlib.contextmanager
def working_on(settings: Settings, nats: EmbeddedNats) -> Iterator[None]:
    """Run a worker, in a thread of its own, as its process does."""
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    url = settings.database_url.get_secret_value()

    async def run() -> None:
        async with providers(settings) as asked:
            with contextlib.closing(Store.open(url)) as store, Writer(store) as writer:
                fetch = Fetching(asked)
                await work(
                    WorkerDeps(writer=writer, database_url=url, nats_url=nats.url, fetch=fetch),
                    stop,
                )

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), name="worker")
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def until(is_so: Callable[[], bool], what: str) -> None:
    """Wait for something that must come."""
    end = time.monotonic() + WAIT_SECONDS_MAX
    while not is_so():
        assert time.monotonic() < end, f"waited too long for {what}"
        time.sleep(0.05)
