"""The account as a thing that is kept: forgotten in part, put away, forked, and settled."""

from __future__ import annotations

from ledger.domain.account import CLOSED_KEPT, DEADLINES_SPARE, Account
from ledger.domain.catalog import Catalog
from ledger.domain.commands import AccountCommand, Adjust, PutAccount, Settle
from ledger.domain.decide import decide, recalled_by, settle
from ledger.domain.events import (
    AccountEvent,
    GrantActivated,
    GrantExpired,
    ReservationExpired,
    operation_of,
    subject_of,
)
from ledger.domain.evolve import evolve
from ledger.domain.operations import is_operation_event, recall
from tests.domain.scenario import (
    NOON,
    at,
    capture,
    deduct,
    extend,
    given,
    grant,
    refund,
    release,
    reserve,
)
from tests.domain.targets import fingerprint


def test_trimming_and_recalling_is_as_good_as_never_forgetting() -> None:
    kept, trimmed, history = Account(), Account(), list[AccountEvent]()
    names = [f"r{number}" for number in range(5 * CLOSED_KEPT)]
    commands: list[AccountCommand] = [PutAccount(), grant(10_000)]
    for name in names:
        commands += [reserve(5, name, ttl_seconds=60), capture(3, name)]
    commands += [refund(f"{name}~1", 2) for name in names]
    commands += [refund(f"{name}~1") for name in reversed(names)]
    for number, command in enumerate(commands):
        wanted = recalled_by(command)
        if wanted is not None and trimmed.operation(wanted) is None:
            about = [event for event in history if is_operation_event(event)]
            operation = recall(event for event in about if subject_of(event) == wanted)
            if operation is not None:
                trimmed.put_operation(operation)
        events = decide(kept, command, NOON, key=str(number))
        assert decide(trimmed, command, NOON, key=str(number)) == events
        for event in events:
            evolve(kept, event)
            evolve(trimmed, event)
        history += events
        trimmed.trim()
        assert trimmed.snapshot() == kept.snapshot()
    assert len(kept.closed) == len(names)
    assert len(trimmed.closed) <= 2 * CLOSED_KEPT
    assert kept.balance.consumed == 0


def test_trimming_keeps_what_is_open_however_old() -> None:
    scenario = given(grant(1_000), reserve(1, "old"))
    for number in range(3 * CLOSED_KEPT):
        scenario.do(deduct(1, f"d{number}"))
    scenario.account.trim()
    assert set(scenario.account.open) == {"old"}
    assert CLOSED_KEPT <= len(scenario.account.closed) <= 2 * CLOSED_KEPT


def test_a_fork_and_its_original_go_their_own_ways() -> None:
    scenario = given(grant(10), reserve(4))
    before, fork = fingerprint(scenario.account), scenario.account.fork()
    for event in decide(fork, deduct(6), NOON):
        evolve(fork, event)
    assert fingerprint(scenario.account) == before
    assert fork.balance.available == 0


def test_deciding_does_not_record_what_is_due() -> None:
    scenario = given(grant(10, expires_at=at(60)), 60)
    before = fingerprint(scenario.account)
    events = decide(scenario.account, Adjust(amount=5), scenario.now, key="k")
    assert [type(event).__name__ for event in events] == ["GrantExpired", "BalanceAdjusted"]
    assert fingerprint(scenario.account) == before


def test_what_is_due_happens_in_the_order_of_its_times() -> None:
    scenario = given(
        grant(10, "later", effective_at=at(30), expires_at=at(90)),
        grant(5, "first", expires_at=at(60)),
        reserve(5, ttl_seconds=60),
        100,
    )
    due, settled = settle(scenario.account, scenario.now)
    assert [(type(event), subject_of(event)) for event in due] == [
        (GrantActivated, None),
        (ReservationExpired, "r"),
        (GrantExpired, None),
        (GrantExpired, None),
    ]
    assert settled.balance.expired == 15
    assert settled.balance.due_at is None


def test_settling_twice_does_nothing_the_second_time() -> None:
    scenario = given(grant(10, expires_at=at(60)), 60, Settle())
    assert scenario.account.balance.expired == 10
    scenario.when(Settle()).nothing()


def test_the_balance_tells_when_time_changes_it_next() -> None:
    scenario = given(grant(10, effective_at=at(30), expires_at=at(90)), 0)
    assert scenario.account.balance.due_at == at(30)
    scenario.do(30)
    scenario.do(reserve(5, ttl_seconds=10))
    assert scenario.account.balance.due_at == at(40)
    scenario.do(extend(ttl_seconds=500))
    assert scenario.account.balance.due_at == at(90)
    scenario.do(release())
    assert scenario.account.balance.due_at == at(90)


def test_deadlines_that_no_longer_stand_do_not_pile_up() -> None:
    scenario = given(grant(10), reserve(1))
    for number in range(1_000):
        scenario.do(extend(amount=0))
        scenario.do(1 if number % 2 else 0)
        scenario.do(extend(ttl_seconds=600 + number))
        scenario.account.trim()
    assert len(scenario.account.deadlines) < 2 * DEADLINES_SPARE


def test_a_deadline_of_what_was_rolled_back_means_nothing_to_its_namesake() -> None:
    scenario = given()
    scenario.account.begin()
    scenario.do(grant(10, "a", expires_at=at(10)))
    scenario.do(grant(10, "b", effective_at=at(20)))
    scenario.do(reserve(1, ttl_seconds=30))
    scenario.account.roll_back()
    assert scenario.account.balance.due_at is None
    scenario.do(grant(10, "a", expires_at=at(90)))
    scenario.do(grant(10, "b", effective_at=at(80)))
    scenario.do(reserve(1, ttl_seconds=70))
    assert scenario.account.balance.due_at == at(70)


def test_an_account_restored_from_its_snapshot_is_the_same_account() -> None:
    scenario = given(
        grant(10, "a", expires_at=at(60)),
        grant(10, "b", effective_at=at(30)),
        reserve(4),
        deduct(3),
    )
    restored = Account.restore(scenario.account.snapshot())
    assert restored.snapshot() == scenario.account.snapshot()
    assert fingerprint(restored)[2:] == fingerprint(scenario.account)[2:]
    for now in (at(0), at(30), at(60), at(600)):
        command = Adjust(amount=1)
        assert decide(restored, command, now, prices=Catalog()) == decide(
            scenario.account, command, now, prices=Catalog()
        )


def test_the_operation_of_a_deduction_is_found_from_its_name() -> None:
    assert operation_of("job-1~12") == "job-1"
    assert operation_of("spend-1") == "spend-1"
