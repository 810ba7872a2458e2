"""`scrip tenants` and `scrip keys`, as an operator uses them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from tests.api.room import Client, Service, fresh


def _scrip(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DATABASE_URL": service.urls.app_url}
    return subprocess.run(
        [sys.executable, "-m", "scrip", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_key_is_made_used_listed_and_revoked(service: Service) -> None:
    tenant = fresh("acme")
    assert _scrip(service, "keys", "create", "--tenant", tenant, "--role", "admin").returncode == 1
    assert _scrip(service, "tenants", "create", tenant, "--mode", "test").returncode == 0
    assert _scrip(service, "tenants", "create", tenant).returncode == 1
    made = _scrip(
        service, "keys", "create", "--tenant", tenant, "--role", "service", "--expires-in-days", "9"
    )
    assert made.returncode == 0, made.stderr
    key = json.loads(made.stdout)
    assert key["secret"] not in made.stderr
    client = Client(service.base_url, key["secret"])
    assert client.put("/v1/accounts/a").status == 201
    (listed,) = _scrip(service, "keys", "list", "--tenant", tenant).stdout.splitlines()
    assert json.loads(listed)["id"] == key["id"]
    assert key["secret"] not in listed
    assert json.loads(listed)["expires_at"]
    assert _scrip(service, "keys", "revoke", key["id"]).returncode == 0
    assert _scrip(service, "keys", "revoke", "key_none").returncode == 1
    time.sleep(0.4)
    assert client.get("/v1/accounts").status == 401
    client.http.close()
    names = [
        json.loads(line)["tenant"]
        for line in _scrip(service, "tenants", "list").stdout.splitlines()
    ]
    assert tenant in names
