"""API keys at payment providers: put, shown as a hint, opened for those who ask with them."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool
from pydantic import SecretStr

from api.keys import create_tenant
from api.problems import SecretsUnreadable
from api.providers.keys import SEALED_AS, Processor, ProviderKeys, put_key, reseal_keys
from api.sealing import CannotOpen, Place, Sealed, SecretKeys, new_key
from scrip.embedded import DatabaseUrls
from tests.api.room import Service, Tenant, fresh

STRIPE = "sk_test_CanaryOfStripeKeys01"
ASAAS = "$aact_hmlg_CanaryOfAsaas::$aach_1"
PATH = "/v1/providers/stripe"
SELECT_ALL = "SELECT row_to_json(k)::text FROM scrip.provider_keys k WHERE tenant = %(tenant)s"
SELECT_RECEIPTS = "SELECT convert_from(answer, 'UTF8') FROM scrip.changes WHERE tenant = %(tenant)s"


def opened(
    service: Service, tenant: str, provider: Processor, keys: SecretKeys | None = None
) -> SecretStr | None:
    """Return the key as those see it who ask with it."""

    async def find() -> SecretStr | None:
        pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
            service.urls.app_url, min_size=1, max_size=1, open=False
        )
        async with pool:
            return await ProviderKeys(pool, keys or service.settings["secrets_keys"]).of(
                tenant, provider
            )

    return asyncio.run(find())


def test_a_key_is_put_used_changed_and_removed(service: Service, tenant: Tenant) -> None:
    assert opened(service, tenant.name, "stripe") is None
    put = tenant.admin.put(PATH, {"api_key": STRIPE})
    assert put.status == 200
    assert (put.body["hint"], put.body["livemode"]) == ("sk_test_…ys01", False)
    assert tenant.admin.get(PATH).body == put.body
    assert opened(service, tenant.name, "stripe") == SecretStr(STRIPE)
    assert opened(service, tenant.name, "asaas") is None
    changed = tenant.admin.put(PATH, {"api_key": "rk_test_another_key_0001"})
    assert changed.body["hint"] == "rk_test_…0001"
    assert opened(service, tenant.name, "stripe") == SecretStr("rk_test_another_key_0001")
    gone = tenant.admin.send("DELETE", PATH, key="d")
    assert gone.body == {"provider": "stripe", "deleted": True}
    assert tenant.admin.get(PATH).code == "provider_key_not_found"
    assert tenant.admin.send("DELETE", PATH, key="d2").code == "provider_key_not_found"
    assert tenant.admin.send("DELETE", PATH, key="d").body == gone.body


def test_a_key_is_stored_and_told_nowhere(service: Service, tenant: Tenant) -> None:
    answers = [
        tenant.admin.put("/v1/providers/asaas", {"api_key": ASAAS}),
        tenant.admin.get("/v1/providers/asaas"),
    ]
    with service.database() as connection:
        rows = connection.execute(SELECT_ALL, {"tenant": tenant.name}).fetchall()
        receipts = connection.execute(SELECT_RECEIPTS, {"tenant": tenant.name}).fetchall()
    assert rows
    assert receipts
    assert "CanaryOfAsaas" not in str([rows, receipts, [answer.body for answer in answers]])


@pytest.mark.parametrize(
    ("mode", "provider", "key", "rule"),
    [
        ("test", "stripe", "sk_live_of_the_wrong_mode_1", "must begin with sk_test_ or rk_test_"),
        ("live", "stripe", STRIPE, "must begin with sk_live_ or rk_live_"),
        ("test", "stripe", "pk_test_a_publishable_key_1", "must begin with sk_test_ or rk_test_"),
        ("test", "asaas", "$aact_prod_of_the_wrong_mode", "must begin with $aact_hmlg_"),
        ("live", "asaas", ASAAS, "must begin with $aact_prod_"),
        ("test", "stripe", "sk_test_short", "must be whole"),
        ("test", "stripe", "sk_test_with a space in it", "must be whole"),
        ("test", "stripe", "sk_test_with_a_line_end\n", "must be whole"),
        ("test", "clerk", STRIPE, "must be stripe or asaas"),
    ],
)
def test_a_key_that_cannot_be_the_tenants_is_refused_and_not_told(
    service: Service, mode: Literal["live", "test"], provider: str, key: str, rule: str
) -> None:
    name = fresh("tenant")
    with service.database() as connection:
        create_tenant(connection, name, mode)
    admin = service.client(name, "admin")
    refused = admin.put(f"/v1/providers/{provider}", {"api_key": key})
    assert (refused.status, refused.code) == (422, "invalid_request")
    assert refused.body["errors"][0]["message"].startswith(rule)
    assert key not in refused.raw.decode()
    admin.http.close()


def test_another_tenant_sees_and_uses_nothing_of_it(service: Service, tenant: Tenant) -> None:
    tenant.admin.put(PATH, {"api_key": STRIPE})
    stranger = service.tenant()
    assert stranger.admin.get(PATH).code == "provider_key_not_found"
    assert opened(service, stranger.name, "stripe") is None
    with service.database() as connection:
        # All of it, with its nonce: only the tenant that it was sealed for is another.
        connection.execute(
            "UPDATE scrip.provider_keys SET tenant = %(to)s WHERE tenant = %(of)s",
            {"to": stranger.name, "of": tenant.name},
        )
    with pytest.raises(SecretsUnreadable):
        opened(service, stranger.name, "stripe")
    stranger.close()


def test_without_a_key_to_encrypt_with_none_is_taken(own_database: DatabaseUrls) -> None:
    with Service(own_database, secrets_keys=None) as bare:
        tenant = bare.tenant()
        assert tenant.admin.put(PATH, {"api_key": STRIPE}).code == "secrets_key_missing"
        tenant.close()


def test_the_keys_that_encrypt_can_be_exchanged(service: Service, tenant: Tenant) -> None:
    tenant.admin.put(PATH, {"api_key": STRIPE})
    new = SecretKeys.parse(new_key("new"))
    with pytest.raises(SecretsUnreadable):
        opened(service, tenant.name, "stripe", new)

    old_text, new_text = new_key("old"), new_key("newest")
    old, both, newest = map(SecretKeys.parse, (old_text, f"{new_text},{old_text}", new_text))

    async def rotate() -> list[Any]:
        async with await AsyncConnection.connect(service.urls.app_url) as connection:
            await put_key(
                connection, old, tenant=tenant.name, provider="asaas", value=SecretStr(ASAAS)
            )
            done = await reseal_keys(connection, both)
            return [done.resealed, f"{tenant.name}/stripe" in done.unreadable]

    assert asyncio.run(rotate()) == [1, True]
    assert opened(service, tenant.name, "asaas", newest) == SecretStr(ASAAS)


def test_a_key_is_no_webhook_secret(service: Service, tenant: Tenant) -> None:
    tenant.admin.put(PATH, {"api_key": STRIPE})
    with psycopg.connect(service.urls.app_url) as connection:
        row = connection.execute(
            "SELECT key_id, nonce, ciphertext FROM scrip.provider_keys WHERE tenant = %(t)s",
            {"t": tenant.name},
        ).fetchone()
    assert row is not None
    sealed = Sealed(key_id=row[0], nonce=row[1], ciphertext=row[2])
    place = Place(tenant=tenant.name, provider="stripe", endpoint="", secret=SEALED_AS)
    with pytest.raises(CannotOpen):
        service.settings["secrets_keys"].open(place, sealed)
