"""The hash chain: each row's hash covers its stream's previous hash and its own fields as stored.

So a stream cannot be changed, shortened in its middle, reordered or grown in between without every
later hash of it being wrong. The position is left out, since the database draws it while it
inserts; it is checked to rise with the version.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from struct import Struct
from uuid import UUID

GENESIS = bytes(32)
"""What stands for the previous hash of a stream's first event."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_head = Struct(">16sqq").pack
_lengths = Struct(">7i").pack
ABSENT = -1
"""The length that is written for a NULL, so that it differs from an empty field."""


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
    """Return the hash of one row: SHA-256 over the previous hash and length-prefixed fields."""
    fields = (
        name.encode(),
        state,
        tenant.encode(),
        b"" if account is None else account.encode(),
        b"" if subject is None else subject.encode(),
        b"" if key is None else key.encode(),
        content or b"",
    )
    lengths = _lengths(
        len(fields[0]),
        len(state),
        len(fields[2]),
        ABSENT if account is None else len(fields[3]),
        ABSENT if subject is None else len(fields[4]),
        ABSENT if key is None else len(fields[5]),
        ABSENT if content is None else len(content),
    )
    head = _head(stream.bytes, version, (recorded_at - _EPOCH) // _MICROSECOND)
    return sha256(b"".join((previous, head, lengths, *fields))).digest()
