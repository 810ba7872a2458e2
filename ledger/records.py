"""What passes between the rooms: orders on the way in, recorded events on the way out."""

from __future__ import annotations

import hashlib
from datetime import datetime
from functools import lru_cache
from uuid import UUID, uuid5

import msgspec
from msgspec import Struct

from ledger.domain.commands import Command, TenantCommand
from ledger.domain.decide import recalled_by
from ledger.domain.entities import Balance, Grant, Operation
from ledger.domain.errors import InvalidCommand
from ledger.domain.events import Event
from ledger.domain.values import TEXT_MAX, is_storable

STREAMS = UUID("5c1bcb1e-6f0a-5d0e-9d55-2f1c9a6f0e11")
_canonical = msgspec.json.Encoder(order="deterministic")


class Order(Struct, frozen=True, kw_only=True, gc=False):
    """A command, whose account it is for, and on whose authority.

    `key` is the idempotency key, unique in the stream for ever; None only for commands that are
    harmless to repeat and need no receipt. `by` says who asks: `key:…`, `service:…`.
    The account is None for commands on the tenant itself: its catalog, alerts.
    """

    tenant: str
    account: str | None
    command: Command
    key: str | None
    by: str
    reason: str | None = None
    occurred_at: datetime | None = None

    @property
    def stream(self) -> UUID:
        """The stream that the command is decided on."""
        return stream_id(self.tenant, self.account)

    @property
    def is_for_tenant(self) -> bool:
        """Tell whether this is about the tenant itself, such as its catalog, and no account."""
        return isinstance(self.command, TenantCommand)

    def content(self) -> bytes:
        """Return the hash by which a repeated key is known to mean the same command."""
        return hashlib.sha256(_canonical.encode((self.command, self.reason))).digest()


def fault_of(order: Order) -> InvalidCommand | None:
    """Return why the database could not store what names this order, None if it can.

    Told before it is queued: in a batch with others, it would keep all of them from being written.
    """
    command = order.command
    name = None if isinstance(command, TenantCommand) else recalled_by(command)
    for field, text in (
        ("key", order.key),
        ("account", order.account),
        ("tenant", order.tenant),
        ("id", name),
    ):
        if text is not None and not is_storable(text):
            rule = f"must be 1 to {TEXT_MAX} characters, none of them NUL or a lone surrogate"
            return InvalidCommand(field=field, rule=rule)
    return None


class Recorded(Struct, frozen=True, kw_only=True, gc=False):
    """An event as it stands in the ledger. `balance` is the account's after this event.

    `key` is set on a command's own event, not on what was due before it.
    """

    position: int
    stream: UUID
    version: int
    tenant: str
    account: str | None
    name: str
    recorded_at: datetime
    key: str | None
    by: str
    reason: str | None
    occurred_at: datetime | None
    event: Event
    balance: Balance | None


class Outcome(Struct, frozen=True, gc=False):
    """What became of an order: its own event, or None if there was nothing to do.

    `replayed` says that the key had been used before, and that this is the first answer again.
    """

    recorded: Recorded | None
    replayed: bool = False


class View(Struct, frozen=True, gc=False):
    """An account as it is at this moment, with all that is due by then. Grants by age."""

    position: int
    version: int
    opened: bool
    as_of: datetime
    balance: Balance
    grants: tuple[Grant, ...]
    operations: tuple[Operation, ...]
    label: str | None
    metadata: dict[str, str]


@lru_cache(maxsize=65_536)
def stream_id(tenant: str, account: str | None) -> UUID:
    """Return the stream of an account, or of a tenant itself (None): the same everywhere."""
    return uuid5(STREAMS, f"catalog:{tenant}" if account is None else f"account:{tenant}/{account}")
