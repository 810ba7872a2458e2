"""Events to stored bytes and back: self-describing JSON under permanent names.

An event's stored name ends in its version. What an older process does not know, it refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from ledger.domain.entities import Balance
from ledger.domain.events import NAMES, Event

Upcast = Callable[[dict[str, Any]], tuple[str, dict[str, Any]]]
UPCASTS: dict[str, Upcast] = {}
"""By an old stored name: what turns its data into that of a newer name. None is needed yet."""

NAME_OF: dict[type[Event], str] = {kind: name for name, kind in NAMES.items()}


class UnknownEvent(Exception):
    """The ledger holds an event that this version of Scrip does not know. Use a newer version."""

    def __init__(self, name: str, known: str | None = None) -> None:
        """Name the event, and the newest version of it that is known."""
        hint = f"; the newest known version is {known}" if known else ""
        super().__init__(f"unknown event {name}{hint}")
        self.name = name


class Stored(Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """What one event's state holds: who and why, the event's data, the balance after it."""

    by: str
    reason: str | None = None
    occurred_at: datetime | None = None
    data: msgspec.Raw
    balance: Balance | None = None


class Fact(Struct, frozen=True, kw_only=True, gc=False):
    """A stored event, understood."""

    by: str
    reason: str | None
    occurred_at: datetime | None
    event: Event
    balance: Balance | None


_encoder = msgspec.json.Encoder()
_envelope = msgspec.json.Decoder(Stored)
# Strict: a field that this version does not know would be lost without a trace when it is folded.
_decoders: dict[str, msgspec.json.Decoder[Event]] = {
    name: msgspec.json.Decoder(kind) for name, kind in NAMES.items()
}


def encode(
    event: Event,
    *,
    by: str,
    reason: str | None = None,
    occurred_at: datetime | None = None,
    balance: Balance | None = None,
) -> bytes:
    """Return the bytes that are stored for an event."""
    return _encoder.encode(
        Stored(
            by=by,
            reason=reason,
            occurred_at=occurred_at,
            data=msgspec.Raw(_encoder.encode(event)),
            balance=balance,
        )
    )


def decode(name: str, state: bytes) -> Fact:
    """Return what stored bytes say. Raises UnknownEvent for a name this version does not know."""
    stored = _envelope.decode(state)
    decoder = _decoders.get(name)
    event = decoder.decode(stored.data) if decoder else _upcast(name, stored.data)
    return Fact(
        by=stored.by,
        reason=stored.reason,
        occurred_at=stored.occurred_at,
        event=event,
        balance=stored.balance,
    )


def version_of(name: str) -> int:
    """Return the version that a permanent event name ends in."""
    return int(name.rsplit(".v", 1)[1])


def _upcast(name: str, data: msgspec.Raw) -> Event:
    value = msgspec.json.decode(data)
    first = name
    while name not in NAMES:
        upcast = UPCASTS.get(name)
        if upcast is None:
            stem = first.rsplit(".", 1)[0]
            known = (name for name in NAMES if name.rsplit(".", 1)[0] == stem)
            raise UnknownEvent(first, max(known, key=version_of, default=None))
        name, value = upcast(value)
    return msgspec.convert(value, NAMES[name])
