"""A service that takes webhooks at the time for which the tests' requests are signed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg

from consumers.streams import PAYMENT, connect, ensure_streams, jetstream, tenant_of
from ledger.payment_messages import PaymentMessage, decode_message
from tests.api.room import Answer, Service, Tenant
from tests.api.webhooks.senders import EVENTS, NOW, SECRETS, Headers, headers_of

T = TypeVar("T")
ENDPOINTS = "/v1/webhook-endpoints"


@contextmanager
def at_the_time_of_the_tests(service: Service) -> Iterator[None]:
    """Let a service believe that it is NOW."""
    clock, service.writer.clock = service.writer.clock, lambda: NOW
    try:
        yield
    finally:
        service.writer.clock = clock


def endpoint_of(tenant: Tenant, provider: str, secret: str | None = None) -> str:
    """Make an endpoint with a secret, and return the path that its provider sends to."""
    body = {"provider": provider, "secret": secret or SECRETS[provider]}
    made = tenant.admin.post(ENDPOINTS, body)
    assert made.status == 201, made.body
    path: str = made.body["path"]
    return path


def sent(tenant: Tenant, path: str, headers: Headers, body: bytes | Iterable[bytes]) -> Answer:
    """Send a webhook, with no key."""
    given: Any = [(b"Authorization", b""), *[one for one in headers if one[0] != b"host"]]
    return tenant.reader.send_raw("POST", path, given, body)


def event(provider: str, **members: Any) -> bytes:
    """Return the body of an event with other members."""
    return json.dumps({**EVENTS[provider], "livemode": False, **members}).encode()


def signed(tenant: Tenant, provider: str, body: bytes, **how: Any) -> Answer:
    """Send a body with the right headers to a new endpoint."""
    return sent(tenant, endpoint_of(tenant, provider), headers_of(provider, body, **how), body)


def with_jetstream(url: str, work: Callable[[JetStreamContext], Awaitable[T]]) -> T:
    """Do something with JetStream, and return what comes of it."""

    async def run() -> T:
        client = await connect(url, "test")
        try:
            return await work(jetstream(client))
        finally:
            await client.close()

    return asyncio.run(run())


def make_streams(url: str) -> None:
    """Make the streams, as a worker does."""
    with_jetstream(url, ensure_streams)


def messages(url: str, tenant: str | None = None) -> list[PaymentMessage]:
    """Return what is in PAYMENT, oldest first; of one tenant, if it is named."""

    async def read(js: JetStreamContext) -> list[RawStreamMsg]:
        state = (await js.stream_info(PAYMENT)).state
        places = range(state.first_seq, state.last_seq + 1)
        return [await js.get_msg(PAYMENT, place) for place in places]

    return [
        decode_message(raw.data or b"")
        for raw in with_jetstream(url, read)
        if tenant is None or tenant_of(raw.subject or "") == tenant
    ]
