"""Keys: how they are spelled, who may use them, and for how long."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from api.keys import (
    UnknownKey,
    UnknownTenant,
    checksum,
    create_key,
    create_tenant,
    hash_of,
    is_spelled_right,
    list_keys,
    list_tenants,
    mint,
    revoke_key,
)
from tests.api.room import WAIT_SECONDS_MAX, Client, Service, Tenant, fresh


def _wrong_keys(secret: str) -> dict[str, bytes]:
    body = "scrip_test_" + "A" * 37
    return {
        "no scheme": secret.encode(),
        "another scheme": b"Basic " + secret.encode(),
        "empty": b"",
        "no key": b"Bearer",
        "twice": f"Bearer Bearer {secret}".encode(),
        "wrong checksum": f"Bearer {secret[:-1]}{'0' if secret[-1] != '0' else '1'}".encode(),
        "another environment": f"Bearer {secret.replace('_test_', '_live_')}".encode(),
        "unknown": f"Bearer {body}{checksum(body)}".encode(),
        "lower case": f"Bearer {secret.lower()}".encode(),
        "spaces": f"Bearer  {secret}".encode(),
        "an emoji": "Bearer scrip_test_😀".encode(),
        "a quotation mark": f"Bearer {secret}'--".encode(),
        "ten kilobytes": b"Bearer " + b"x" * 10_000,
    }


@pytest.mark.parametrize("case", _wrong_keys(mint("test")))
def test_whoever_is_not_known_gets_the_same_answer(tenant: Tenant, case: str) -> None:
    value = _wrong_keys(tenant.admin.secret)[case]
    answer = tenant.admin.http.get("/v1/accounts", headers=[(b"Authorization", value)])
    assert answer.status_code == 401
    problem = answer.json()
    del problem["request_id"]
    assert problem == {
        "type": "urn:scrip:problem:unauthenticated",
        "title": "Unauthenticated",
        "status": 401,
        "detail": "The request needs a valid API key: `Authorization: Bearer scrip_…`.",
        "code": "unauthenticated",
        "retryable": False,
    }


def test_two_authorization_headers_are_refused(tenant: Tenant) -> None:
    bearer = f"Bearer {tenant.admin.secret}"
    headers = [("Authorization", bearer), ("Authorization", bearer)]
    assert tenant.admin.http.get("/v1/accounts", headers=headers).status_code == 401


def test_a_key_in_the_address_is_refused(tenant: Tenant) -> None:
    assert tenant.admin.get("/v1/accounts", key=tenant.admin.secret).status == 422


def test_a_key_is_a_prefix_chance_and_a_checksum() -> None:
    secret = mint("live")
    assert secret.startswith("scrip_live_")
    assert len(secret) == len("scrip_live_") + 37 + 6
    assert is_spelled_right(secret)
    assert not is_spelled_right(secret[:-1])
    assert not is_spelled_right(secret.swapcase())
    assert mint("live") != secret


def test_only_a_hash_of_a_key_is_kept(service: Service, tenant: Tenant) -> None:
    with service.database() as connection:
        _, secret = create_key(connection, tenant.name, "service", "the worker")
        rows = connection.execute(
            "SELECT k::text, secret_hash FROM scrip.keys k WHERE tenant = %(tenant)s",
            {"tenant": tenant.name},
        ).fetchall()
        assert hash_of(secret) in {digest for _, digest in rows}
        random_part = secret.split("_")[2]
        assert not any(random_part[:12] in text for text, _ in rows)
        (key,) = (key for key in list_keys(connection, tenant.name) if key.label)
    assert (key.label, key.role) == ("the worker", "service")
    assert key.hint.endswith(secret[-4:])


def test_a_revoked_key_is_refused_everywhere_soon(service: Service, tenant: Tenant) -> None:
    with service.database() as connection:
        name, secret = create_key(connection, tenant.name, "reader")
        client = Client(service.base_url, secret)
        assert client.get("/v1/accounts").status == 200
        revoked = revoke_key(connection, name)
        assert revoke_key(connection, name).revoked_at == revoked.revoked_at
        with pytest.raises(UnknownKey):
            revoke_key(connection, "key_none")
    time.sleep(0.4)
    assert client.get("/v1/accounts").status == 401
    client.http.close()


def test_a_key_is_refused_from_the_moment_it_expires(service: Service, tenant: Tenant) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=5)
    with service.database() as connection:
        _, secret = create_key(connection, tenant.name, "reader", expires_at=soon)
    client = Client(service.base_url, secret)
    assert client.get("/v1/accounts").status == 200
    time.sleep(max(0.0, (soon - datetime.now(UTC)).total_seconds()) + 0.05)
    assert client.get("/v1/accounts").status == 401
    client.http.close()


def test_the_last_use_of_a_key_is_noted(service: Service, tenant: Tenant) -> None:
    tenant.reader.get("/v1/accounts")
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while True:
        with service.database() as connection:
            used = [key.role for key in list_keys(connection, tenant.name) if key.last_used_at]
        if used == ["reader"]:
            return
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_there_is_no_key_without_a_tenant(service: Service) -> None:
    with service.database() as connection:
        with pytest.raises(UnknownTenant):
            create_key(connection, "nobody", "admin")
        name = fresh("tenant")
        create_tenant(connection, name, "live")
        assert name in {tenant.tenant for tenant in list_tenants(connection)}
        assert create_key(connection, name, "admin")[1].startswith("scrip_live_")
        with pytest.raises(psycopg.errors.UniqueViolation):
            create_tenant(connection, name, "test")
