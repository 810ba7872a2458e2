"""The state of an account: everything that a decision may ask, kept so that asking is cheap.

The account is changed in place by `evolve` alone, one event at a time, at a cost that does not grow
with the number of its grants, reservations and events. What it holds by value is frozen, so that a
fork copies containers only.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from copy import copy
from datetime import UTC, datetime
from heapq import heapify, heappop, heappush

from msgspec import Struct

from ledger.domain.entities import Balance, Grant, Operation

FOREVER = datetime.max.replace(tzinfo=UTC)
UNSCOPED = 1 << 30
CLOSED_KEPT = 16
"""How many closed operations an account keeps at hand after a commit; others are recalled."""

BurnKey = tuple[int, int, datetime, bool, int, datetime, int, str]
Deadline = tuple[datetime, int, str]
ACTIVATES, RESERVATION_ENDS, GRANT_ENDS = range(3)


def burn_key(grant: Grant) -> BurnKey:
    """Place a grant in the burn-down order, which is total: it ends in the id.

    Priority, narrower scope, earlier expiry, promotional before paid, lower cost, effect, age.
    """
    return (
        grant.priority,
        len(grant.scope) or UNSCOPED,
        grant.expires_at or FOREVER,
        grant.kind == "paid",
        grant.cost_basis or 0,
        grant.effective_at,
        grant.sequence,
        grant.id,
    )


class Snapshot(Struct, frozen=True, kw_only=True):
    """All of an account's state, as a value: the same for every way to come to it."""

    version: int
    opened: bool
    label: str | None
    metadata: dict[str, str]
    balance: Balance
    grants: tuple[Grant, ...]
    operations: tuple[Operation, ...]


class Account:
    """One balance, folded from its events."""

    __slots__ = (
        "balance",
        "deadlines",
        "grants",
        "label",
        "metadata",
        "open_count",
        "opened",
        "operations",
        "order",
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
        self.operations: dict[str, Operation] = {}
        """All open operations, and closed ones that were used of late or recalled."""
        self.open_count = 0
        self.order: list[BurnKey] = []
        """The grants that can pay now, in burn-down order."""
        self.deadlines: list[Deadline] = []
        """A heap of what time will do. Entries that no longer hold are dropped as they surface."""

    # -- asking ------------------------------------------------------------------------------------

    def payers(self, feature: str | None, *, any_scope: bool = False) -> Iterator[Grant]:
        """Yield the grants that can pay for `feature` now, in burn-down order."""
        grants = self.grants
        for key in self.order:
            grant = grants[key[-1]]
            if any_scope or grant.covers(feature):
                yield grant

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
        could_pay = before is not None and before.status == "active" and before.available > 0
        can_pay = grant.status == "active" and grant.available > 0
        if could_pay != can_pay:
            key = burn_key(grant)
            if can_pay:
                insort(self.order, key)
            else:
                place = bisect_left(self.order, key)
                assert self.order[place] == key
                del self.order[place]
        self.grants[grant.id] = grant

    def put_operation(self, operation: Operation) -> None:
        """Store an operation's new state."""
        before = self.operations.get(operation.id)
        was_open = before is not None and before.status == "open"
        self.open_count += (operation.status == "open") - was_open
        # Last touched goes last, so that trimming drops the closed ones untouched the longest.
        self.operations.pop(operation.id, None)
        self.operations[operation.id] = operation

    def add_deadline(self, when: datetime, what: int, name: str) -> None:
        """Remember that something happens at `when`."""
        live = len(self.grants) * 2 + self.open_count
        if len(self.deadlines) > 2 * live + 64:
            self.deadlines = [entry for entry in self.deadlines if self._stands(entry)]
            heapify(self.deadlines)
        heappush(self.deadlines, (when, what, name))

    def next_deadline(self) -> Deadline | None:
        """Return the earliest deadline that still stands."""
        heap = self.deadlines
        while heap and not self._stands(heap[0]):
            heappop(heap)
        return heap[0] if heap else None

    def _stands(self, deadline: Deadline) -> bool:
        when, what, name = deadline
        if what == RESERVATION_ENDS:
            operation = self.operations.get(name)
            return (
                operation is not None
                and operation.status == "open"
                and operation.expires_at == when
            )
        status = self.grants[name].status
        return status == "pending" if what == ACTIVATES else status in {"pending", "active"}

    # -- copies ------------------------------------------------------------------------------------

    def fork(self) -> Account:
        """Return a copy that can be changed without changing this account."""
        other = Account()
        other.version, other.opened, other.label = self.version, self.opened, self.label
        other.metadata, other.open_count = self.metadata, self.open_count
        other.balance = copy(self.balance)
        other.grants, other.operations = self.grants.copy(), self.operations.copy()
        other.order, other.deadlines = self.order.copy(), self.deadlines.copy()
        return other

    def trim(self) -> None:
        """Forget closed operations but the last few. Only what is committed may be forgotten."""
        surplus = len(self.operations) - self.open_count - CLOSED_KEPT
        if surplus <= CLOSED_KEPT:
            return
        closed = [name for name, operation in self.operations.items() if operation.status != "open"]
        for name in closed[:surplus]:
            del self.operations[name]

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
            operations=tuple(
                sorted(
                    (op for op in self.operations.values() if op.status == "open"),
                    key=lambda operation: operation.id,
                )
            ),
        )

    @classmethod
    def restore(cls, snapshot: Snapshot) -> Account:
        """Return the account that `snapshot` was taken of."""
        account = cls()
        account.version, account.opened = snapshot.version, snapshot.opened
        account.label, account.metadata = snapshot.label, snapshot.metadata
        account.balance = copy(snapshot.balance)
        for grant in snapshot.grants:
            account.grants[grant.id] = grant
            if grant.status == "active" and grant.available:
                account.order.append(burn_key(grant))
            if grant.status == "pending":
                account.deadlines.append((grant.effective_at, ACTIVATES, grant.id))
            if grant.status in {"pending", "active"} and grant.expires_at:
                account.deadlines.append((grant.expires_at, GRANT_ENDS, grant.id))
        for operation in snapshot.operations:
            account.operations[operation.id] = operation
            if operation.expires_at:
                account.deadlines.append((operation.expires_at, RESERVATION_ENDS, operation.id))
        account.open_count = len(snapshot.operations)
        account.order.sort()
        heapify(account.deadlines)
        return account
