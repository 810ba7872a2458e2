"""The state of an account: everything that a decision may ask, kept so that asking is cheap.

The account is changed in place by `evolve` alone, one event at a time, at a cost that does not grow
with the number of its grants, reservations and events. What has changed since `begin` can be taken
back, at the cost of what has changed. What it holds by value is frozen.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from datetime import datetime
from heapq import heapify, heappop, heappush

from msgspec import Struct
from msgspec.structs import replace

from ledger.domain.entities import Balance, Grant, Operation
from ledger.domain.lines import Lines

CLOSED_KEPT = 4
"""How many closed operations an account keeps at hand after a commit; others are recalled."""
DEADLINES_SPARE = 16
"""How many deadlines that no longer stand an account of any size may hold."""

Deadline = tuple[datetime, int, str]
ACTIVATES, RESERVATION_ENDS, GRANT_ENDS = range(3)
ENDING = frozenset({"pending", "active", "frozen"})
"""In which states a grant still expires."""


class Snapshot(Struct, frozen=True, kw_only=True):
    """All of an account's state, as a value: the same for every way to come to it."""

    version: int
    opened: bool
    label: str | None
    metadata: dict[str, str]
    balance: Balance
    grants: tuple[Grant, ...]
    operations: tuple[Operation, ...]


class _Before(Struct, kw_only=True):
    """What an account was when it began, as far as it has changed since. None: it was not there."""

    version: int
    opened: bool
    label: str | None
    metadata: dict[str, str]
    balance: Balance
    grants: dict[str, Grant | None] = {}
    operations: dict[str, Operation | None] = {}
    dropped: list[Deadline] = []
    moved: bool = False
    """Whether a grant may stand elsewhere in the burn-down order."""
    outer: _Before | None


class Account:
    """One balance, folded from its events."""

    __slots__ = (
        "_before",
        "balance",
        "closed",
        "deadlines",
        "grants",
        "label",
        "lines",
        "metadata",
        "open",
        "opened",
        "version",
    )

    def __init__(self) -> None:
        """Start as an account that nobody has opened."""
        self.version = 0
        self.opened = False
        self.label: str | None = None
        self.metadata: dict[str, str] = {}
        self.balance = Balance()
        self.grants: dict[str, Grant] = {}
        self.open: dict[str, Operation] = {}
        """All open operations."""
        self.closed: dict[str, Operation] = {}
        """Closed operations that were used of late or recalled, the last used last."""
        self.lines = Lines()
        """The grants that can pay now."""
        self.deadlines: list[Deadline] = []
        """A heap of what time will do. Entries that no longer hold are dropped as they surface."""
        self._before: _Before | None = None

    # -- asking ------------------------------------------------------------------------------------

    @property
    def open_count(self) -> int:
        """How many operations are open."""
        return len(self.open)

    def operation(self, name: str) -> Operation | None:
        """Return an operation that is at hand: every open one, and some that are closed."""
        return self.open.get(name) or self.closed.get(name)

    def payers(self, feature: str | None, *, any_scope: bool = False) -> Iterator[Grant]:
        """Yield the grants that can pay for `feature` now, in burn-down order."""
        grants = self.grants
        for key in self.lines.everyone() if any_scope else self.lines.of(feature):
            yield grants[key[-1]]

    def overdraft_room(self) -> int:
        """Return how much may still be spent or set aside beyond the grants."""
        balance = self.balance
        return max(0, balance.overdraft_limit - balance.debt - balance.overdraft_reserved)

    def is_due(self, now: datetime) -> bool:
        """Tell whether time has done something that no event has recorded yet."""
        due_at = self.balance.due_at
        return due_at is not None and due_at <= now

    # -- changing: for evolve only -----------------------------------------------------------------

    def put_grant(self, grant: Grant) -> None:
        """Store a grant's new state, and its place among those that can pay."""
        before = self.grants.get(grant.id)
        if self._before is not None:
            self._before.grants.setdefault(grant.id, before)
        # Only an active grant has anything available.
        if before is None or not before.available:
            if grant.available:
                self.lines.join(grant)
        elif not grant.available:
            self.lines.leave(before)
        self.grants[grant.id] = grant

    def put_terms(self, grant: Grant) -> None:
        """Store a grant's new state where its place in the burn-down order may be another."""
        self.put_grant(replace(self.grants[grant.id], available=0))
        self.put_grant(grant)
        if self._before is not None:
            self._before.moved = True

    def put_operation(self, operation: Operation) -> None:
        """Store an operation's new state."""
        name = operation.id
        if self._before is not None:
            self._before.operations.setdefault(name, self.operation(name))
        if operation.status == "open":
            self.open[name] = operation
        else:
            self.open.pop(name, None)
            # Last touched goes last, so that trimming drops those untouched the longest.
            self.closed.pop(name, None)
            self.closed[name] = operation

    def add_deadline(self, when: datetime, what: int, name: str) -> None:
        """Remember that something happens at `when`."""
        heappush(self.deadlines, (when, what, name))

    def next_deadline(self) -> Deadline | None:
        """Return the earliest deadline that still stands."""
        heap = self.deadlines
        while heap and not self._stands(heap[0]):
            entry = heappop(heap)
            if self._before is not None:
                self._before.dropped.append(entry)
        return heap[0] if heap else None

    def _stands(self, deadline: Deadline) -> bool:
        when, what, name = deadline
        if what == RESERVATION_ENDS:
            operation = self.open.get(name)
            return operation is not None and operation.expires_at == when
        grant = self.grants.get(name)
        if grant is None:  # It was taken back.
            return False
        if what == ACTIVATES:
            return grant.status == "pending" and grant.effective_at == when
        return grant.status in ENDING and grant.expires_at == when

    # -- going back --------------------------------------------------------------------------------

    def begin(self) -> None:
        """Remember what changes from now on, until `accept` or `roll_back`. Can be nested."""
        self._before = _Before(
            version=self.version,
            opened=self.opened,
            label=self.label,
            metadata=self.metadata,
            balance=copy(self.balance),
            outer=self._before,
        )

    def accept(self) -> None:
        """Let what has changed since `begin` be so. What was begun within must be rolled back."""
        assert self._before is not None
        assert self._before.outer is None
        self._before = None

    def roll_back(self) -> None:
        """Be again what the account was at the last `begin`."""
        before, self._before = self._before, None
        assert before is not None
        for name, grant in before.grants.items():
            if grant is not None:
                self.put_grant(grant)
            else:
                taken_back = self.grants.pop(name)
                if taken_back.available:
                    self.lines.leave(taken_back)
        for name, operation in before.operations.items():
            self.open.pop(name, None)
            self.closed.pop(name, None)
            if operation is not None:
                self.put_operation(operation)
        if before.moved:
            self.lines = Lines(grant for grant in self.grants.values() if grant.available)
        # Those that were added meanwhile hold no longer, or hold again.
        for entry in before.dropped:
            heappush(self.deadlines, entry)
        self.version, self.opened, self.label = before.version, before.opened, before.label
        self.metadata, self.balance = before.metadata, before.balance
        self._before = before.outer

    # -- copies ------------------------------------------------------------------------------------

    def fork(self) -> Account:
        """Return a copy that can be changed without changing this account. Costs its whole size."""
        other = Account()
        other.version, other.opened, other.label = self.version, self.opened, self.label
        other.metadata, other.balance = self.metadata, copy(self.balance)
        other.grants, other.lines = self.grants.copy(), self.lines.copy()
        other.open, other.closed = self.open.copy(), self.closed.copy()
        other.deadlines = self.deadlines.copy()
        return other

    def trim(self) -> None:
        """Forget closed operations but the last few, and deadlines that no longer stand.

        Only what is committed may be forgotten.
        """
        assert self._before is None
        closed = self.closed
        if len(closed) > 2 * CLOSED_KEPT:
            for name in list(closed)[:-CLOSED_KEPT]:
                del closed[name]
        live = len(self.grants) * 2 + len(self.open)
        if len(self.deadlines) > 2 * live + DEADLINES_SPARE:
            self.deadlines = [entry for entry in self.deadlines if self._stands(entry)]
            heapify(self.deadlines)

    def snapshot(self) -> Snapshot:
        """Return the state as a value: grants by age, open operations by id."""
        return Snapshot(
            version=self.version,
            opened=self.opened,
            label=self.label,
            metadata=self.metadata,
            balance=copy(self.balance),
            grants=tuple(
                sorted(self.grants.values(), key=lambda grant: (grant.sequence, grant.id))
            ),
            operations=tuple(sorted(self.open.values(), key=lambda operation: operation.id)),
        )

    @classmethod
    def restore(cls, snapshot: Snapshot) -> Account:
        """Return the account that `snapshot` was taken of."""
        account = cls()
        account.version, account.opened = snapshot.version, snapshot.opened
        account.label, account.metadata = snapshot.label, snapshot.metadata
        account.balance = copy(snapshot.balance)
        account.grants = {grant.id: grant for grant in snapshot.grants}
        account.lines = Lines(grant for grant in snapshot.grants if grant.available)
        for grant in snapshot.grants:
            if grant.status == "pending":
                account.deadlines.append((grant.effective_at, ACTIVATES, grant.id))
            if grant.status in ENDING and grant.expires_at:
                account.deadlines.append((grant.expires_at, GRANT_ENDS, grant.id))
        account.open = {operation.id: operation for operation in snapshot.operations}
        for operation in snapshot.operations:
            if operation.expires_at:
                account.deadlines.append((operation.expires_at, RESERVATION_ENDS, operation.id))
        heapify(account.deadlines)
        return account
