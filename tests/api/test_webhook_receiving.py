"""Whoever receives webhooks finds the endpoint and its secrets, and asks the database seldom."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, LiteralString

import pytest
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from api.problems import SecretsUnreadable
from api.sealing import SecretKeys, new_key
from api.webhook_endpoints import reseal
from api.webhook_receiving import KNOWN_MAX, LiveEndpoint, Receivers, secrets_of
from ledger.domain.errors import StoreUnavailable
from scrip.embedded import DatabaseUrls
from tests.api.room import Service, Tenant

ENDPOINTS = "/v1/webhook-endpoints"
STRIPE = "whsec_a1b2c3d4e5f6g7h8i9j0k1l2"
OTHER = "whsec_l2k1j0i9h8g7f6e5d4c3b2a1"


def _keys(service: Service) -> SecretKeys:
    keys = service.settings["secrets_keys"]
    assert isinstance(keys, SecretKeys)
    return keys


def _make(tenant: Tenant, secret: str = STRIPE) -> str:
    made = tenant.admin.post(ENDPOINTS, {"provider": "stripe", "secret": secret})
    return str(made.body["id"])


def _asked(service: Service, ask: Callable[[AsyncConnection[Any]], Awaitable[Any]]) -> Any:
    async def asking() -> Any:
        url = service.urls.app_url
        async with await AsyncConnection.connect(url, autocommit=True) as connection:
            return await ask(connection)

    return asyncio.run(asking())


def _live(service: Service, endpoint: str, keys: SecretKeys | None = None) -> LiveEndpoint | None:
    keys = keys or _keys(service)
    found: LiveEndpoint | None = _asked(service, lambda c: secrets_of(c, keys, endpoint, "stripe"))
    return found


def _execute(service: Service, query: LiteralString, **parameters: Any) -> None:
    with service.database() as connection:
        connection.execute(query, parameters)


def _revealed(found: LiveEndpoint | None) -> list[str]:
    return [secret.value.get_secret_value() for secret in found.secrets] if found else []


def test_the_secrets_that_are_good_now_are_told(service: Service, tenant: Tenant) -> None:
    endpoint = _make(tenant)
    tenant.admin.post(f"{ENDPOINTS}/{endpoint}/secrets", {"secret": OTHER})
    found = _live(service, endpoint)
    assert found is not None
    assert (found.tenant, found.provider, found.livemode) == (tenant.name, "stripe", False)
    assert _revealed(found) == [STRIPE, OTHER]
    assert STRIPE not in repr(found)
    _execute(
        service,
        "UPDATE scrip.webhook_secrets SET expires_at = now() WHERE id = %(s)s",
        s=found.secrets[0].id,
    )
    assert _revealed(_live(service, endpoint)) == [OTHER]


def test_what_takes_nothing_is_not_there(service: Service, tenant: Tenant) -> None:
    endpoint, bare = _make(tenant), tenant.admin.post(ENDPOINTS, {"provider": "stripe"}).body["id"]
    keys = _keys(service)
    assert _live(service, bare) is None
    assert _live(service, "whe_" + "0" * 26) is None
    assert _asked(service, lambda c: secrets_of(c, keys, endpoint, "users")) is None
    tenant.admin.send("PATCH", f"{ENDPOINTS}/{endpoint}", {"state": "disabled"}, key="p")
    assert _live(service, endpoint) is None


def test_the_ciphertexts_of_two_tenants_cannot_be_exchanged(
    service: Service, tenant: Tenant
) -> None:
    stranger = service.tenant()
    one, other = _make(tenant, STRIPE), _make(stranger, OTHER)
    # Uniqueness of nonces stands in the way of a plain swap; whoever swaps would go around it.
    with service.database() as connection:
        rows = connection.execute(
            "DELETE FROM scrip.webhook_secrets WHERE endpoint = ANY(%(ids)s)"
            " RETURNING endpoint, id, key_id, nonce, ciphertext, hint",
            {"ids": [one, other]},
        ).fetchall()
        assert len(rows) == 2
        (a, b) = rows
        for place, sealed in ((a, b), (b, a)):
            connection.execute(
                "INSERT INTO scrip.webhook_secrets (endpoint, id, key_id, nonce, ciphertext, hint)"
                " VALUES (%s, %s, %s, %s, %s, %s)",
                (*place[:2], *sealed[2:]),
            )
    for endpoint in (one, other):
        with pytest.raises(SecretsUnreadable):
            _live(service, endpoint)
    stranger.close()


@pytest.mark.parametrize("change", ["tenant", "provider"])
def test_an_endpoint_moved_to_another_tenant_or_provider_has_lost_its_secrets(
    service: Service, tenant: Tenant, change: str
) -> None:
    stranger, endpoint = service.tenant(), _make(tenant)
    if change == "tenant":
        move: LiteralString = "UPDATE scrip.webhook_endpoints SET tenant = %(to)s WHERE id = %(id)s"
        _execute(service, move, to=stranger.name, id=endpoint)
    else:
        move = "UPDATE scrip.webhook_endpoints SET provider = 'users' WHERE id = %(id)s"
        _execute(service, move, id=endpoint)
    provider: Any = "stripe" if change == "tenant" else "users"
    keys = _keys(service)
    with pytest.raises(SecretsUnreadable):
        _asked(service, lambda c: secrets_of(c, keys, endpoint, provider))
    stranger.close()


def test_one_that_cannot_be_read_does_not_hide_the_others(service: Service, tenant: Tenant) -> None:
    endpoint = _make(tenant)
    tenant.admin.post(f"{ENDPOINTS}/{endpoint}/secrets", {"secret": OTHER})
    _execute(
        service,
        "UPDATE scrip.webhook_secrets SET ciphertext = ciphertext || '\\x00'"
        " WHERE endpoint = %(id)s AND hint LIKE '%%k1l2'",
        id=endpoint,
    )
    assert _revealed(_live(service, endpoint)) == [OTHER]
    with pytest.raises(SecretsUnreadable):
        _live(service, endpoint, SecretKeys.parse(new_key("another")))


def _pool(service: Service) -> AsyncConnectionPool[Any]:
    return AsyncConnectionPool(
        service.urls.app_url, min_size=1, max_size=4, open=False, kwargs={"autocommit": True}
    )


def test_the_database_is_asked_once_however_many_ask(service: Service, tenant: Tenant) -> None:
    endpoint = _make(tenant)

    async def receive() -> None:
        async with _pool(service) as pool:
            receivers = Receivers(pool, _keys(service), known_seconds=0.2)
            found = await asyncio.gather(*[receivers.find(endpoint, "stripe") for _ in range(50)])
            assert {tuple(_revealed(one)) for one in found} == {(STRIPE,)}
            assert receivers.lookups == 1
            for strange in ("", "whe_1", "whe_" + "é" * 26, endpoint + "\n", "x" * 10_000):
                assert await receivers.find(strange, "stripe") is None
            assert receivers.lookups == 1
            disable = "UPDATE scrip.webhook_endpoints SET state = 'disabled' WHERE id = %(id)s"
            async with pool.connection() as connection:
                await connection.execute(disable, {"id": endpoint})
            await asyncio.sleep(0.25)
            assert await receivers.find(endpoint, "stripe") is None

    asyncio.run(receive())


def test_what_is_remembered_is_bounded_and_a_secret_ends_on_time(
    service: Service, tenant: Tenant
) -> None:
    endpoint = _make(tenant)

    async def receive() -> None:
        async with _pool(service) as pool:
            async with pool.connection() as connection:
                await connection.execute(
                    "UPDATE scrip.webhook_secrets SET expires_at = now() + interval '0.4 s'"
                    " WHERE endpoint = %(id)s",
                    {"id": endpoint},
                )
            receivers = Receivers(pool, _keys(service), known_seconds=60)
            assert _revealed(await receivers.find(endpoint, "stripe")) == [STRIPE]
            await asyncio.sleep(0.45)
            assert await receivers.find(endpoint, "stripe") is None
            assert receivers.lookups == 1
            for number in range(KNOWN_MAX + 50):
                await receivers.find(f"whe_{number:026d}", "stripe")
            assert len(receivers._known) == KNOWN_MAX

    asyncio.run(receive())


def test_a_failure_is_not_remembered(service: Service, tenant: Tenant) -> None:
    endpoint = _make(tenant)

    async def receive() -> None:
        pool = AsyncConnectionPool[AsyncConnection[Any]](
            service.urls.app_url, min_size=0, max_size=1, open=False, timeout=0.2
        )
        async with pool:
            receivers = Receivers(pool, _keys(service))
            async with pool.connection():
                with pytest.raises(StoreUnavailable):
                    await receivers.find(endpoint, "stripe")
            assert _revealed(await receivers.find(endpoint, "stripe")) == [STRIPE]

    asyncio.run(receive())


def test_after_a_rotation_the_old_key_can_go(own_database: DatabaseUrls) -> None:
    old, new = new_key("old"), new_key("new")
    only_old, both = SecretKeys.parse(old), SecretKeys.parse(f"{new},{old}")
    with Service(own_database, secrets_keys=only_old) as service:
        tenant = service.tenant()
        endpoint = _make(tenant)
        left = _asked(service, lambda c: reseal(c, SecretKeys.parse(new)))
        assert (left.resealed, len(left.unreadable)) == (0, 1)
        assert _revealed(_live(service, endpoint)) == [STRIPE]
        done = _asked(service, lambda c: reseal(c, both))
        assert (done.newest, done.resealed, done.unreadable) == ("new", 1, ())
        assert _revealed(_live(service, endpoint, SecretKeys.parse(new))) == [STRIPE]
        with pytest.raises(SecretsUnreadable):
            _live(service, endpoint, only_old)
        assert _asked(service, lambda c: reseal(c, both)).resealed == 0
        tenant.close()
