"""`verify` finds each altered row, says which and why, and says nothing else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, LiteralString

import psycopg
import pytest

from ledger.append import Append, Rows
from ledger.chain import GENESIS
from ledger.codec import encode
from ledger.domain.commands import (
    Capture,
    Deduct,
    GrantCredits,
    Refund,
    Release,
    Reserve,
    SetFeature,
)
from ledger.domain.entities import Balance, Charge
from ledger.domain.events import AccountOpened
from ledger.records import stream_id
from ledger.verify import Finding, verify
from ledger.writer import Writer
from scrip.embedded import DatabaseUrls
from tests.ledger.conftest import NewWriter
from tests.ledger.room import TENANT, Clock, accepted, ask, deduct, opened, order, until

A, B, CATALOG = stream_id(TENANT, "a"), stream_id(TENANT, "b"), stream_id(TENANT, None)
EVENTS = 12
Tamper = Callable[[LiteralString], None]


@pytest.fixture
def history(new_writer: NewWriter, owner: psycopg.Connection[Any], clock: Clock) -> Writer:
    """Write two accounts of many kinds of events, a catalog, and a snapshot of each account."""
    writer = new_writer(snapshot_every=7)
    priced = Charge(feature="image", quantity=1_000_000)
    ask(
        writer,
        [
            order(SetFeature(feature="image", name="Image", unit_price=1), "f1", None),
            order(SetFeature(feature="image", name="Image", unit_price=2), "f2", None),
            order(SetFeature(feature="text", name="Text", unit_price=2), "f3", None),
        ],
    )
    for account in "ab":
        answers = ask(
            writer,
            [
                *opened(account, 100),
                order(GrantCredits(id="g", amount=50, kind="promotional"), "g", account),
                order(Reserve(id="r", charge=priced), "r", account),
                order(Capture(reservation="r", charge=priced), "c", account),
                order(Reserve(id="s", charge=Charge(amount=60)), "s", account),
                order(Release(reservation="s"), "rel", account),
                order(Deduct(id="d", charge=Charge(amount=70)), "d", account),
                order(Refund(deduction="d", amount=30), "f", account),
                order(Reserve(id="t", charge=Charge(amount=5), ttl_seconds=10), "t", account),
            ],
        )
        assert len(accepted(answers)) == 10
    clock.wait(20)
    ask(writer, [deduct(1, "last", account) for account in "ab"])
    until(lambda: owner.execute("SELECT count(*) FROM scrip.snapshots").fetchone() == (2,))
    return writer


@pytest.fixture
def tamper(owner: psycopg.Connection[Any]) -> Tamper:
    """Return a way to change the ledger as its owner; `a` and `b` are the accounts' streams."""

    def execute(statement: LiteralString) -> None:
        cursor = owner.execute(
            statement, {"a": A, "b": B, "c": CATALOG, "z": stream_id(TENANT, "z")}
        )
        assert cursor.rowcount > 0, "nothing was changed"

    return execute


def found(database: DatabaseUrls, **settings: Any) -> list[tuple[str, str | None, int | None]]:
    return [
        (finding.rule, finding.account, finding.version)
        for finding in verify(database.app_url, **settings)
    ]


@pytest.mark.usefixtures("history")
def test_nothing_is_said_of_a_ledger_that_nobody_has_altered(database: DatabaseUrls) -> None:
    for settings in ({}, {"chains_only": True}, {"tenant": TENANT}, {"account": "a"}):
        assert found(database, **settings) == []


@pytest.mark.usefixtures("history")
def test_progress_says_how_many_rows_there_are(database: DatabaseUrls) -> None:
    told: list[tuple[int, int]] = []
    assert found(database, progress=lambda *counts: told.append(counts)) == []
    assert found(database, account="a", progress=lambda *counts: told.append(counts)) == []
    assert told == [(2 * EVENTS + 3, 2 * EVENTS + 3), (EVENTS, EVENTS)]


def test_nothing_is_said_of_an_empty_ledger(database: DatabaseUrls) -> None:
    assert found(database) == []


AT = " WHERE originator_id = %(a)s AND originator_version = 5"
CHANGES: list[LiteralString] = [
    "UPDATE scrip.ledger_events SET state = convert_to(regexp_replace(convert_from(state, 'UTF8'),"
    " '\"amount\":2', '\"amount\":1'), 'UTF8')" + AT,
    "UPDATE scrip.ledger_events SET state = state || ' '" + AT,
    "UPDATE scrip.ledger_events SET recorded_at = recorded_at + interval '1 microsecond'" + AT,
    "UPDATE scrip.ledger_events SET key = key || 'x'" + AT,
    "UPDATE scrip.ledger_events SET key = NULL, content = NULL" + AT,
    "UPDATE scrip.ledger_events SET content = sha256('x')" + AT,
    "UPDATE scrip.ledger_events SET tenant = 'other'" + AT,
    "UPDATE scrip.ledger_events SET account = 'other'" + AT,
    "UPDATE scrip.ledger_events SET account = NULL" + AT,
    "UPDATE scrip.ledger_events SET topic = 'credits.deducted.v1'" + AT,
    "UPDATE scrip.ledger_events SET subject = 'other'" + AT,
    "UPDATE scrip.ledger_events SET subject = NULL" + AT,
    "UPDATE scrip.ledger_events SET hash = sha256('x')" + AT,
]


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_row_is_found_and_nothing_else(
    change: LiteralString, tamper: Tamper, database: DatabaseUrls
) -> None:
    tamper(change)
    assert found(database) == [("hash", "a", 5)]
    assert found(database, chains_only=True) == [("hash", "a", 5)]
    assert found(database, tenant=TENANT, account="a") == [("hash", "a", 5)]
    assert found(database, account="b") == []


@pytest.mark.usefixtures("history")
def test_a_finding_names_the_row_and_what_is_wrong(tamper: Tamper, database: DatabaseUrls) -> None:
    tamper("UPDATE scrip.ledger_events SET state = state || ' '" + AT)
    assert list(verify(database.app_url)) == [
        Finding(
            rule="hash",
            stream=A,
            tenant=TENANT,
            account="a",
            version=5,
            position=8,
            what="the row is not what was written after the row before it",
        )
    ]


SWAP = """
UPDATE scrip.ledger_events one SET {columns} FROM scrip.ledger_events other
WHERE (one.originator_id, one.originator_version, other.originator_id, other.originator_version)
IN ((%(a)s, 4, {other}), ({other}, %(a)s, 4))
"""


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize("column", ["state", "hash", "recorded_at"])
def test_two_rows_of_one_stream_that_were_swapped_are_found_by_the_first(
    column: str, tamper: Tamper, database: DatabaseUrls
) -> None:
    tamper(_swap(column, "%(a)s, 12" if column == "recorded_at" else "%(a)s, 6"))
    assert found(database) == [("hash", "a", 4)]


@pytest.mark.usefixtures("history")
def test_two_rows_of_two_streams_that_were_swapped_are_both_found(
    tamper: Tamper, database: DatabaseUrls
) -> None:
    tamper(_swap("state", "%(b)s, 6"))
    assert sorted(found(database)) == [("hash", "a", 4), ("hash", "b", 6)]


def _swap(column: str, other: str) -> Any:
    return SWAP.format(columns=f"{column} = other.{column}", other=other)


def _delete(version: int) -> Any:
    return (
        "DELETE FROM scrip.ledger_events"
        f" WHERE originator_id = %(a)s AND originator_version = {version}"
    )


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize("version", [1, 5, 8, EVENTS - 1])
def test_a_removed_row_is_found_by_the_one_after_it(
    version: int, tamper: Tamper, database: DatabaseUrls
) -> None:
    tamper(_delete(version))
    assert found(database) == [("version", "a", version + 1)]
    assert found(database, chains_only=True) == [("version", "a", version + 1)]
    (finding,) = verify(database.app_url)
    assert finding.what == f"missing before this row: version {version}"


@pytest.mark.usefixtures("history")
def test_a_removed_row_is_found_although_those_after_it_are_numbered_anew(
    tamper: Tamper, database: DatabaseUrls
) -> None:
    tamper(_delete(5))
    for version in range(6, EVENTS + 1):
        tamper(_renumber(version, version - 1))
    assert found(database) == [("hash", "a", 5)]


def _renumber(old: int, new: int) -> Any:
    return (
        f"UPDATE scrip.ledger_events SET originator_version = {new}"
        f" WHERE originator_id = %(a)s AND originator_version = {old}"
    )


@pytest.mark.usefixtures("history")
def test_two_rows_that_changed_their_numbers_are_found_by_the_first(
    tamper: Tamper, database: DatabaseUrls
) -> None:
    for old, new in ((4, 100), (6, 4), (100, 6)):
        tamper(_renumber(old, new))
    assert found(database) == [("hash", "a", 4)]


COPY_ROW = """
INSERT INTO scrip.ledger_events (
    originator_id, originator_version, topic, state, tenant, account, recorded_at, hash
)
SELECT originator_id, {version}, topic, state, tenant, account, recorded_at, sha256('x')
FROM scrip.ledger_events WHERE originator_id = %(a)s AND originator_version = 3
"""


@pytest.mark.usefixtures("history")
def test_an_inserted_row_is_found(tamper: Tamper, database: DatabaseUrls) -> None:
    for version in range(EVENTS, 5, -1):
        tamper(_renumber(version, version + 1))
    statement: Any = COPY_ROW.format(version=6)
    tamper(statement)
    assert found(database) == [("hash", "a", 6)]


@pytest.mark.usefixtures("history")
def test_a_row_added_at_the_end_without_the_hash_of_the_last_is_found(
    tamper: Tamper, database: DatabaseUrls
) -> None:
    statement: Any = COPY_ROW.format(version=EVENTS + 1)
    tamper(statement)
    assert found(database) == [("hash", "a", EVENTS + 1)]


@pytest.mark.usefixtures("history")
def test_positions_that_do_not_rise_are_found(tamper: Tamper, database: DatabaseUrls) -> None:
    tamper("UPDATE scrip.ledger_events SET notification_id = 1_000_000" + AT)
    assert found(database) == [("order", "a", 6)]


@pytest.mark.usefixtures("history")
def test_a_changed_row_of_a_catalog_is_found(tamper: Tamper, database: DatabaseUrls) -> None:
    tamper(
        "UPDATE scrip.ledger_events SET state = convert_to(replace(convert_from(state, 'UTF8'),"
        " '\"unit_price\":2', '\"unit_price\":1'), 'UTF8')"
        " WHERE originator_id = %(c)s AND originator_version = 2"
    )
    assert found(database) == [("hash", None, 2)]


@pytest.mark.usefixtures("history")
def test_a_removed_tail_is_seen_only_where_a_snapshot_remembers_it(
    tamper: Tamper, database: DatabaseUrls
) -> None:
    delete: LiteralString = (
        "DELETE FROM scrip.ledger_events WHERE originator_id = %(a)s AND originator_version > 6"
    )
    tamper(delete)
    assert found(database) == [("snapshot", "a", None)]
    tamper("DELETE FROM scrip.snapshots")
    assert found(database) == []


@pytest.mark.usefixtures("history")
def test_a_removed_stream_is_seen_only_where_a_snapshot_remembers_it(
    tamper: Tamper, database: DatabaseUrls
) -> None:
    tamper("DELETE FROM scrip.ledger_events WHERE originator_id = %(a)s")
    (finding,) = verify(database.app_url)
    assert (finding.rule, finding.stream) == ("snapshot", A)


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize(
    "change",
    [
        "state = '\\xc1c1'",
        "hash = sha256('x')",
        "position = position + 1",
        "recorded_at = recorded_at - interval '1 hour'",
        "state = (SELECT b.state FROM scrip.snapshots b WHERE b.originator_id = %(z)s)",
    ],
)
def test_a_snapshot_that_is_not_what_its_events_make_is_found(
    change: str,
    history: Writer,
    tamper: Tamper,
    database: DatabaseUrls,
    owner: psycopg.Connection[Any],
) -> None:
    ask(history, [*opened("z", 5), *(deduct(0, f"k{i}", "z") for i in range(5))])
    until(lambda: owner.execute("SELECT count(*) FROM scrip.snapshots").fetchone() == (3,))
    statement: Any = f"UPDATE scrip.snapshots SET {change} WHERE originator_id = %(a)s"
    tamper(statement)
    (finding,) = verify(database.app_url)
    assert (finding.rule, finding.account) == ("snapshot", "a")
    assert found(database, chains_only=True) == []


# -- rows with a right hash that say something wrong: written past the writer ----------------------


def _append(database: DatabaseUrls, name: str, state: bytes, **other: Any) -> None:
    """Append a row with a right hash to an account of its own."""
    stream = other.pop("stream", stream_id(TENANT, "x"))
    rows = Rows(expected={stream: 1})
    rows.add(
        GENESIS,
        stream,
        1,
        name=name,
        state=state,
        recorded_at=datetime(2026, 3, 1, tzinfo=UTC),
        **{"tenant": TENANT, "account": "x", **other},
    )
    with psycopg.connect(database.app_url, autocommit=True) as connection:
        assert Append(connection, rows).land().positions


OPENED = encode(AccountOpened(), by="x", balance=Balance())


@pytest.mark.parametrize(
    ("name", "state", "other", "rule"),
    [
        ("account.opened.v1", OPENED, {}, None),
        ("account.opened.v1", OPENED, {"stream": A}, "stream"),
        ("account.opened.v1", OPENED, {"account": "y"}, "stream"),
        ("account.opened.v1", OPENED, {"account": None}, "stream"),
        ("account.opened.v2", OPENED, {}, "event"),
        ("account.opened.v1", b"{", {}, "event"),
        ("account.opened.v1", encode(AccountOpened(), by="x"), {}, "balance"),
        (
            "account.opened.v1",
            encode(AccountOpened(), by="x", balance=Balance(granted=1, available=1)),
            {},
            "balance",
        ),
        ("grant.expired.v1", b'{"by":"x","data":{"grant":"g","amount":1}}', {}, "event"),
        (
            "catalog.refund_policy_set.v1",
            b'{"by":"x","data":{"version":1}}',
            {},
            "event",
        ),
    ],
)
def test_a_row_with_a_right_hash_that_says_something_wrong_is_found(
    name: str, state: bytes, other: dict[str, Any], rule: str | None, database: DatabaseUrls
) -> None:
    _append(database, name, state, **other)
    assert [finding.rule for finding in verify(database.app_url)] == ([rule] if rule else [])


def test_the_format_of_the_hash_is_the_documented_one() -> None:
    """A change of it would make every ledger look altered."""
    digest = Rows().add(
        GENESIS,
        A,
        1,
        name="account.opened.v1",
        state=b"{}",
        recorded_at=datetime(2026, 3, 1, tzinfo=UTC),
        tenant="acme",
        account="a",
        subject=None,
        key="k",
        content=bytes(32),
    )
    fields = b"\0\0\0\4acme\0\0\0\1a\0\0\0\x11account.opened.v1\xff\xff\xff\xff"
    fields += b"\0\0\0\1k\0\0\0\x20" + bytes(32) + b"\0\0\0\2{}"
    time = 1_772_323_200_000_000
    head = bytes(32) + A.bytes + (1).to_bytes(8) + time.to_bytes(8)
    assert digest == sha256(head + fields).digest()
    assert digest.hex() == "7712fdb92fe27d44c11ba37640e69074bcb1bb2cedacbba005881fda3f771f86"
