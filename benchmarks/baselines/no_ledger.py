"""Scrip's API with nothing behind it: what the way in costs by itself.

Requests are routed, authenticated, decoded, logged and answered as ever; but the writer answers at
once, with an event that happened before, and neither decides nor stores anything.
"""

from __future__ import annotations

from collections.abc import Sequence

from ledger.domain.commands import Capture
from ledger.pending import Pending
from ledger.records import Outcome, Recorded
from ledger.store import Store
from ledger.writer import Writer


class Unwritten(Writer):
    """A writer that writes nothing."""

    def __init__(self, store: Store, reserved: Recorded, captured: Recorded) -> None:
        """Answer a capture with `captured` and everything else with `reserved`."""
        super().__init__(store)
        self._reserved, self._captured = Outcome(reserved), Outcome(captured)

    def hand_over(self, pendings: Sequence[Pending]) -> None:
        """Answer at once."""
        for pending in pendings:
            assert pending.order is not None
            captures = isinstance(pending.order.command, Capture)
            pending.answer(self._captured if captures else self._reserved)
