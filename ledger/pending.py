"""What waits for the writer: a command, or a reading of a stream."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ledger.domain.errors import LedgerError
from ledger.records import Order, Outcome

if TYPE_CHECKING:
    from ledger.cache import Entry

log = logging.getLogger(__name__)

Answer = Outcome | LedgerError
Reading = Callable[["Entry", datetime], Any]


class Pending:
    """A command that waits for its answer, or a reading of a stream (`read` is set)."""

    __slots__ = (
        "_answer",
        "attempts",
        "deadline",
        "fault",
        "is_catalog",
        "order",
        "read",
        "stream",
    )

    def __init__(
        self,
        stream: UUID,
        order: Order | None,
        answer: Callable[[Any], None],
        deadline: float,
        *,
        is_catalog: bool = False,
        read: Reading | None = None,
        fault: LedgerError | None = None,
    ) -> None:
        """Wait until `deadline`, a time of the monotonic clock."""
        self.is_catalog = is_catalog
        self.stream = stream
        self.order = order
        self._answer: Callable[[Any], None] | None = answer
        self.deadline = deadline
        self.read = read
        self.fault = fault
        """Why it cannot even be asked."""
        self.attempts = 0

    @property
    def key(self) -> tuple[UUID, str] | None:
        """The command's idempotency key, in its stream."""
        if self.order is None or self.order.key is None:
            return None
        return self.stream, self.order.key

    def answer(self, answer: object) -> None:
        """Answer, once. A caller who cannot take the answer does not keep others from theirs."""
        deliver, self._answer = self._answer, None
        if deliver is None:
            return
        try:
            deliver(answer)
        except Exception:
            log.exception("batch.answer_not_taken")
