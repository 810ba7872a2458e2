"""A real service on a loopback port, for sync tests: PostgreSQL, writer, projections, uvicorn."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any, Literal, Self

import httpx
import psycopg
import uvicorn
from msgspec import Struct
from psycopg_pool import AsyncConnectionPool

from api.app import create_app
from api.keys import create_key, create_tenant
from api.routes import Deps
from api.sealing import SecretKeys, new_key
from ledger.store import Store
from ledger.writer import Writer
from projections.runner import Runner
from scrip.embedded import DatabaseUrls

Role = Literal["service", "admin", "reader"]
_numbers = itertools.count(1)
MIB = 1 << 20
WAIT_SECONDS_MAX = 60.0
CONNECTION_SECONDS_MAX = 15.0


class Answer(Struct):
    """What a request got."""

    status: int
    body: Any
    headers: httpx.Headers
    raw: bytes

    @property
    def code(self) -> str:
        """The problem's code."""
        code: str = self.body["code"]
        return code


class Client:
    """One tenant's view of the service, with a key of one role."""

    def __init__(self, base_url: str, secret: str) -> None:
        # Plain HTTP on loopback: certificates would take longer to load than a test takes.
        self.http = httpx.Client(
            base_url=base_url,
            headers={"Authorization": f"Bearer {secret}"},
            timeout=WAIT_SECONDS_MAX,
            verify=False,  # noqa: S501 - see above
            trust_env=False,
        )
        self.secret = secret

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> Answer:
        sent = dict(headers or {})
        if key is not None:
            sent["Idempotency-Key"] = key
        if body is not None:
            more["json"] = body
        return _answer(self.http.request(method, path, headers=sent, **more))

    def send_raw(
        self, method: str, path: str, headers: list[tuple[bytes, bytes]], body: Any
    ) -> Answer:
        """Send these headers, each as often as it is given, and these bytes."""
        return _answer(self.http.request(method, path, headers=headers, content=body))

    def get(self, path: str, **parameters: Any) -> Answer:
        return self.send("GET", path, params=parameters or None)

    def post(self, path: str, body: Any = None, *, key: str | None = None) -> Answer:
        return self.send("POST", path, {} if body is None else body, key=key or fresh("key"))

    def put(self, path: str, body: Any = None, *, key: str | None = None) -> Answer:
        return self.send("PUT", path, {} if body is None else body, key=key or fresh("key"))


def _answer(response: httpx.Response) -> Answer:
    is_json = "json" in response.headers.get("content-type", "")
    return Answer(
        status=response.status_code,
        body=response.json() if is_json else response.text,
        headers=response.headers,
        raw=response.content,
    )


class Tenant(Struct):
    """A tenant of the test's own, seen with a key of each role."""

    name: str
    service: Client
    admin: Client
    reader: Client

    def as_role(self, role: Role) -> Client:
        client: Client = getattr(self, role)
        return client

    def account(self, amount: str | None = None, name: str | None = None) -> str:
        """Open an account, with a grant if an amount is given, and return its path."""
        path = f"/v1/accounts/{name or fresh('acct')}"
        assert self.service.put(path).status == 201
        if amount is not None:
            made = self.service.post(f"{path}/grants", {"amount": amount, "kind": "paid"})
            assert made.status == 201, made.body
        return path

    def close(self) -> None:
        for client in (self.service, self.admin, self.reader):
            client.http.close()


def fresh(kind: str) -> str:
    """Return a name that no other test has."""
    return f"{kind}_{next(_numbers)}"


class Service:
    """The service, running, and all of it: its tables are made, and follow the ledger."""

    def __init__(
        self,
        urls: DatabaseUrls,
        connection_seconds: float = CONNECTION_SECONDS_MAX,
        **settings: Any,
    ) -> None:
        self.urls = urls
        self.connection_seconds = connection_seconds
        self.settings = {
            "position_wait_seconds": WAIT_SECONDS_MAX,
            "key_known_seconds": 0.3,
            "version": "0.1.0",
            "secrets_keys": SecretKeys.parse(new_key("test")),
            **settings,
        }
        self.base_url = ""
        self._clients: list[Client] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _start(self) -> None:
        self.store = Store.open(self.urls.app_url)
        self._stack.callback(self.store.close)
        self.writer = self._stack.enter_context(Writer(self.store))
        self.runner = Runner(self.store)
        self.runner.start()
        self._stack.callback(self.runner.close)
        pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
            self.urls.app_url,
            min_size=1,
            max_size=8,
            open=False,
            timeout=self.connection_seconds,
            kwargs={"autocommit": True, "options": "-c statement_timeout=15000 -c timezone=UTC"},
        )
        self.app = create_app(Deps(writer=self.writer, pool=pool, **self.settings))
        self._stack.enter_context(self._serving())
        self._stack.callback(self._hang_up)
        self._wait_until_ready()

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def _serving(self) -> Iterator[None]:
        config = uvicorn.Config(
            self.app, host="127.0.0.1", port=0, log_config=None, access_log=False, lifespan="on"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, name="uvicorn")
        thread.start()
        try:
            deadline = time.monotonic() + WAIT_SECONDS_MAX
            while not server.started:
                assert time.monotonic() < deadline, "the server does not start"
                assert thread.is_alive()
                time.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            self.base_url = f"http://127.0.0.1:{port}"
            yield
        finally:
            server.should_exit = True
            thread.join()

    def _wait_until_ready(self) -> None:
        """Wait for the projections' tables: until they are made, reads are refused."""
        client = self._seen_by("none")
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while (ready := client.get("/health/ready")).status != 200:
            assert time.monotonic() < deadline, ready.body
            time.sleep(0.02)
        client.http.close()

    def _seen_by(self, secret: str) -> Client:
        client = Client(self.base_url, secret)
        self._clients = [one for one in self._clients if not one.http.is_closed]
        self._clients.append(client)
        return client

    def _hang_up(self) -> None:
        """Close what a test that failed has left open: it would fail the next one too."""
        for client in self._clients:
            client.http.close()

    def tenant(self, name: str | None = None) -> Tenant:
        """Make a tenant, with a key of each role."""
        name = name or fresh("tenant")
        with self.database() as connection:
            create_tenant(connection, name, "test")
        return Tenant(
            name=name,
            service=self.client(name, "service"),
            admin=self.client(name, "admin"),
            reader=self.client(name, "reader"),
        )

    def client(self, tenant: str, role: Role) -> Client:
        """Return a client with a new key."""
        with self.database() as connection:
            _, secret = create_key(connection, tenant, role)
        return self._seen_by(secret)

    @contextlib.contextmanager
    def database(self) -> Iterator[psycopg.Connection[Any]]:
        """Open the database as the services' role."""
        with psycopg.connect(self.urls.app_url, autocommit=True) as connection:
            yield connection
