"""When an account is looked at for what time has done: never late, and seldom for nothing."""

from datetime import UTC, datetime, timedelta
from typing import Any

from ledger.domain.commands import Release, Reserve
from ledger.domain.entities import Charge
from ledger.store import Store
from projections.balances import BALANCES, due_accounts
from projections.projection import tidy
from projections.rebuild import differences
from projections.runner import Runner
from projections.tables import connect
from tests.projections.conftest import ask
from tests.projections.histories import History

HOUR = timedelta(hours=1)


def rows(store: Store, account: str) -> list[tuple[Any, ...]]:
    with connect(store) as connection:
        return connection.execute(
            "SELECT due_at, look_at FROM projections.balances_v2"
            " WHERE tenant = 'north' AND account = %s",
            (account,),
        ).fetchall()


def is_due(store: Store, at: datetime) -> bool:
    found = ask(store, lambda conn: due_accounts(conn, at))
    return ("north", "ann") in {(one.tenant, one.account) for one in found}


def test_an_account_is_looked_at_no_later_than_it_is_due(history: History, store: Store) -> None:
    def reserve(seconds: int) -> str:
        recorded = history.order(
            "north", "ann", Reserve(charge=Charge(amount=1), ttl_seconds=seconds)
        )
        assert recorded is not None
        history.catch_up()
        return str(recorded.event.reservation)  # type: ignore[union-attr]

    def release(reservation: str) -> None:
        assert history.order("north", "ann", Release(reservation=reservation)) is not None
        history.catch_up()

    history.now = now = datetime.now(UTC).replace(microsecond=0) - 10 * HOUR
    runner = Runner(store)
    runner.start()
    first = reserve(3 * 3600)
    assert rows(store, "ann") == [(now + 3 * HOUR, now + 3 * HOUR)]
    release(first)
    # The index keeps what it said: nothing is due, and nothing was written there.
    assert rows(store, "ann") == [(None, now + 3 * HOUR)]
    assert not is_due(store, now + 4 * HOUR)
    later = reserve(5 * 3600)
    assert rows(store, "ann") == [(now + 5 * HOUR, now + 3 * HOUR)]
    sooner = reserve(2 * 3600)
    assert rows(store, "ann") == [(now + 2 * HOUR, now + 2 * HOUR)]
    assert not is_due(store, now + 2 * HOUR - timedelta(seconds=1))
    assert is_due(store, now + 2 * HOUR)
    release(sooner)
    assert is_due(store, now + 5 * HOUR)
    assert not is_due(store, now + 4 * HOUR)
    runner.close()

    assert list(differences(store, "balances")) == []
    with connect(store) as connection:
        tidy(connection, BALANCES)
    assert rows(store, "ann") == [(now + 5 * HOUR, now + 5 * HOUR)]
    assert later


def test_a_look_that_has_passed_is_put_right_by_the_next_event(
    history: History, store: Store
) -> None:
    # A time that has yet to come, so that the runner does not put it right before.
    history.now = now = datetime.now(UTC).replace(microsecond=0) + 10 * HOUR
    runner = Runner(store)
    runner.start()
    looks = []
    for hours in (0, 0.5, 9):
        history.now = now + hours * HOUR
        for command in (Reserve(id=f"r{hours}", charge=Charge(amount=1), ttl_seconds=3600), None):
            assert history.order("north", "ann", command or Release(reservation=f"r{hours}"))
            history.catch_up()
        looks.append(rows(store, "ann"))
    runner.close()
    assert looks == [[(None, now + HOUR)], [(None, now + HOUR)], [(None, now + 10 * HOUR)]]
    assert list(differences(store, "balances")) == []
