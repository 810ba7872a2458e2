"""Snapshots are kept in the background: they change what a command costs, never what it means."""

from __future__ import annotations

import logging
import queue
import threading

from eventsourcing.persistence import PersistenceError

from ledger.store import Store, StoredSnapshot

log = logging.getLogger(__name__)

QUEUE_MAX = 256


class SnapshotKeeper:
    """A thread that stores what it is given; what it cannot take is not stored."""

    def __init__(self, store: Store) -> None:
        """Prepare to store into `store`; nothing happens before `start`."""
        self.kept = 0
        """How many have been stored."""
        self._store = store
        self._queue: queue.Queue[StoredSnapshot | None] = queue.Queue(QUEUE_MAX)
        self._thread = threading.Thread(target=self._run, name="snapshots", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Store what waits, then stop."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def keep(self, snapshot: StoredSnapshot) -> None:
        """Take a snapshot, unless too many wait: then a later one of this stream will do."""
        if not self._queue.full():
            self._queue.put(snapshot)

    def _run(self) -> None:
        while (snapshot := self._queue.get()) is not None:
            try:
                self._store.save_snapshot(snapshot)
                self.kept += 1
            except PersistenceError as error:
                log.warning("writer.snapshot_failed: %s", error)
