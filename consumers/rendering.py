"""Ledger events as CloudEvents, amounts as decimal strings, as everywhere in JSON.

An event is shown from its stored JSON, which has its fields in order and leaves out what is at its
default, as a CloudEvent does: only its amounts are written anew. (`ledger.rendering` shows events
as objects, to the same end; a test holds the two together.)
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cache, lru_cache
from typing import Any, Final

import msgspec
import structlog
from msgspec import NODEFAULT, Struct, inspect

from ledger.codec import decode
from ledger.domain.entities import Balance
from ledger.domain.events import NAMES
from ledger.domain.values import format_decimal
from ledger.rendering import AMOUNT_UNITS, SIGNED_AMOUNTS, render

log = structlog.get_logger(__name__)

SOURCE: Final = "/scrip/ledger"
COLUMNS: Final = (
    "e.notification_id, e.originator_version, e.tenant, e.account, e.topic, e.recorded_at, e.key,"
    " e.state"
)
"""A Row, of `scrip.ledger_events e`."""
Row = tuple[int, int, str, str | None, str, datetime, str | None, bytes]
Show = Callable[[Any], Any]
"""What turns a stored value that holds amounts into one that holds them as decimals."""

NOT_UNDERSTOOD: Final = (msgspec.MsgspecError, TypeError, AttributeError, ValueError)
AMOUNTS_KEPT: Final = 16_384
_amount = lru_cache(AMOUNTS_KEPT)(format_decimal)


class _Stored(Struct, kw_only=True, forbid_unknown_fields=True):
    """What an event's state holds (see `ledger.codec`), no further understood than it must be."""

    by: str | None
    reason: str | None = None
    occurred_at: str | None = None
    data: dict[str, Any] | None
    balance: dict[str, Any] | None = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Stored)
_ZEROS: Final[dict[str, str | None]] = {
    name: "0" if name != "due_at" else None for name in Balance.__struct_fields__
}


def cloud_event(row: Row, bytes_max: int | None = None) -> bytes:
    """Return a ledger event as a CloudEvent 1.0 in JSON. Pure: the same event, the same bytes.

    The id is the position in the ledger; the type is the event's permanent name; the subject is the
    account, and absent where the event is about the tenant's catalog. Beyond `bytes_max` the event
    itself, `data.data`, is null: whoever needs it reads it over HTTP, by its position. It is null,
    too, where what is stored has been damaged, and then also whatever else was stored with it.

    Raises UnknownEvent if this version of Scrip does not know the event.
    """
    envelope = _envelope(row)
    whole = _encoder.encode(envelope)
    if bytes_max is None or len(whole) <= bytes_max:
        return whole
    envelope["data"]["data"] = None
    return _encoder.encode(envelope)


def _envelope(row: Row) -> dict[str, Any]:
    position, version, tenant, account, name, recorded_at, key, state = row
    event_id = str(position)
    stored = _shown(position, name, state)
    envelope: dict[str, Any] = {
        "specversion": "1.0",
        "id": event_id,
        "source": SOURCE,
        "type": name,
        "time": recorded_at,
        "datacontenttype": "application/json",
    }
    if account is not None:
        envelope["subject"] = account
    envelope["data"] = {
        "position": event_id,
        "tenant": tenant,
        "account": account,
        "version": version,
        "name": name,
        "recorded_at": recorded_at,
        "occurred_at": stored.occurred_at,
        "actor": stored.by,
        "reason": stored.reason,
        "key": key,
        "data": stored.data,
        "balance": stored.balance,
    }
    return envelope


def _shown(position: int, name: str, state: bytes) -> _Stored:
    """Return what is stored, amounts as decimals."""
    try:
        stored = _decoder.decode(state)
        show = _show_event(name)
        stored.data = show(stored.data) if show else render(decode(name, state).event)
        if stored.balance is not None:
            # A part that is 0 is not stored, and is stated.
            stored.balance = _ZEROS | _show_balance(stored.balance)
    except NOT_UNDERSTOOD:
        log.exception("outbox.unreadable", position=position)
        return _Stored(by=None, data=None)
    return stored


@cache
def _show_event(name: str) -> Show | None:
    """Return how events of a name are shown; None for those that have to be decoded for it."""
    kind = NAMES.get(name)
    if kind is None:
        return None
    show = _show_struct(kind) or _as_it_is
    *others, last = inspect.type_info(kind).fields  # type: ignore[attr-defined]
    if any(field.default_factory is not NODEFAULT for field in others):
        return None
    if last.default_factory is NODEFAULT:
        return show
    # An empty map is not stored, and is stated.
    return lambda data: show(data | {last.name: data.get(last.name, {})})


@cache
def _show_struct(kind: type[Struct]) -> Show | None:
    """Return how a record's amounts are shown, None if it holds none."""
    shows = {
        field.name: show
        for field in inspect.type_info(kind).fields  # type: ignore[attr-defined]
        if (show := _amount if (kind, field.name) in SIGNED_AMOUNTS else _show(field.type))
    }

    def shown(record: dict[str, Any]) -> dict[str, Any]:
        for name, value in record.items():
            if name in shows:
                record[name] = shows[name](value)
        return record

    return shown if shows else None


def _show(kind: inspect.Type) -> Show | None:
    match kind:
        case inspect.Metadata(extra={"unit": unit}) if unit in AMOUNT_UNITS:
            return _amount
        case inspect.Metadata(type=inner):
            return _show(inner)
        case inspect.StructType(cls=record):
            return _show_struct(record)
        case inspect.VarTupleType(item_type=item):
            each = _show(item)
            return each and (lambda values: [each(value) for value in values])
        case inspect.DictType(value_type=value):
            by_key = _show(value)
            return by_key and (lambda values: {key: by_key(each) for key, each in values.items()})
        case inspect.UnionType(types=types):
            # None is not stored, so it need not be shown; there is no other union in an event.
            (only,) = (one for one in types if not isinstance(one, inspect.NoneType))
            return _show(only)
        case _:
            return None


def _as_it_is(value: Any) -> Any:
    return value


_show_balance = _show_struct(Balance) or _as_it_is
