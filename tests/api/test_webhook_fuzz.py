"""Whatever is sent to the route: no 5xx, and nothing is stored but what was signed.

Through the whole application, with NATS and PostgreSQL, but without sockets.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import pytest
from psycopg_pool import AsyncConnectionPool
from starlette.types import ASGIApp, Message

from api.app import create_app
from api.routes import Deps
from scrip.embedded import EmbeddedNats
from tests.api.nats_room import way_to
from tests.api.receiving import at_the_time_of_the_tests, endpoint_of, make_streams, messages
from tests.api.room import Service, Tenant
from tests.api.webhooks.fuzzing import REQUESTS, SEED, Request, is_believed, request_of
from tests.api.webhooks.senders import PROVIDERS
from tests.consumers.room import until

AT_ONCE = 50
PATIENCE_SECONDS = 60
MAY_BE = {200, 400, 401, 413}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_no_request_is_a_5xx_and_nothing_unsigned_is_stored(
    nats_service: Service, nats_server: EmbeddedNats, provider: str
) -> None:
    make_streams(nats_server.url)
    with at_the_time_of_the_tests(nats_service):
        tenant = nats_service.tenant()
        path = endpoint_of(tenant, provider)
        met, taken = asyncio.run(_sent(nats_service, nats_server, path, provider))
        stored = messages(nats_server.url, tenant.name)
        _check_nothing_else_came(tenant, {message.endpoint for message in stored}, path)
        tenant.close()
    assert set(met) == MAY_BE
    assert met[200] > REQUESTS / 10
    # Each answer of 200 is in JetStream, and nothing else is; the same bytes are there once.
    assert {message.id for message in stored} == taken
    assert len(stored) == len(taken)


def _check_nothing_else_came(tenant: Tenant, endpoints: set[str], path: str) -> None:
    assert endpoints == {path.rpartition("/")[2]}
    assert tenant.admin.get("/health/ready").status == 200


async def _sent(
    service: Service, nats: EmbeddedNats, path: str, provider: str
) -> tuple[Counter[int], set[str]]:
    """Send all requests; return which answers there were, and the ids of what was taken."""
    chance = random.Random(f"{SEED} {provider}")  # noqa: S311 - Told by its seed, to be repeated.
    met: Counter[int] = Counter()
    taken: set[str] = set()
    left = iter(range(REQUESTS))

    async def send_some(app: ASGIApp) -> None:
        for _ in left:
            headers, body = request_of(chance, provider)
            status, answer = await _answer(app, path, (headers, body))
            met[status] += 1
            told = json.loads(answer)
            assert status in MAY_BE, (status, told, headers, body[:500])
            if status == HTTPStatus.OK:
                assert is_believed(provider, headers, body), (headers, body[:500])
                taken.add(told["id"])

    async with (
        asyncio.timeout(PATIENCE_SECONDS),
        _application(service, nats) as app,
        asyncio.TaskGroup() as senders,
    ):
        for _ in range(AT_ONCE):
            senders.create_task(send_some(app))
    return met, taken


@asynccontextmanager
async def _application(service: Service, nats: EmbeddedNats) -> AsyncIterator[ASGIApp]:
    """Run another application of the service on this loop, without a server in front of it."""
    pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
        service.urls.app_url, min_size=1, open=False, kwargs={"autocommit": True}
    )
    way = way_to(nats.url)
    keys = service.settings["secrets_keys"]
    app = create_app(Deps(writer=service.writer, pool=pool, secrets_keys=keys, nats=way))
    told: asyncio.Queue[Message] = asyncio.Queue()
    heard: asyncio.Queue[Message] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    living = asyncio.create_task(app(scope, told.get, heard.put))
    await told.put({"type": "lifespan.startup"})
    assert (await heard.get())["type"] == "lifespan.startup.complete"
    try:
        await until(lambda: way.client is not None)
        yield app
    finally:
        await told.put({"type": "lifespan.shutdown"})
        await living


async def _answer(app: ASGIApp, path: str, request: Request) -> tuple[int, bytes]:
    headers, body = request
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        # A server hands names over in lower case.
        "headers": [(name.lower(), value) for name, value in headers],
    }
    answer: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        answer.append(message)

    await app(scope, receive, send)
    start, content = answer
    return start["status"], content["body"]
