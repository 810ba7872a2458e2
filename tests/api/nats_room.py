"""Asking over NATS in sync tests: a connection on a loop of its own, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import httpx
import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from api.routes import NatsWay
from consumers.streams import connect, payment_subject, tenant_of, token_of
from tests.api.room import Answer, Service, Tenant, fresh

T = TypeVar("T")
REQUEST_SECONDS_MAX = 60.0
STATE_SECONDS_MAX = 60.0
RUN_SECONDS_MAX = 120.0


def way_to(url: str, requests_max: int = 4_096) -> NatsWay:
    """Return the way that `scrip serve api` gives its application."""
    return NatsWay(
        connect=lambda: connect(url, "scrip-api"),
        tenant_of=tenant_of,
        payment_subject=payment_subject,
        requests_max=requests_max,
    )


def until_nats_is(service: Service, wanted: str = "ok") -> None:
    """Wait until the service says this of its connection to NATS."""
    way = service.settings["nats"]
    assert isinstance(way, NatsWay)
    deadline = time.monotonic() + STATE_SECONDS_MAX
    while way.state != wanted:
        assert time.monotonic() < deadline, way.state
        time.sleep(0.01)


class Asker:
    """Asks over NATS."""

    def __init__(self, client: Client, loop: asyncio.AbstractEventLoop) -> None:
        self.client = client
        self.loop = loop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the connection's loop, and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(RUN_SECONDS_MAX)

    def until_answered(self) -> None:
        """Wait until a request comes to the service again, after NATS was away.

        A service subscribes when it is connected, and may say so a moment before NATS has read it.
        """
        deadline = time.monotonic() + STATE_SECONDS_MAX
        while True:
            # What is subscribed to last is what finds the service.
            with contextlib.suppress(NatsError):
                self.run(self.client.request("$SRV.PING.scrip-ledger", timeout=5))
                return
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def ask(
        self,
        tenant: Tenant,
        name: str,
        body: object = None,
        *,
        key: str | None = None,
        role: str = "service",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Ask as a tenant; `body` is JSON unless it is bytes."""
        payload = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return answer_of(
            self.run(
                self.client.request(
                    f"scrip.{token_of(tenant.name)}.ledger.{name}",
                    payload,
                    timeout=REQUEST_SECONDS_MAX,
                    headers=headers_for(tenant, key=key, role=role) | (headers or {}),
                )
            )
        )


def headers_for(tenant: Tenant, *, key: str | None = None, role: str = "service") -> dict[str, str]:
    """Return the headers of a request."""
    secret = getattr(tenant, role).secret
    return {"Authorization": f"Bearer {secret}", "Idempotency-Key": key or fresh("key")}


def answer_of(message: Msg) -> Answer:
    """Return what was answered, as if it had come over HTTP."""
    headers = httpx.Headers(message.headers)
    return Answer(
        status=int(headers["scrip-status"]),
        body=msgspec.json.decode(message.data),
        headers=headers,
        raw=message.data,
    )


@contextlib.contextmanager
def asking(url: str) -> Iterator[Asker]:
    """Open a connection."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="asker")
    thread.start()
    try:
        connecting = asyncio.run_coroutine_threadsafe(connect(url, "test"), loop)
        asker = Asker(connecting.result(RUN_SECONDS_MAX), loop)
        try:
            yield asker
        finally:
            asker.run(asker.client.close())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
