"""The hash chain: each row's hash covers its stream's previous hash and its own fields as stored.

So a stream cannot be changed, shortened in its middle, reordered or grown in between without every
later hash of it being wrong. The position is left out, since the database draws it while it
inserts; it is checked to rise with the version. See docs/decisions/0003-hash-chain.md.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from struct import Struct

GENESIS = bytes(32)
"""What stands for the previous hash of a stream's first event."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_head = Struct(">16sqq").pack


def microseconds(time: datetime) -> int:
    """Return a time as the hash and PostgreSQL have it: in microseconds since 1970."""
    return (time - _EPOCH) // _MICROSECOND


def link(previous: bytes, stream: bytes, version: int, recorded_at: int, fields: bytes) -> bytes:
    """Return the hash of one row as the database holds it: SHA-256 over all of this.

    `recorded_at` is in microseconds since 1970. `fields` are tenant, account, name, subject, key,
    content and state, in UTF-8, each behind its length in four bytes: as in COPY. A NULL has
    the length -1, so that it differs from an empty field.
    """
    return sha256(previous + _head(stream, version, recorded_at) + fields).digest()
