"""What a command costs does not grow with what the account holds: the work is counted, not timed.

Work is the steps of Python code that are taken, and nothing is copied or walked through behind
them: the containers of the account refuse that here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from types import FrameType
from typing import Any, NoReturn

import pytest

from ledger.domain.account import Account
from ledger.domain.commands import AccountCommand, PutAccount, Settle
from ledger.domain.decide import decide
from ledger.domain.evolve import evolve
from tests.domain.scenario import NOON, at, capture, deduct, extend, grant, release, reserve

FEW, MANY = 10, 2_000


def _walked(*_: object) -> NoReturn:
    raise AssertionError("all that the account holds was walked through")


class NotWalked(dict[str, Any]):
    """A map of which single entries may be asked, and nothing else."""

    __iter__ = items = keys = values = copy = _walked


class NotCopied(list[Any]):
    """A list that may be searched, but not copied or sorted."""

    copy = sort = reverse = _walked


def watched(account: Account) -> Account:
    """Return the account, made so that walking through what it holds fails."""
    account.grants = NotWalked(account.grants)
    account.open = NotWalked(account.open)
    account.deadlines = NotCopied(account.deadlines)
    account.lines.common = NotCopied(account.lines.common)
    for feature, line in account.lines.by_feature.items():
        account.lines.by_feature[feature] = NotCopied(line)
    return account


def steps(work: Callable[[], object]) -> int:
    """Return how many steps of Python code `work` takes."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def do(account: Account, command: AccountCommand, seconds: int = 0) -> None:
    for event in decide(account, command, at(seconds), key="key"):
        evolve(account, event)


def after(*commands: AccountCommand) -> Account:
    account = Account()
    for command in (PutAccount(), *commands):
        do(account, command)
    return account


def alike(size: int) -> Account:
    """So many grants, and as many reservations open."""
    return after(
        *(grant(100, f"g{i}", expires_at=at(900 + i)) for i in range(size)),
        *(reserve(1, f"r{i}") for i in range(size)),
    )


def of_other_features(size: int) -> Account:
    """Grants that rank first and cannot pay, all of one feature and each of its own."""
    return after(
        *(grant(100, f"o{i}", priority=1, scope=("text",)) for i in range(size)),
        *(grant(100, f"p{i}", priority=1, scope=(f"f{i}",)) for i in range(size)),
        grant(1_000),
    )


def emptied(size: int) -> Account:
    """Grants that rank first and have nothing left."""
    return after(
        *(grant(1, f"e{i}", scope=("image",)) for i in range(size)),
        deduct(size, "all", "image"),
        grant(1_000),
    )


def closed(size: int) -> Account:
    """Reservations that are over, and their deadlines."""
    commands: list[AccountCommand] = [grant(10_000)]
    for i in range(size):
        commands += [reserve(1, f"c{i}", ttl_seconds=600), release(f"c{i}")]
    return after(*commands)


@pytest.mark.parametrize("kind", [alike, of_other_features, emptied, closed])
@pytest.mark.parametrize("due", [False, True])
def test_a_command_costs_the_same_however_much_the_account_holds(
    kind: Callable[[int], Account], *, due: bool
) -> None:
    def work(account: Account) -> None:
        if due:
            do(account, reserve(1, "soon", ttl_seconds=1))
        for command in (
            reserve(7, "new", "image"),
            extend("new", amount=2),
            capture(5, "new", final=False),
            capture(2, "new"),
            deduct(3, "direct", "image"),
            Settle(),
        ):
            do(account, command, seconds=1)

    few, many = watched(kind(FEW)), watched(kind(MANY))
    assert steps(lambda: work(many)) <= 1.02 * steps(lambda: work(few))


def test_going_back_costs_what_has_changed() -> None:
    def work(account: Account) -> None:
        account.begin()
        do(account, reserve(7, "new"))
        do(account, capture(7, "new"))
        account.roll_back()

    few, many = watched(alike(FEW)), watched(alike(MANY))
    assert steps(lambda: work(many)) == steps(lambda: work(few))


def test_what_is_due_costs_the_same_each_however_much_it_is() -> None:
    def each(account: Account, size: int) -> float:
        later = NOON + timedelta(seconds=600)
        return steps(lambda: decide(account, Settle(), later)) / size

    assert each(watched(alike(MANY)), MANY) <= 1.02 * each(watched(alike(FEW)), FEW)
