"""Reading the projections: one row, pages of rows, filters, and only of one's own tenant."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from psycopg import AsyncConnection

from ledger.domain.account import Account
from ledger.domain.commands import Command, Deduct, GrantCredits, PutAccount, Refund
from ledger.domain.entities import Charge, Operation
from ledger.domain.events import subject_of
from ledger.records import Recorded
from ledger.store import Store
from projections.accounts import list_accounts, read_account
from projections.audit import AuditFilter, list_events
from projections.balances import due_accounts, read_balance
from projections.cursors import Page, encode_cursor
from projections.grant_queries import list_grants, read_grant
from projections.reservations import list_reservations, read_reservation
from projections.runner import Runner
from tests.projections.conftest import ask
from tests.projections.histories import ACCOUNTS, TENANTS, History, events_of_all, folded

T = TypeVar("T")
List = Callable[[AsyncConnection[Any], str | None], Awaitable[Page[T]]]


@pytest.fixture(scope="module")
def events(told: Store) -> list[Recorded]:
    return events_of_all(told)


@pytest.fixture(scope="module")
def account(events: list[Recorded]) -> Account:
    """Return north's Ann."""
    return folded(events)["north", "ann"]


def reservations(account: Account) -> list[Operation]:
    return [one for one in (*account.open.values(), *account.closed.values()) if one.expires_at]


def pages(store: Store, question: List[T]) -> list[T]:
    """Follow the cursors from the first page to the last."""
    found: list[T] = []
    cursor = None
    while True:
        page = ask(store, lambda conn, cursor=cursor: question(conn, cursor))
        found += page.data
        cursor = page.next_cursor
        if cursor is None:
            return found


def test_a_balance_is_read_by_tenant_and_account(told: Store, account: Account) -> None:
    row = ask(told, lambda conn: read_balance(conn, "north", "ann"))
    assert row is not None
    assert (row.balance, row.version) == (account.balance, account.version)
    assert ask(told, lambda conn: read_balance(conn, "west", "ann")) is None


def test_accounts_are_due_when_their_time_has_come(told: Store, events: list[Recorded]) -> None:
    due = {key: one.balance.due_at for key, one in folded(events).items() if one.balance.due_at}
    last = max(due.values())
    found = ask(told, lambda conn: due_accounts(conn, last))
    assert {(one.tenant, one.account): one.due_at for one in found} == due
    assert [one.due_at for one in found] == sorted(due.values())
    earlier = ask(told, lambda conn: due_accounts(conn, min(due.values()) - timedelta(seconds=1)))
    assert earlier == []
    assert len(ask(told, lambda conn: due_accounts(conn, last, 1))) == 1


def test_grants_are_listed_by_age_and_found_by_id(told: Store, account: Account) -> None:
    found = pages(told, lambda conn, at: list_grants(conn, "north", "ann", cursor=at, limit=3))
    by_age = sorted(account.grants.values(), key=lambda grant: (grant.sequence, grant.id))
    assert [row.grant_id for row in found] == [grant.id for grant in by_age]
    one = ask(told, lambda conn: read_grant(conn, "north", "ann", by_age[0].id))
    assert one == found[0]
    assert ask(told, lambda conn: read_grant(conn, "south", "ann", by_age[0].id)) is None


def test_the_several_grants_of_one_refund_are_listed_each(store: Store, history: History) -> None:
    def put(command: Command) -> None:
        assert history.order("north", "dot", command) is not None

    put(PutAccount())
    soon = history.now + timedelta(hours=1)
    for scope in (("text",), ("image", "text"), ()):
        put(GrantCredits(amount=5, kind="paid", scope=scope, expires_at=soon))
    put(Deduct(id="all", charge=Charge(amount=15, feature="text")))
    history.now += timedelta(hours=2)
    put(Refund(deduction="all"))
    runner = Runner(store)
    runner.start()
    history.catch_up()
    runner.close()

    found = pages(store, lambda conn, at: list_grants(conn, "north", "dot", cursor=at, limit=1))

    assert len(found) == 6
    assert [row.amount for row in found if row.instead_of] == [5, 5, 5]


def test_grants_can_be_told_apart_by_status(told: Store, account: Account) -> None:
    for status in ("pending", "active", "expired", "revoked"):
        page = ask(
            told, lambda conn, s=status: list_grants(conn, "north", "ann", status=s, limit=500)
        )
        assert {row.grant_id for row in page.data} == {
            grant.id for grant in account.grants.values() if grant.status == status
        }


def test_reservations_are_listed_newest_first_and_found_by_id(
    told: Store, account: Account
) -> None:
    found = pages(
        told, lambda conn, at: list_reservations(conn, "north", "ann", cursor=at, limit=4)
    )
    wanted = {one.id: one for one in reservations(account)}
    assert {row.reservation: row.status for row in found} == {
        name: one.status for name, one in wanted.items()
    }
    order = [row.created_position for row in found]
    assert order == sorted(order, reverse=True)
    assert (
        ask(told, lambda c: read_reservation(c, "north", "ann", found[0].reservation)) == found[0]
    )


def test_reservations_can_be_told_apart_by_status_and_job(told: Store, account: Account) -> None:
    wanted = reservations(account)
    for status in ("open", "captured", "released", "expired"):
        for job in (None, "job-1"):
            page = ask(
                told,
                lambda conn, s=status, j=job: list_reservations(
                    conn, "north", "ann", status=s, job=j, limit=500
                ),
            )
            assert {row.reservation for row in page.data} == {
                one.id for one in wanted if one.status == status and job in {None, one.job}
            }


def test_the_directory_lists_a_tenants_accounts_with_their_balances(
    told: Store, account: Account
) -> None:
    found = pages(told, lambda conn, at: list_accounts(conn, "north", cursor=at, limit=2))
    assert [row.account for row in found] == sorted(ACCOUNTS)
    assert found[0].balance == account.balance
    assert ask(told, lambda conn: read_account(conn, "north", "ann")) == found[0]
    assert ask(told, lambda conn: read_account(conn, "north", "unknown")) is None


@pytest.mark.parametrize("search", ["NN", "cy", "of SOUTH", "zz", "n_", "a%", "L%_", "\\"])
def test_the_directory_is_searched_by_a_part_of_id_or_label_taken_literally(
    told: Store, search: str
) -> None:
    everybody = ask(told, lambda conn: list_accounts(conn, "south")).data
    page = ask(told, lambda conn: list_accounts(conn, "south", search=search))
    assert page.data == tuple(
        row
        for row in everybody
        if search.lower() in row.account.lower() or search.lower() in (row.label or "").lower()
    )


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize(
    "where",
    [
        {},
        {"account": "bob"},
        {"name": "credits.granted.v1"},
        {"by": "key:two"},
        {"key": "k30"},
        {"subject": "up-40"},
        {"account": "ann", "by": "key:one", "name": "credits.reserved.v1"},
        {"account": "bob", "key": "k30"},
        {"account": "ann", "subject": "up-40"},
        {"account": "nobody"},
    ],
)
def test_the_audit_trail_is_filtered_and_paged_by_position(
    told: Store,
    events: list[Recorded],
    where: dict[str, str],
    newest_first: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    for tenant in TENANTS:
        wanted = [
            one
            for one in events
            if one.tenant == tenant
            and all(
                value == (subject_of(one.event) if name == "subject" else getattr(one, name))
                for name, value in where.items()
            )
        ]
        found = pages(
            told,
            lambda conn, at, tenant=tenant: list_events(
                conn,
                tenant,
                AuditFilter(**where),
                newest_first=newest_first,
                cursor=at,
                limit=37,
            ),
        )
        assert found == (wanted[::-1] if newest_first else wanted)


def test_the_audit_trail_is_cut_by_time_half_open(told: Store, events: list[Recorded]) -> None:
    some = events[100].recorded_at, events[300].recorded_at
    where = AuditFilter(start=some[0], end=some[1])
    page = ask(told, lambda conn: list_events(conn, "north", where, newest_first=False, limit=500))
    assert list(page.data) == [
        one for one in events if one.tenant == "north" and some[0] <= one.recorded_at < some[1]
    ]


@pytest.mark.parametrize("newest_first", [True, False])
def test_an_accounts_events_go_on_from_any_event_of_the_tenant(
    told: Store,
    events: list[Recorded],
    newest_first: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    first = ask(told, lambda conn: list_events(conn, "north", AuditFilter(account="bob"), limit=20))
    assert first.next_cursor is not None
    at = first.data[-1].position
    name = "events-newest" if newest_first else "events-oldest"
    page = ask(
        told,
        lambda conn: list_events(
            conn,
            "north",
            AuditFilter(account="ann"),
            newest_first=newest_first,
            cursor=encode_cursor(name, at),
            limit=500,
        ),
    )
    anns = [one for one in events if (one.tenant, one.account) == ("north", "ann")]
    assert list(page.data) == (
        [one for one in anns if one.position < at][::-1]
        if newest_first
        else [one for one in anns if one.position > at][:500]
    )
