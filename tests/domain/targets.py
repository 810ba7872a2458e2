"""What a history can be played against, and the target in memory: the rules without a store.

A target is asked to `execute` commands and to show its `state`. The one here checks, beside
answering, what must hold after every single event.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from ledger.codec import NAME_OF, decode, encode
from ledger.domain.account import Account, Snapshot
from ledger.domain.catalog import Catalog
from ledger.domain.commands import AccountCommand, Command, Settle, TenantCommand
from ledger.domain.decide import NO_PRICES, asks_catalog, decide, recalled_by, settle
from ledger.domain.entities import Balance, Grant, Operation
from ledger.domain.errors import IdempotencyMismatch, LedgerError
from ledger.domain.events import AccountEvent, Event, subject_of
from ledger.domain.evolve import evolve
from ledger.domain.operations import OperationEvent, is_operation_event, recall
from ledger.domain.tenant import decide_tenant, evolve_tenant

BUCKETS = ("available", "pending", "reserved", "consumed", "expired", "revoked")


class State(Protocol):
    """What a target shows of its account, settled: grants by age, open operations by id."""

    @property
    def opened(self) -> bool:
        """Whether the account exists."""

    @property
    def balance(self) -> Balance:
        """Where its credits are."""

    @property
    def grants(self) -> tuple[Grant, ...]:
        """All its grants."""

    @property
    def operations(self) -> tuple[Operation, ...]:
        """Its open operations."""


class Target(Protocol):
    """One account and its tenant's catalog, wherever they are kept."""

    def execute(self, command: Command, key: str, now: datetime) -> Event | LedgerError | None:
        """Return the command's own event, None if there was nothing to do, or its refusal."""

    def state(self, now: datetime) -> State:
        """Return the account with all that is due at `now`."""

    def close(self) -> None:
        """Check what can be checked at the end, and let go of everything."""


class InMemory:
    """The rules alone: `decide`, `evolve` and a list of stored events."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.account = Account()
        """Folds every event and forgets nothing."""
        self.twin = Account()
        """Is put away as a snapshot after each command, and recalls closed operations."""
        self.catalog = Catalog()
        self.stored: list[tuple[str, bytes]] = []
        self.receipts: dict[str, tuple[Command, Event]] = {}

    def execute(self, command: Command, key: str, now: datetime) -> Event | LedgerError | None:
        """Decide, check and fold; a key that is known gets its first answer again."""
        if key in self.receipts:
            first, event = self.receipts[key]
            return event if first == command else IdempotencyMismatch()
        try:
            own = (
                self._on_tenant(command, now)
                if isinstance(command, TenantCommand)
                else self._on_account(command, key, now)
            )
        except LedgerError as refusal:
            return refusal
        if own is not None:
            self.receipts[key] = (command, own)
        return own

    def state(self, now: datetime) -> Snapshot:
        """Return the account with all that is due at `now`."""
        _, settled = settle(self.account, now)
        return settled.snapshot()

    def close(self) -> None:
        """Replay everything from its stored bytes and compare."""
        replayed, catalog = Account(), Catalog()
        for name, state in self.stored:
            event = decode(name, state).event
            if isinstance(event, AccountEvent):
                evolve(replayed, event)
            else:
                evolve_tenant(catalog, event)
        assert fingerprint(replayed) == fingerprint(self.account)
        assert catalog == self.catalog

    def _on_tenant(self, command: TenantCommand, now: datetime) -> Event:
        event = decide_tenant(self.catalog, command, now)
        self._store(event, None)
        evolve_tenant(self.catalog, event)
        return event

    def _on_account(self, command: AccountCommand, key: str, now: datetime) -> Event | None:
        before = fingerprint(self.account)
        events = answer = self._decide(self.account, command, key, now)
        assert fingerprint(self.account) == before, "deciding changed the account"
        self._settling_first_is_the_same(command, key, now, answer)
        if isinstance(events, LedgerError):
            raise events
        self._twin_decides_the_same(command, key, now, events)
        due = settle(self.account, now)[0]
        for event in events:
            evolve(self.account, event)
            check_books(self.account)
            self._store(event, self.account.balance)
        assert not self.account.is_due(now)
        self._twin_is_the_same()
        return events[-1] if len(events) > len(due) else None

    def _decide(
        self, account: Account, command: AccountCommand, key: str, now: datetime
    ) -> tuple[AccountEvent, ...] | LedgerError:
        try:
            # As the writer does: who does not say that he asks the catalog has none.
            prices = self.catalog if asks_catalog(command) else NO_PRICES
            return decide(account, command, now, key=key, prices=prices)
        except LedgerError as refusal:
            return refusal

    def _settling_first_is_the_same(
        self,
        command: AccountCommand,
        key: str,
        now: datetime,
        answer: LedgerError | tuple[AccountEvent, ...],
    ) -> None:
        if not self.account.is_due(now):
            return
        settled = self.account.fork()
        due = decide(settled, Settle(), now)
        for event in due:
            evolve(settled, event)
        assert not settled.is_due(now)
        after = self._decide(settled, command, key, now)
        if isinstance(after, LedgerError):
            assert isinstance(answer, type(after))
            assert after.facts == answer.facts
        else:
            assert (*due, *after) == answer

    def _twin_decides_the_same(
        self, command: AccountCommand, key: str, now: datetime, events: Sequence[AccountEvent]
    ) -> None:
        """Restore the twin from its snapshot, recall what the command needs, and go on with it."""
        twin = Account.restore(self.twin.snapshot())
        name = recalled_by(command)
        if name is not None and twin.operation(name) is None:
            operation = recall(self._events_about(name))
            if operation is not None:
                twin.put_operation(operation)
        assert decide(twin, command, now, key=key, prices=self.catalog) == events
        for event in events:
            evolve(twin, event)
        self.twin = twin

    def _twin_is_the_same(self) -> None:
        twin, account = self.twin, self.account
        assert twin.snapshot() == account.snapshot()
        assert all(account.operation(name) == one for name, one in twin.closed.items())

    def _events_about(self, name: str) -> list[OperationEvent]:
        events = [decode(stored, state).event for stored, state in self.stored]
        about = [event for event in events if is_operation_event(event)]
        return [event for event in about if subject_of(event) == name]

    def _store(self, event: Event, balance: Balance | None) -> None:
        name = NAME_OF[type(event)]
        state = encode(event, by="key:test", reason="why", balance=balance)
        fact = decode(name, state)
        assert fact.event == event
        assert fact.balance == balance
        assert encode(fact.event, by=fact.by, reason=fact.reason, balance=fact.balance) == state
        self.stored.append((name, state))


def fingerprint(account: Account) -> tuple[object, ...]:
    """Return everything that an account answers from, as a value."""
    lines = {feature: line.copy() for feature, line in account.lines.by_feature.items() if line}
    standing = {entry for entry in account.deadlines if account._stands(entry)}
    return (
        account.snapshot(),
        account.closed.copy(),
        account.lines.common.copy(),
        lines,
        standing,
    )


def check_books(account: Account) -> None:
    """Assert that every credit is in one place, and that grants, operations and balance agree."""
    balance, grants = account.balance, account.grants.values()
    assert balance.holds(), balance
    for grant in grants:
        parts = [getattr(grant, bucket) for bucket in BUCKETS]
        assert grant.amount == sum(parts), grant
        assert min(parts) >= 0, grant
        assert grant.available == 0 or grant.status == "active", grant
        assert grant.pending == 0 or grant.status in {"pending", "frozen"}, grant
        assert 0 <= grant.owing <= grant.reserved, grant
        assert 0 <= grant.clawed <= grant.consumed, grant
    for bucket in BUCKETS:
        assert getattr(balance, bucket) == sum(getattr(grant, bucket) for grant in grants), bucket
    assert balance.granted == sum(grant.amount for grant in grants)
    held = account.open.values()
    assert all(operation.status == "open" for operation in held)
    assert not any(one.remaining or one.status == "open" for one in account.closed.values())
    pinned = sum(draw.amount for operation in held for draw in operation.pinned)
    assert balance.reserved == pinned
    assert balance.overdraft_reserved == sum(operation.overdraft for operation in held)
    assert balance.due_at == min(_deadlines(account), default=None)


def _deadlines(account: Account) -> list[datetime]:
    grants = account.grants.values()
    return [
        *(grant.effective_at for grant in grants if grant.status == "pending"),
        *(
            grant.expires_at
            for grant in grants
            if grant.status in {"pending", "active", "frozen"} and grant.expires_at
        ),
        *(operation.expires_at for operation in account.open.values() if operation.expires_at),
    ]
