"""What a route is: one record, from which come its handler, its checks and its description.

Five kinds: a `Read` looks, a `Write` gives the ledger one command, a `Change` changes what is kept
beside the ledger, a `Hook` takes what others send in their own way, an `Ask` does anything else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Literal

from msgspec import Struct, structs
from nats.aio.client import Client
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from api.auth import KNOWN_SECONDS, Keys, Principal
from api.crossing import Crossing
from api.keys import AnyRole
from api.metrics import Metrics
from api.providers import stripe_api
from api.providers.asking import Providers
from api.sealing import SecretKeys
from api.webhook_receiving import Receivers
from ledger.domain.commands import Command
from ledger.domain.errors import (
    AccountBusy,
    IdempotencyMismatch,
    LedgerError,
    NewerEvents,
    Overloaded,
    StoreUnavailable,
)
from ledger.writer import Writer

ADMIN: Final[frozenset[AnyRole]] = frozenset({"admin"})
SPENDERS: Final[frozenset[AnyRole]] = frozenset({"admin", "service"})
READERS: Final[frozenset[AnyRole]] = frozenset({"admin", "service", "reader"})
END_USERS: Final[frozenset[AnyRole]] = frozenset({"account"})
"""Nobody else: an account's own key is the only one that says whose 'my' is."""
MIB: Final = 1 << 20
WRITE_REFUSALS: Final = (
    AccountBusy,
    IdempotencyMismatch,
    NewerEvents,
    Overloaded,
    StoreUnavailable,
)


class NatsWay(Struct):
    """The way to NATS, and how it is: `ok`, or what is wrong.

    `connect` returns once there is a connection, and keeps it up from then on. `tenant_of` tells
    the tenant in a subject; `payment_subject` is where payment messages of a tenant and a provider
    go. Past `requests_max` at a time, requests are refused as overloaded.
    """

    connect: Callable[[], Awaitable[Client]]
    tenant_of: Callable[[str], str]
    payment_subject: Callable[[str, str], str]
    requests_max: int = 4_096
    state: str = "is not connected"
    client: Client | None = None
    """The connection, while there is one; it may be broken, and being mended."""


class Deps(Struct, frozen=True, kw_only=True):
    """What the room is given: the ledger, the tables, and the settings it needs."""

    writer: Writer
    pool: AsyncConnectionPool[Any]
    position_wait_seconds: float = 2.0
    body_bytes_max: int = MIB
    batch_bytes_max: int = 4 * MIB
    ready_lag_events_max: int = 100_000
    key_known_seconds: float = KNOWN_SECONDS
    version: str = "0"
    secrets_keys: SecretKeys | None = None
    """Without them, no secret of others can be kept, and none of those kept be used."""
    stripe_api_url: str = stripe_api.URL
    asaas_api_url: str | None = None
    """Without it, that of the tenant's mode."""
    nats: NatsWay | None = None
    """Without it, requests come over HTTP alone, and no webhook can be taken."""


class Room(Struct, frozen=True, kw_only=True):
    """What handlers share in one process."""

    deps: Deps
    keys: Keys
    ledger: Crossing
    metrics: Metrics
    receivers: Receivers
    providers: Providers


class Call(Struct, frozen=True, kw_only=True):
    """One request that may be answered: who asks, and for what."""

    room: Room
    principal: Principal
    path: dict[str, str]
    request_id: str

    @property
    def tenant(self) -> str:
        """The tenant of the key; nothing in a request can name another."""
        return self.principal.tenant

    @property
    def by(self) -> str:
        """On whose authority a command is given, as the ledger records it."""
        return f"key:{self.principal.key}"


class Asked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a `Write`."""

    def command(self, target: str | None) -> Command:
        """Return the command, for the thing that the path names besides the account."""
        raise NotImplementedError  # Abstract: every body says its own. A Struct takes no ABC.

    @property
    def why(self) -> str | None:
        """The reason given, if this kind of body takes one."""
        return getattr(self, "reason", None)


class Nothing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """No query parameters are taken."""


class Reply(Struct, frozen=True, kw_only=True):
    """An answer, ready to be sent."""

    status: int = 200
    body: bytes = b""
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Route(Struct, frozen=True, kw_only=True):
    """What all routes have. Without `roles`, no key is asked for."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    name: str
    tag: str
    summary: str
    details: str = ""
    roles: frozenset[AnyRole] | None
    refusals: tuple[type[LedgerError], ...] = ()
    answer: Any
    money: bool = True
    """Whether answers tell of money, and must not be kept by anybody on the way."""


class Read(Route, frozen=True, kw_only=True):
    """A route that changes nothing: `handle` gets the decoded query and returns the answer."""

    query: type[Any] = Nothing
    handle: Callable[[Call, Any], Awaitable[Any]]


class Write(Route, frozen=True, kw_only=True):
    """A route that gives the ledger one command; its event becomes the answer.

    `target` is the part of the path that the command is about besides the account; `op` is what
    a batch calls it; `statuses` are those it can succeed with.
    """

    body: type[Asked]
    op: str | None = None
    target: str | None = None
    statuses: tuple[int, ...] = (200,)
    load: Callable[[bytes], None] | None = None
    """What to do in a thread before the body is read, where that may take long."""

    @property
    def body_required(self) -> bool:
        """Tell whether there must be a body: some field of it has no default."""
        return any(field.required for field in structs.fields(self.body))


class Change(Route, frozen=True, kw_only=True):
    """A route that changes what is kept beside the ledger, once for each key of the tenant.

    `handle` gets the decoded body and a connection with a transaction, in which all it does and the
    receipt are one; it returns the answer. A `SecretStr` in that is shown in the first answer, and
    is null in the receipt, and so whenever the request is repeated.

    With `ask`, others are asked first, who may take long: it gets the key and the decoded body, and
    `handle` gets what it returns in the place of the body. It must be safe to repeat.
    """

    body: type[Any] = Nothing
    ask: Callable[[Call, str, Any], Awaitable[Any]] | None = None
    handle: Callable[[Call, AsyncConnection[Any], Any], Awaitable[Struct]]
    location: Callable[[Any], str] | None = None
    """Where what an answer tells of can be read."""
    status: int = 200
    holds_secret: bool = False
    """Whether the body may hold a secret: then its hash, which is kept, is one slow to guess by."""

    @property
    def body_required(self) -> bool:
        """Tell whether there must be a body: some field of it has no default."""
        return any(field.required for field in structs.fields(self.body))


class Ask(Route, frozen=True, kw_only=True):
    """A route with a body that is not one command."""

    body: Any
    description: Any = None
    """What to describe the body by, where it is decoded piece by piece."""
    handle: Callable[[Call, Any], Awaitable[Any]]
    large: bool = False
    """Whether the body may be as large as a batch."""


ReadBody = Callable[[int], Awaitable[bytes | None]]
"""Reads the body of a request, up to so many bytes: None if the caller went away meanwhile."""


class Hook(Route, frozen=True, kw_only=True):
    """A route for what others send in their own way, and prove in their own way.

    `handle` gets the raw headers and what reads the body; it returns the answer, or None if the
    caller went away.
    """

    handle: Callable[[Call, Sequence[tuple[bytes, bytes]], ReadBody], Awaitable[Any]]
