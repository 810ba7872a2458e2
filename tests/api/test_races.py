"""Many at once: each credit is spent once, and whoever goes away loses nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from api.crossing import Crossing
from ledger.domain.commands import Deduct, PutAccount
from ledger.domain.entities import Charge
from ledger.domain.errors import AccountNotFound, StoreUnavailable
from ledger.records import Order
from ledger.store import Store
from ledger.writer import Writer
from scrip.embedded import DatabaseUrls
from tests.api.room import WAIT_SECONDS_MAX, Client, Service, Tenant, fresh


async def _reserve_at_once(client: Client, base_url: str, account: str, count: int) -> list[int]:
    headers = {"Authorization": f"Bearer {client.secret}"}
    async with httpx.AsyncClient(
        base_url=base_url, headers=headers, timeout=WAIT_SECONDS_MAX
    ) as http:

        async def reserve(number: int) -> int:
            answer = await http.post(
                f"{account}/reservations",
                json={"amount": "1"},
                headers={"Idempotency-Key": f"race-{number}"},
            )
            return answer.status_code

        return await asyncio.gather(*(reserve(number) for number in range(count)))


def test_of_two_hundred_reservations_against_ten_credits_ten_are_accepted(
    service: Service, tenant: Tenant
) -> None:
    account = tenant.account("10")
    statuses = asyncio.run(_reserve_at_once(tenant.service, service.base_url, account, 200))
    assert sorted(statuses) == [201] * 10 + [402] * 190
    balance = tenant.service.get(f"{account}/balance", consistency="strong").body
    assert (balance["available"], balance["reserved"]) == ("0", "10")


def test_a_key_used_at_once_by_many_has_one_effect(service: Service, tenant: Tenant) -> None:
    account = tenant.account("10")

    async def deduct() -> list[bytes]:
        headers = {
            "Authorization": f"Bearer {tenant.service.secret}",
            "Idempotency-Key": "once",
        }
        async with httpx.AsyncClient(
            base_url=service.base_url, headers=headers, timeout=WAIT_SECONDS_MAX
        ) as http:
            answers = await asyncio.gather(
                *(http.post(f"{account}/deductions", json={"amount": "1"}) for _ in range(30))
            )
        return [answer.content for answer in answers]

    assert len(set(asyncio.run(deduct()))) == 1
    balance = tenant.service.get(f"{account}/balance", consistency="strong").body
    assert balance["available"] == "9"


def test_a_command_is_done_although_its_caller_hangs_up(service: Service, tenant: Tenant) -> None:
    account = tenant.account("10")
    where = urlsplit(service.base_url)
    body = json.dumps({"amount": "1"})
    request = (
        f"POST {account}/deductions HTTP/1.1\r\nHost: {where.netloc}\r\n"
        f"Authorization: Bearer {tenant.service.secret}\r\nIdempotency-Key: gone\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )
    assert where.hostname
    assert where.port
    with socket.create_connection((where.hostname, where.port)) as connection:
        connection.sendall(request.encode())
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while tenant.service.get(f"{account}/balance", consistency="strong").body["consumed"] == "0":
        assert time.monotonic() < deadline, "an accepted command was lost"
        time.sleep(0.01)
    again = tenant.service.post(f"{account}/deductions", {"amount": "1"}, key="gone")
    assert again.headers["idempotent-replayed"] == "true"


def test_a_cancelled_wait_does_not_cancel_the_command(service: Service) -> None:
    account = fresh("acct")
    tenant = fresh("tenant")

    def order(command: PutAccount | Deduct, key: str) -> Order:
        return Order(tenant=tenant, account=account, command=command, key=key, by="key:test")

    async def cancel() -> None:
        crossing = Crossing(service.writer)
        with pytest.raises(AccountNotFound):
            await crossing.command(order(Deduct(charge=Charge(amount=1)), "early"))
        task = asyncio.create_task(crossing.command(order(PutAccount(), "open")))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        outcome = await crossing.command(order(PutAccount(), "open"))
        assert outcome.replayed
        assert (await crossing.view(tenant, account)).opened

    asyncio.run(cancel())
    assert service.writer.alive


def test_a_loop_that_has_ended_does_not_hurt_the_writer(service: Service) -> None:
    account, tenant = fresh("acct"), fresh("tenant")
    order = Order(tenant=tenant, account=account, command=PutAccount(), key="open", by="key:test")

    async def leave() -> None:
        asyncio.ensure_future(Crossing(service.writer).command(order))  # noqa: RUF006 - to lose it
        await asyncio.sleep(0)

    asyncio.run(leave())
    assert service.writer.submit(order).result(WAIT_SECONDS_MAX).recorded is not None
    assert service.writer.alive


def test_a_database_that_is_frozen_is_given_up_and_the_key_tells_what_became(
    own_database: DatabaseUrls,
) -> None:
    """A stopped backend's kernel still acknowledges: neither keepalives nor its timeouts help."""
    order = Order(tenant="t", account="a", command=PutAccount(), key="open", by="key:test")
    store = Store.open(own_database.app_url)
    backends = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND usename = %s"
    )
    with Writer(store, command_timeout_seconds=0.2) as writer:
        first = Order(tenant="t", account="b", command=PutAccount(), key="open", by="key:test")
        assert writer.submit(first).result(WAIT_SECONDS_MAX).recorded is not None
        with psycopg.connect(own_database.superuser_url) as connection:
            pids = [pid for (pid,) in connection.execute(backends, ("scrip_app",))]
        assert pids
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(StoreUnavailable):
                asyncio.run(Crossing(writer, grace_seconds=0.3).command(order))
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        assert writer.submit(order).result(WAIT_SECONDS_MAX).replayed
    store.close()
