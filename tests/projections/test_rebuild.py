"""Building again: what is live is what the events make of it, and what is not is found."""

import pytest
from psycopg.sql import SQL, Identifier

from ledger.store import Store
from projections.compare import count_rows
from projections.projection import SCHEMA, Projection
from projections.rebuild import Copy, RebuildRunning, differences, rebuild
from projections.registry import PROJECTIONS, UnknownProjection
from projections.runner import Runner
from projections.tables import NEXT, REBUILD_LOCKS, claim, connect, rebuild_number
from projections.tracking import position_of
from tests.projections.histories import History

IGNORE_INSERTS = SQL("CREATE RULE none AS ON INSERT TO {} DO INSTEAD NOTHING")
TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'projections' ORDER BY 1"


@pytest.fixture
def runner(store: Store) -> Runner:
    runner = Runner(store, batch_max=50)
    runner.start()
    return runner


def tables(store: Store) -> list[str]:
    with connect(store) as connection:
        return [name for (name,) in connection.execute(TABLES)]


@pytest.mark.parametrize("name", [projection.name for projection in PROJECTIONS])
def test_what_is_live_is_what_a_rebuild_makes(told: Store, name: str) -> None:
    before = tables(told)
    report = rebuild(told, name)
    assert (report.differing, report.differences) == (0, ())
    assert report.compared_at == report.position == told.max_position()
    assert report.rows > 0
    assert tables(told) == before
    assert rebuild(told, name).differing == 0
    assert list(differences(told, name)) == []


@pytest.mark.parametrize("projection", PROJECTIONS, ids=lambda projection: projection.name)
def test_new_rows_are_copied_not_inserted(told: Store, projection: Projection) -> None:
    table = projection.tables[0]
    with connect(told) as connection:
        copy = Copy(told, connection, projection, "_copied")
        copy.begin()
        # A COPY is the one way into a table that does not ask its rules.
        connection.execute(IGNORE_INSERTS.format(Identifier(SCHEMA, table.name + "_copied")))
        copy.fill(told.max_position())
        found = count_rows(connection, table, "_copied")
        copy.discard()
        assert found == count_rows(connection, table, "") > 0


def test_an_account_is_due_after_a_rebuild_as_before(told: Store) -> None:
    due = b"SELECT count(*), count(look_at) FROM projections.balances_v2 WHERE due_at IS NOT NULL"
    rebuild(told, "balances")
    with connect(told) as connection:
        row = connection.execute(due).fetchone()
    assert row is not None
    assert row[0] == row[1] > 0


def test_a_row_that_was_changed_by_hand_is_named_and_put_right(
    history: History, store: Store, runner: Runner
) -> None:
    history.play(50)
    history.catch_up()
    with connect(store) as connection:
        connection.execute("UPDATE projections.accounts_v1 SET label = 'x' WHERE account = 'ann'")
        connection.execute(
            "DELETE FROM projections.accounts_v1 WHERE (tenant, account) = ('south', 'bob')"
        )
        connection.execute(
            "INSERT INTO projections.accounts_v1 SELECT tenant, 'zoe', label, overdraft_limit,"
            " metadata, opened_at, updated_at, position FROM projections.accounts_v1 LIMIT 1"
        )
    found = [str(one) for one in differences(store, "accounts")]
    assert len(found) == 4
    assert found[0].startswith("accounts_v1: tenant north, account ann: label is 'x' instead of")
    assert "tenant south, account bob is missing" in " ".join(found)
    assert "account zoe should not be there" in " ".join(found)
    assert rebuild(store, "accounts").differing == 4
    assert list(differences(store, "accounts")) == []
    runner.close()


def test_writers_and_the_runner_go_on_during_rebuilds(
    history: History, store: Store, runner: Runner
) -> None:
    history.play(200)
    told: list[tuple[int, int]] = []

    def meanwhile(position: int, until: int) -> None:
        told.append((position, until))
        history.play(15)

    for projection in PROJECTIONS:
        report = rebuild(store, projection.name, progress=meanwhile)
        assert report.differing == 0, report.differences
    assert told
    history.play(20)
    history.catch_up()
    runner.close()
    for projection in PROJECTIONS:
        assert list(differences(store, projection.name)) == []


def test_a_killed_rebuild_leaves_the_live_rows_alone_and_the_next_one_drops_what_it_left(
    history: History, store: Store, runner: Runner
) -> None:
    history.play(30)
    head = history.catch_up()
    runner.close()

    def die(_position: int, _until: int) -> None:
        with connect(store) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <>"
                " pg_backend_pid() AND application_name = 'scrip projections'"
                " AND datname = current_database()"
            )

    with pytest.raises(Exception, match=r"terminat|closed|lost"):
        rebuild(store, "usage", progress=die)
    assert f"usage_v1{NEXT}" in tables(store)
    with connect(store) as connection:
        assert position_of(connection, "usage_v1") == head
    assert list(differences(store, "usage")) == []
    assert rebuild(store, "usage").differing == 0
    assert not [name for name in tables(store) if name.endswith(NEXT)]


def test_one_projection_is_rebuilt_by_one_process_at_a_time(told: Store) -> None:
    usage = next(one for one in PROJECTIONS if one.name == "usage")
    with connect(told) as connection:
        assert claim(connection, REBUILD_LOCKS, rebuild_number(usage, NEXT))
        with pytest.raises(RebuildRunning):
            rebuild(told, "usage")
        assert rebuild(told, "balances").differing == 0


def test_a_rebuild_works_where_there_is_nothing_yet(store: Store) -> None:
    report = rebuild(store, "grants")
    assert (report.position, report.rows, report.differing) == (0, 0, 0)


def test_an_unknown_projection_is_refused_with_the_names_there_are(store: Store) -> None:
    with pytest.raises(UnknownProjection, match="balances, grants, reservations, usage"):
        rebuild(store, SCHEMA)
