"""Rows of the ledger, read back. For synchronous and asynchronous readers alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ledger.codec import decode
from ledger.records import Recorded

COLUMNS: Final = (
    "e.notification_id, e.originator_id, e.originator_version, e.tenant, e.account, e.topic,"
    " e.recorded_at, e.key, e.state"
)
"""What `recorded_from_row` reads, of `scrip.ledger_events e`."""


def recorded_from_row(row: Sequence[Any]) -> Recorded:
    """Return the event in a row of COLUMNS. Raises UnknownEvent if this version cannot read it."""
    position, stream, version, tenant, account, name, recorded_at, key, state = row
    fact = decode(name, state)
    return Recorded(
        position=position,
        stream=stream,
        version=version,
        tenant=tenant,
        account=account,
        name=name,
        recorded_at=recorded_at,
        key=key,
        by=fact.by,
        reason=fact.reason,
        occurred_at=fact.occurred_at,
        event=fact.event,
        balance=fact.balance,
    )
