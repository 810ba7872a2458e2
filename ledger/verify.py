"""Proving the ledger unaltered: its hash chains, and that its events say what they add up to.

Each stream is read from its beginning. At its first wrong row it is told and left: everything after
that row builds on it. What cannot be seen from inside is in docs/decisions/0003-hash-chain.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
from msgspec import Struct

from ledger.cache import SNAPSHOT_FORMAT
from ledger.chain import GENESIS, link
from ledger.codec import Fact, UnknownEvent, decode
from ledger.domain.account import Account, Snapshot
from ledger.domain.catalog import Catalog
from ledger.domain.evolve import evolve
from ledger.domain.tenant import evolve_tenant
from ledger.domain.tenant_events import TenantEvent
from ledger.records import stream_id
from ledger.store import StoredSnapshot
from ledger.stored import Reader, StoredRow, reading

Progress = Callable[[int, int], None]

PROGRESS_EVERY = 5_000
TRIM_EVERY = 1_000
BUCKETS = ("available", "reserved", "consumed", "expired", "revoked")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_decode_snapshot = msgspec.msgpack.Decoder(Snapshot).decode


class Finding(Struct, frozen=True, kw_only=True):
    """Something that is wrong: where, against which rule, and what it is.

    The rules: `version`, `hash`, `order`, `stream`, `event`, `balance`, `books`, `snapshot`.
    """

    rule: str
    stream: UUID
    tenant: str
    account: str | None
    version: int | None = None
    position: int | None = None
    what: str


class Wrong(Exception):
    """A row or a stream breaks a rule."""

    def __init__(self, rule: str, what: str) -> None:
        """Say which rule, and how."""
        super().__init__(what)
        self.rule = rule


class Chain:
    """One stream, as far as it was read: its links."""

    def __init__(self, first: StoredRow) -> None:
        """Begin before the stream's first row."""
        self.stream = first.stream
        self.id = UUID(bytes=first.stream)
        tenant, account = first.split()[:2]
        self.owner = first.fields[: 8 + len(tenant or b"") + len(account or b"")]
        self.tenant = (tenant or b"").decode()
        self.account = None if account is None else account.decode()
        self.version = 0
        self.position = 0
        self.recorded_at = 0
        self.hash: bytes = GENESIS
        self.broken = False

    def take(self, row: StoredRow) -> None:
        """Take in the next row. Raises Wrong."""
        if row.version != self.version + 1:
            raise Wrong("version", _gap(self.version, row.version))
        digest = link(self.hash, row.stream, row.version, row.recorded_at, row.fields)
        if digest != row.hash:
            raise Wrong("hash", "the row is not what was written after the row before it")
        if row.position <= self.position or row.recorded_at < self.recorded_at:
            raise Wrong("order", "its position or its time is not after the row before it")
        if not row.fields.startswith(self.owner):
            raise Wrong("stream", "the row belongs to another tenant or account than the first")
        if self.version == 0 and stream_id(self.tenant, self.account) != self.id:
            raise Wrong("stream", "the stream is not that of this tenant and account")
        self.version, self.hash = row.version, digest
        self.position, self.recorded_at = row.position, row.recorded_at

    def end(self) -> None:
        """Check what can be told once the last row is read. Raises Wrong."""

    def compare(self, snapshot: StoredSnapshot) -> None:
        """Compare a snapshot that was taken just here. Raises Wrong."""

    def finding(self, wrong: Wrong, row: StoredRow | None = None) -> Finding:
        """Return what is wrong with a row, or with the stream as a whole."""
        return Finding(
            rule=wrong.rule,
            stream=self.id,
            tenant=self.tenant,
            account=self.account,
            version=row.version if row else None,
            position=row.position if row else None,
            what=str(wrong),
        )


class Story(Chain):
    """One stream, as far as it was read: its links, and the state that its events make."""

    def __init__(self, first: StoredRow) -> None:
        """Begin before the stream's first row."""
        super().__init__(first)
        self.state = Catalog() if self.account is None else Account()

    def take(self, row: StoredRow) -> None:
        """Take in the next row and fold its event. Raises Wrong."""
        super().take(row)
        fact = _understood(row)
        try:
            self._fold(fact)
        except Exception as error:
            raise Wrong("event", f"it cannot follow the events before it: {error!r}") from error
        if isinstance(self.state, Account):
            balance = self.state.balance
            if fact.balance != balance:
                raise Wrong("balance", f"it says {fact.balance}, its events make {balance}")
            if not balance.holds():
                raise Wrong("balance", f"the identity does not hold: {balance}")
            if row.version % TRIM_EVERY == 0:
                self.state.trim()

    def _fold(self, fact: Fact) -> None:
        if isinstance(self.state, Catalog):
            assert isinstance(fact.event, TenantEvent), "no event of a tenant"
            evolve_tenant(self.state, fact.event)
        else:
            assert not isinstance(fact.event, TenantEvent), "an event of a tenant"
            evolve(self.state, fact.event)

    def end(self) -> None:
        """Check that the grants add up to the balance. Raises Wrong."""
        if not isinstance(self.state, Account):
            return
        balance, grants = self.state.balance, self.state.grants.values()
        for bucket in BUCKETS:
            total = sum(getattr(grant, bucket) for grant in grants)
            if total != getattr(balance, bucket):
                raise Wrong("books", f"{bucket} is {getattr(balance, bucket)}, of grants {total}")
        if balance.granted != sum(grant.amount for grant in grants):
            raise Wrong("books", "what was granted is not the sum of the grants")

    def compare(self, snapshot: StoredSnapshot) -> None:
        """Compare a snapshot that was taken just here. Raises Wrong."""
        if snapshot.format != SNAPSHOT_FORMAT:
            return  # Nobody reads it any more.
        where = (self.position, EPOCH + timedelta(microseconds=self.recorded_at), self.hash)
        if (snapshot.position, snapshot.recorded_at, snapshot.hash) != where:
            raise Wrong("snapshot", "it was taken at another row than it says")
        try:
            state = _decode_snapshot(snapshot.state)
        except msgspec.MsgspecError as error:
            raise Wrong("snapshot", f"it cannot be read: {error}") from error
        if not isinstance(self.state, Account) or state != self.state.snapshot():
            raise Wrong("snapshot", "it is not what the events up to its version make")


def verify(
    url: str,
    *,
    tenant: str | None = None,
    account: str | None = None,
    chains_only: bool = False,
    progress: Progress | None = None,
) -> Iterator[Finding]:
    """Yield what is wrong with the ledger: the first wrong row of each stream, and wrong snapshots.

    All of it, or what a tenant, an account, or both name; with `chains_only`, nothing is decoded.
    `progress` is told how many rows are done, and how many there are. The services' role suffices.
    """
    with reading(url, tenant, account) as reader:
        total = reader.count()
        done = 0
        snapshots = _Snapshots(reader, wanted=not chains_only)
        chain: Chain | None = None
        for row in reader.rows():
            if chain is None or chain.stream != row.stream:
                yield from _ended(chain, snapshots)
                chain = Chain(row) if chains_only else Story(row)
                yield from snapshots.before(chain.stream)
            if not chain.broken:
                yield from _taken(chain, row, snapshots)
            done += 1
            if progress is not None and done % PROGRESS_EVERY == 0:
                progress(done, total)
        yield from _ended(chain, snapshots)
        yield from snapshots.before(None)
        if progress is not None:
            progress(done, total)


def _taken(chain: Chain, row: StoredRow, snapshots: _Snapshots) -> Iterator[Finding]:
    try:
        chain.take(row)
    except Wrong as wrong:
        chain.broken = True
        yield chain.finding(wrong, row)
        return
    snapshot = snapshots.current
    if snapshot is not None and snapshot.stream == chain.id and snapshot.version == row.version:
        try:
            chain.compare(snapshot)
        except Wrong as wrong:
            yield chain.finding(wrong, row)
        snapshots.advance()


def _ended(chain: Chain | None, snapshots: _Snapshots) -> Iterator[Finding]:
    if chain is None:
        return
    snapshot = snapshots.current
    if snapshot is not None and snapshot.stream == chain.id:
        snapshots.advance()
        if not chain.broken:
            what = f"it is of version {snapshot.version}; the stream ends at {chain.version}"
            yield chain.finding(Wrong("snapshot", what))
    if not chain.broken:
        try:
            chain.end()
        except Wrong as wrong:
            yield chain.finding(wrong)


class _Snapshots:
    """The snapshots, in step with the streams."""

    def __init__(self, reader: Reader, *, wanted: bool) -> None:
        self._coming = reader.snapshots() if wanted else iter(())
        self.current: StoredSnapshot | None = None
        self.advance()

    def advance(self) -> None:
        self.current = next(self._coming, None)

    def before(self, stream: bytes | None) -> Iterator[Finding]:
        """Yield what is wrong with snapshots before `stream`: there are no events to them."""
        while self.current is not None and (stream is None or self.current.stream.bytes < stream):
            yield Finding(
                rule="snapshot",
                stream=self.current.stream,
                tenant="",
                account=None,
                version=self.current.version,
                position=self.current.position,
                what="there is a snapshot of a stream that has no events",
            )
            self.advance()


def _gap(version: int, found: int) -> str:
    missing = f"{version + 1}" if found == version + 2 else f"{version + 1} to {found - 1}"
    return f"missing before this row: version {missing}"


def _understood(row: StoredRow) -> Fact:
    _, _, name, *_, state = row.split()
    try:
        return decode((name or b"").decode(), state or b"")
    except UnknownEvent as error:
        raise Wrong("event", f"{error}: use a newer Scrip") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Wrong("event", f"it cannot be read: {error}") from error
