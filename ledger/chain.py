"""The hash chain: each row's hash covers its stream's previous hash and its own fields as stored.

So a stream cannot be changed, shortened in its middle, reordered or grown in between without every
later hash of it being wrong. The position is left out, since the database draws it while it
inserts; it is checked to rise with the version. See docs/decisions/0003-hash-chain.md.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from struct import Struct
from uuid import UUID

GENESIS = bytes(32)
"""What stands for the previous hash of a stream's first event."""

ABSENT = (-1).to_bytes(4, signed=True)
"""The length that is written for a NULL, so that it differs from an empty field."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_head = Struct(">16sqq").pack


def link(
    previous: bytes,
    stream: UUID,
    version: int,
    recorded_at: datetime,
    *,
    name: str,
    state: bytes,
    tenant: str,
    account: str | None,
    subject: str | None,
    key: str | None,
    content: bytes | None,
) -> bytes:
    """Return the hash of one row."""
    owner, topic = tenant.encode(), name.encode()
    parts = [len(owner).to_bytes(4), owner]
    parts += _optional(None if account is None else account.encode())
    parts += (len(topic).to_bytes(4), topic)
    parts += _optional(None if subject is None else subject.encode())
    parts += _optional(None if key is None else key.encode())
    parts += _optional(content)
    parts += (len(state).to_bytes(4), state)
    time = (recorded_at - _EPOCH) // _MICROSECOND
    return link_stored(previous, stream.bytes, version, time, b"".join(parts))


def link_stored(
    previous: bytes, stream: bytes, version: int, recorded_at: int, fields: bytes
) -> bytes:
    """Return the hash of one row as the database holds it: SHA-256 over all of this.

    `recorded_at` is in microseconds since 1970. `fields` are tenant, account, name, subject, key,
    content and state, in UTF-8, each behind its length in four bytes: as in COPY.
    """
    return sha256(previous + _head(stream, version, recorded_at) + fields).digest()


def _optional(field: bytes | None) -> tuple[bytes, ...]:
    return (ABSENT,) if field is None else (len(field).to_bytes(4), field)
