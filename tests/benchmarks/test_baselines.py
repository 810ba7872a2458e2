"""What Scrip is compared with is correct: else it would be no comparison."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from uuid import UUID

import httpx
import pytest

from benchmarks.baselines import naive_http
from benchmarks.baselines.aggregates import (
    CAPTURED,
    GRANTED,
    RESERVED,
    SETTINGS,
    AggregateLoad,
    Insufficient,
)
from scrip.embedded import DatabaseUrls, EmbeddedPostgres

MICRO = 1_000_000
TOKEN = "known"
RESERVATIONS = "/v1/accounts/account-0/reservations"
_numbers = itertools.count(1)


@pytest.fixture
def database(postgres_server: EmbeddedPostgres) -> Iterator[DatabaseUrls]:
    name = f"baseline_{next(_numbers)}"
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)


@asynccontextmanager
async def naive(url: str, granted: int) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the baseline with one account of so many credits."""
    naive_http.prepare(url, 1, granted * MICRO)
    app = naive_http.create_app(url, TOKEN)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://baseline") as client,
    ):
        yield client


async def post(client: httpx.AsyncClient, path: str, amount: str, key: str) -> httpx.Response:
    headers = {"Idempotency-Key": key, "Authorization": f"Bearer {TOKEN}"}
    return await client.post(path, json={"amount": amount}, headers=headers)


def test_the_naive_service_never_spends_more_than_there_is(database: DatabaseUrls) -> None:
    async def scenario() -> list[int]:
        async with naive(database.owner_url, 10) as client:
            asked = [post(client, RESERVATIONS, "3", f"key-{n}") for n in range(8)]
            return [answer.status_code for answer in await asyncio.gather(*asked)]

    assert sorted(asyncio.run(scenario())) == [201] * 3 + [402] * 5


def test_the_naive_service_knows_one_key(database: DatabaseUrls) -> None:
    async def scenario() -> list[int]:
        async with naive(database.owner_url, 10) as client:
            bearers = [{"Authorization": f"Bearer {TOKEN}x"}, {}]
            answers = [
                await client.post(RESERVATIONS, json={"amount": "3"}, headers=headers)
                for headers in bearers
            ]
            return [answer.status_code for answer in answers]

    assert asyncio.run(scenario()) == [401, 401]


def test_the_naive_service_does_a_key_once_however_often_it_is_sent(
    database: DatabaseUrls,
) -> None:
    async def scenario() -> None:
        async with naive(database.owner_url, 10) as client:
            asked = [post(client, RESERVATIONS, "3", "reserve") for _ in range(5)]
            reserved = await asyncio.gather(*asked)
            assert {answer.status_code for answer in reserved} == {201}
            (name,) = {answer.json()["id"] for answer in reserved}
            path = f"{RESERVATIONS}/{name}/capture"
            asked = [post(client, path, "2", "capture") for _ in range(5)]
            assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}
            assert (await post(client, path, "2", "another")).status_code == 409
            assert (await post(client, RESERVATIONS, "4", "reserve")).status_code == 422

    asyncio.run(scenario())
    naive_http.check(database.owner_url, commands=2, granted=10 * MICRO)


def pair(load: AggregateLoad, wallet_id: UUID, name: str) -> None:
    load.wallets.reserve(wallet_id, name, RESERVED)
    load.wallets.capture(wallet_id, name, CAPTURED)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=list(SETTINGS))
def test_the_aggregates_do_a_name_once_and_lose_no_race(
    database: DatabaseUrls, settings: dict[str, str]
) -> None:
    load = AggregateLoad(database, settings, accounts=1, seconds=0.2)
    (wallet_id,) = load.ids
    try:
        for _ in range(2):
            load.wallets.reserve(wallet_id, "job", RESERVED)
        for _ in range(2):
            load.wallets.capture(wallet_id, "job", CAPTURED)
        load.wallets.reserve(wallet_id, "job", RESERVED)
        with pytest.raises(Insufficient):
            load.wallets.reserve(wallet_id, "too much", GRANTED)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: pair(load, wallet_id, f"job-{number}"), range(20)))
        load.pairs = 21
        load.check()
    finally:
        load.close()
