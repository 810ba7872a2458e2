"""What is in the rows: the same as the domain's own folding of each account says."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec import to_builtins
from msgspec.structs import replace
from psycopg.rows import dict_row

from ledger.domain.account import Account
from ledger.domain.entities import Balance, Grant, Metered, Operation
from ledger.domain.events import NAMES, CreditsReserved, ReservationExtended, subject_of
from ledger.records import Recorded
from ledger.store import Store
from projections.tables import connect
from tests.projections.histories import events_of_all, folded, spending

UNTOLD = {"reversed": 0, "taken": 0, "owing": 0, "clawed": 0, "revision": 0, "final": False}
"""What only decisions ask of a grant."""


@pytest.fixture(scope="module")
def events(told: Store) -> list[Recorded]:
    return events_of_all(told)


@pytest.fixture(scope="module")
def accounts(events: list[Recorded]) -> dict[tuple[str, str], Account]:
    return folded(events)


def rows(store: Store, query: str) -> list[dict[str, Any]]:
    with connect(store) as connection, connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.encode()).fetchall()


def of_all(
    accounts: dict[tuple[str, str], Account], part: str
) -> Iterator[tuple[tuple[str, str, str], Any]]:
    for (tenant, account), state in accounts.items():
        for name, one in getattr(state, part).items():
            yield (tenant, account, name), one


def operations(
    accounts: dict[tuple[str, str], Account],
) -> Iterator[tuple[tuple[str, str, str], Any]]:
    yield from of_all(accounts, "open")
    yield from of_all(accounts, "closed")


def test_the_history_has_every_kind_of_event(events: list[Recorded]) -> None:
    assert {recorded.name for recorded in events} == set(NAMES)


def test_a_balance_row_is_the_account_folded(
    told: Store, accounts: dict[tuple[str, str], Account]
) -> None:
    found = {}
    for row in rows(told, "SELECT * FROM projections.balances_v2"):
        balance = Balance(**{name: row[name] for name in Balance.__struct_fields__})
        found[row["tenant"], row["account"]] = (row["version"], balance)
    assert found == {key: (one.version, one.balance) for key, one in accounts.items()}


def test_a_grant_row_is_the_grant_folded(
    told: Store, accounts: dict[tuple[str, str], Account]
) -> None:
    found = {}
    for row in rows(told, "SELECT * FROM projections.grants_v1"):
        fields = {name: row[name] for name in Grant.__struct_fields__ if name in row}
        fields["id"] = row["grant_id"]
        found[row["tenant"], row["account"], row["grant_id"]] = msgspec.convert(fields, Grant)
    folded = {key: replace(one, **UNTOLD) for key, one in of_all(accounts, "grants")}
    assert found == folded
    assert {one.status for one in found.values()} >= {"active", "frozen", "expired", "revoked"}


def test_a_reservation_row_is_the_operation_folded(
    told: Store, accounts: dict[tuple[str, str], Account]
) -> None:
    found = {
        (row["tenant"], row["account"], row["reservation"]): row
        for row in rows(told, "SELECT * FROM projections.reservations_v2")
    }
    wanted = {key: one for key, one in operations(accounts) if one.expires_at}
    assert found.keys() == wanted.keys()
    for key, row in found.items():
        one: Operation = wanted[key]
        for name in ("status", "amount", "captured", "remaining", "expires_at", "feature"):
            assert row[name] == getattr(one, name), name
        assert (row["actor"], row["job"]) == (one.actor, one.job)
        assert row["pinned"] == list(to_builtins(one.pinned))
        assert row["price"] == (to_builtins(one.price) if one.price else None)


def test_a_reservation_row_has_all_slices_that_it_ever_drew(
    told: Store, events: list[Recorded]
) -> None:
    wanted: dict[tuple[str, str | None, str], list[object]] = {}
    for recorded in events:
        event = recorded.event
        if isinstance(event, CreditsReserved | ReservationExtended):
            key = (recorded.tenant, recorded.account, event.reservation)
            wanted.setdefault(key, []).extend(to_builtins(event.draws))
    for row in rows(told, "SELECT * FROM projections.reservations_v2"):
        assert row["draws"] == wanted.pop((row["tenant"], row["account"], row["reservation"]))
    assert not wanted


def test_there_is_a_usage_row_for_each_deduction_folded(
    told: Store, events: list[Recorded], accounts: dict[tuple[str, str], Account]
) -> None:
    wanted = {
        (*key[:2], deduction.id): (deduction.amount, deduction.debt, deduction.refunded)
        for key, operation in operations(accounts)
        for deduction in operation.deductions
    }
    found = rows(told, "SELECT * FROM projections.usage_v1")
    assert {
        (row["tenant"], row["account"], row["deduction"]): tuple(
            row[name] for name in ("amount", "debt", "refunded")
        )
        for row in found
    } == wanted
    assert {row["position"] for row in found} == {one.position for one in spending(events)}
    assert any(row["refunded"] for row in found)
    assert any(row["amount"] == 0 for row in found)


def test_a_usage_rows_counts_add_up_to_what_its_operation_has_metered(
    told: Store, accounts: dict[tuple[str, str], Account]
) -> None:
    sums: dict[tuple[str, str, str], list[int]] = {}
    for row in rows(told, "SELECT * FROM projections.usage_v1 WHERE reservation IS NOT NULL"):
        one = sums.setdefault((row["tenant"], row["account"], row["reservation"]), [0, 0, 0])
        for place, name in enumerate(("quantity", "input_tokens", "output_tokens")):
            one[place] += row[name] or 0
    for key, operation in operations(accounts):
        metered = operation.metered if operation.expires_at else Metered()
        wanted = [metered.quantity, metered.usage.input_tokens, metered.usage.output_tokens]
        assert sums.get(key, [0, 0, 0]) == wanted


def test_a_usage_row_has_the_providers_cost_of_what_it_counts(told: Store) -> None:
    found = rows(told, "SELECT * FROM projections.usage_v1")
    for row in found:
        if row["input_tokens"] is None:
            assert row["provider_cost"] is None
        else:
            counts = row["input_tokens"], row["output_tokens"], row["cached_input_tokens"]
            exact = sum(a * b for a, b in zip(counts, (300_000, 700_000, 100_000), strict=True))
            assert row["provider_cost"] == -(-exact // 1_000_000)
    assert any(row["provider_cost"] for row in found)


def test_the_directory_has_each_account_as_it_was_put_last(
    told: Store, accounts: dict[tuple[str, str], Account]
) -> None:
    assert {
        (row["tenant"], row["account"]): (row["label"], row["overdraft_limit"], row["metadata"])
        for row in rows(told, "SELECT * FROM projections.accounts_v1")
    } == {
        key: (one.label, one.balance.overdraft_limit, one.metadata) for key, one in accounts.items()
    }


def test_the_audit_index_has_every_event(told: Store, events: list[Recorded]) -> None:
    assert [
        tuple(row.values())
        for row in rows(told, "SELECT * FROM projections.audit_v2 ORDER BY position")
    ] == [
        (
            recorded.tenant,
            recorded.position,
            recorded.name,
            recorded.by,
            recorded.key,
            subject_of(recorded.event),
            recorded.recorded_at,
        )
        for recorded in events
    ]


def test_the_hourly_sums_are_those_of_the_rows(told: Store) -> None:
    columns = "amount, refunded, quantity, input_tokens, output_tokens, cached_input_tokens, count"
    kept = f"""
        SELECT tenant, account, hour, feature, model, actor, {columns}
        FROM projections.usage_hours_v1 ORDER BY 1, 2, 3, 4, 5, 6"""
    summed = """
        SELECT tenant, account, date_trunc('hour', recorded_at, 'UTC') AS hour, feature, model,
            actor, sum(amount) AS amount, sum(refunded) AS refunded,
            coalesce(sum(quantity), 0) AS quantity, coalesce(sum(input_tokens), 0) AS input_tokens,
            coalesce(sum(output_tokens), 0) AS output_tokens,
            coalesce(sum(cached_input_tokens), 0) AS cached_input_tokens, count(*) AS count
        FROM projections.usage_v1 GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6"""
    assert rows(told, kept) == rows(told, summed)
