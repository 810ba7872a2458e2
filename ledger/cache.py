"""The accounts and catalogs that the writer holds in memory, bounded, and how they get there."""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Container, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from ledger.chain import GENESIS
from ledger.codec import UnknownEvent
from ledger.domain.account import Account, Snapshot
from ledger.domain.catalog import Catalog
from ledger.domain.errors import InternalError, LedgerError, NewerEvents
from ledger.domain.events import Event
from ledger.domain.evolve import evolve
from ledger.domain.operations import is_operation_event, recall
from ledger.domain.tenant import evolve_tenant
from ledger.domain.tenant_events import TenantEvent
from ledger.reading import recorded_from_row
from ledger.records import Recorded
from ledger.store import Session, StoredSnapshot

log = logging.getLogger(__name__)

SHARED_BATCHES = 1_000
"""For how many batches a stream that another process wrote is caught up before it is decided on."""

NEVER = datetime(1970, 1, 1, tzinfo=UTC)

SNAPSHOT_FORMAT = hashlib.sha256(msgspec.json.encode(msgspec.json.schema(Snapshot))).digest()
"""Names the shape of a snapshot: one of another shape is as good as none."""

_snapshot_encoder = msgspec.msgpack.Encoder()
_snapshot_decoder = msgspec.msgpack.Decoder(Snapshot)


class Entry:
    """A stream's state, and where in the stream it stands."""

    __slots__ = (
        "before",
        "hash",
        "position",
        "recorded_at",
        "shared_until",
        "snapshot_version",
        "state",
        "stream",
        "unreadable",
    )

    def __init__(self, stream: UUID, state: Account | Catalog) -> None:
        """Start before the stream's first event."""
        self.stream = stream
        self.state = state
        self.hash = GENESIS
        self.position = 0
        self.recorded_at = NEVER
        self.snapshot_version = 0
        self.shared_until = 0
        """The batch up to which this stream counts as written by other processes too."""
        self.unreadable: type[LedgerError] | None = None
        """Why nothing can be decided here: newer events, or something that is no stream of ours."""
        self.before: Entry | None = None
        """What to go back to if this batch cannot be written; None: nothing kept, load again."""

    @property
    def account(self) -> Account:
        """The state, of an account's stream."""
        assert isinstance(self.state, Account)
        return self.state

    @property
    def catalog(self) -> Catalog:
        """The state, of a catalog's stream."""
        assert isinstance(self.state, Catalog)
        return self.state

    def fork(self) -> Catalog:
        """Return a copy of the catalog, which does not change when the catalog does."""
        return self.catalog.copy()

    def fold(self, recorded: Recorded, digest: bytes) -> None:
        """Take in an event that stands in the ledger."""
        assert recorded.version == self.state.version + 1, "a stream has no gaps"
        self.evolve(recorded.event)
        self.hash, self.position, self.recorded_at = digest, recorded.position, recorded.recorded_at

    def evolve(self, event: object) -> None:
        """Change the state by one event."""
        if isinstance(self.state, Catalog):
            assert isinstance(event, TenantEvent)
            evolve_tenant(self.state, event)
        else:
            evolve(self.state, event)  # type: ignore[arg-type]

    def cannot_be_read(self, error: Exception) -> None:
        """Refuse what is asked of this stream from now on, and of no other."""
        if isinstance(error, UnknownEvent):
            log.error("cache.newer_events in stream %s: %s", self.stream, error)
            self.unreadable = NewerEvents
        else:
            log.error("cache.broken_stream %s", self.stream, exc_info=error)
            self.unreadable = InternalError

    def keep(self) -> None:
        """Keep the state as it is now, to go back to."""
        if self.before is not None:
            return
        state = self.state
        if isinstance(state, Account):
            state.begin()
        else:
            state = self.fork()
        kept = Entry(self.stream, state)
        kept.hash, kept.position, kept.recorded_at = self.hash, self.position, self.recorded_at
        kept.snapshot_version, kept.shared_until = self.snapshot_version, self.shared_until
        self.before = kept

    def wants_snapshot(self, every: int) -> bool:
        """Tell whether so much has happened since the last one. A larger account has fewer."""
        state = self.state
        if state.version - self.snapshot_version < every or isinstance(state, Catalog):
            return False
        return state.version - self.snapshot_version >= len(state.grants) + state.open_count

    def snapshot(self) -> StoredSnapshot:
        """Return the account's state as it is stored, which counts as its last snapshot."""
        self.snapshot_version = self.state.version
        return StoredSnapshot(
            stream=self.stream,
            version=self.state.version,
            format=SNAPSHOT_FORMAT,
            state=_snapshot_encoder.encode(self.account.snapshot()),
            position=self.position,
            recorded_at=self.recorded_at,
            hash=self.hash,
        )


class Cache:
    """Entries by stream; the least used go first."""

    def __init__(self, entries_max: int) -> None:
        """Hold at most `entries_max` entries, once a batch is done."""
        self.entries_max = entries_max
        # By the streams' numbers: hashing a UUID calls Python code.
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._shared: dict[int, int] = {}

    def __len__(self) -> int:
        """Return how many streams are held."""
        return len(self._entries)

    def __getitem__(self, stream: UUID) -> Entry:
        """Return a stream that `load` has loaded."""
        return self._entries[stream.int]

    def use(self, stream: UUID) -> Entry | None:
        """Return a stream if it is held; it then counts as used."""
        entry = self._entries.get(stream.int)
        if entry is not None:
            self._entries.move_to_end(stream.int)
        return entry

    def load(
        self, session: Session, wanted: dict[UUID, bool], batch: int, fresh: Iterable[UUID] = ()
    ) -> None:
        """Have every stream of `wanted` (True: a catalog's) at hand.

        Those that other processes write too, and those in `fresh`, are caught up with the store.
        """
        afters: dict[UUID, int] = {}
        missing: list[UUID] = []
        for stream, is_catalog in wanted.items():
            entry = self.use(stream)
            if entry is None:
                entry = Entry(stream, Catalog() if is_catalog else Account())
                entry.shared_until = self._shared.pop(stream.int, 0)
                self._entries[stream.int] = entry
                missing.append(stream)
            elif entry.shared_until >= batch:
                afters[stream] = entry.state.version
        for stream in fresh:
            afters[stream] = self[stream].state.version
        try:
            self._restore(session, [stream for stream in missing if not wanted[stream]])
            afters.update((stream, self[stream].state.version) for stream in missing)
            self._catch_up(session, afters)
        except BaseException:
            self.forget(missing)
            self.forget(afters)
            raise

    def recall(self, session: Session, wanted: set[tuple[UUID, str]]) -> None:
        """Put closed operations back at the hand of their accounts, where they exist."""
        stories: dict[tuple[UUID, str], list[tuple[Any, ...]]] = {}
        for stream, subject, row in session.of_subjects(wanted):
            # What another process has added since is not told yet: catching up will tell it.
            if row[2] <= self[stream].state.version:
                stories.setdefault((stream, subject), []).append(row)
        for (stream, subject), rows in stories.items():
            entry = self[stream]
            try:
                _put_back(entry.account, subject, [recorded_from_row(row).event for row in rows])
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this stream's alone
                entry.cannot_be_read(error)

    def undo(self, entries: Iterable[Entry], stale: Container[UUID], batch: int) -> None:
        """Go back to what stood before this batch: its events were not written.

        Somebody else writes the streams that were stale, so from now on they are caught up first.
        """
        for entry in entries:
            number = entry.stream.int
            if self._entries.pop(number, None) is None:
                continue
            before, entry.before = entry.before, None
            if before is not None:
                if isinstance(before.state, Account):
                    before.state.roll_back()
                self._entries[number] = before
                if entry.stream in stale:
                    before.shared_until = batch + SHARED_BATCHES
            elif entry.stream in stale:
                self._shared[number] = batch + SHARED_BATCHES

    def forget(self, streams: Iterable[UUID]) -> None:
        """Drop streams whose state is not known to be what the store has."""
        for stream in streams:
            self._entries.pop(stream.int, None)

    def settle(self, entries: Iterable[Entry]) -> None:
        """Accept what a batch did to these, and make room."""
        for entry in entries:
            if entry.before is not None:
                if isinstance(entry.state, Account):
                    entry.state.accept()
                entry.before = None
            if entry.unreadable:
                self.forget([entry.stream])
            elif isinstance(entry.state, Account):
                entry.state.trim()
        while len(self._entries) > self.entries_max:
            self._entries.popitem(last=False)
        while len(self._shared) > self.entries_max:
            del self._shared[next(iter(self._shared))]

    def _restore(self, session: Session, streams: list[UUID]) -> None:
        if not streams:
            return
        for stored in session.snapshots(streams, SNAPSHOT_FORMAT):
            entry = self[stored.stream]
            try:
                snapshot = _snapshot_decoder.decode(stored.state)
            except msgspec.MsgspecError:
                log.exception("cache.unreadable_snapshot of stream %s", stored.stream)
                continue
            entry.state = Account.restore(snapshot)
            entry.hash, entry.position = stored.hash, stored.position
            entry.recorded_at = stored.recorded_at
            entry.snapshot_version = stored.version

    def _catch_up(self, session: Session, afters: dict[UUID, int]) -> None:
        if not afters:
            return
        for count, (stream, row, digest) in enumerate(session.tails(afters)):
            entry = self[stream]
            if entry.unreadable:
                continue
            try:
                entry.fold(recorded_from_row(row), digest)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this stream's alone
                entry.cannot_be_read(error)
            if count % 1_000 == 0 and isinstance(entry.state, Account):
                entry.state.trim()


def _put_back(account: Account, subject: str, events: Sequence[Event]) -> None:
    story = [event for event in events if is_operation_event(event)]
    assert len(story) == len(events), "what has a subject is about an operation"
    operation = recall(story)
    assert operation is not None
    assert operation.status != "open", "open operations are at hand"
    if account.operation(subject) is None:
        account.put_operation(operation)
