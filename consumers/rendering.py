"""Ledger events as CloudEvents, amounts as decimal strings, as everywhere in JSON."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ledger.records import Recorded
from ledger.rendering import render, render_balance

SOURCE: Final = "/scrip/ledger"
_encoder = msgspec.json.Encoder()


def cloud_event(recorded: Recorded, bytes_max: int | None = None) -> bytes:
    """Return a ledger event as a CloudEvent 1.0 in JSON. Pure: the same event, the same bytes.

    The id is the position in the ledger; the type is the event's permanent name; the subject is the
    account, and absent where the event is about the tenant's catalog. Beyond `bytes_max` the event
    itself, `data.data`, is null: whoever needs it reads it over HTTP, by its position.
    """
    envelope = _envelope(recorded)
    whole = _encoder.encode(envelope)
    if bytes_max is None or len(whole) <= bytes_max:
        return whole
    envelope["data"]["data"] = None
    return _encoder.encode(envelope)


def _envelope(recorded: Recorded) -> dict[str, Any]:
    envelope: dict[str, Any] = {
        "specversion": "1.0",
        "id": str(recorded.position),
        "source": SOURCE,
        "type": recorded.name,
        "time": recorded.recorded_at,
        "datacontenttype": "application/json",
    }
    if recorded.account is not None:
        envelope["subject"] = recorded.account
    envelope["data"] = {
        "position": str(recorded.position),
        "tenant": recorded.tenant,
        "account": recorded.account,
        "version": recorded.version,
        "name": recorded.name,
        "recorded_at": recorded.recorded_at,
        "occurred_at": recorded.occurred_at,
        "actor": recorded.by,
        "reason": recorded.reason,
        "key": recorded.key,
        "data": render(recorded.event),
        "balance": render_balance(recorded.balance),
    }
    return envelope
