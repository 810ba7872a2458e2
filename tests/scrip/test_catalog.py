"""`scrip catalog`: a catalog as a file, checked, compared, applied and shown."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg
import pytest

from api.keys import create_tenant
from ledger.domain.catalog import Catalog, decide_catalog, evolve_catalog
from ledger.domain.commands import SetFeature, SetRateCard
from ledger.domain.entities import Charge, Rates
from ledger.domain.values import MICRO
from ledger.migrate import migrate
from ledger.store import Store
from ledger.writer import Writer
from scrip.catalog_file import CatalogFileError, Wanted, changes_to, read_file, write_file
from scrip.embedded import DatabaseUrls, EmbeddedPostgres
from tests.scrip.test_commands import scrip

EXAMPLE = (files("scrip") / "examples" / "catalog.toml").read_text("utf-8")
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
TENANT = "demo"


def applied(catalog: Catalog, text: str, now: datetime = NOW) -> list[str]:
    """Change `catalog` as the file says, and return which entries that took."""
    changes = changes_to(catalog, read_file(text), now)
    for change in changes:
        evolve_catalog(catalog, decide_catalog(catalog, change.command, now))
    return [change.place for change in changes]


def complaints(text: str) -> list[str]:
    with pytest.raises(CatalogFileError) as fault:
        changes_to(Catalog(), read_file(text), NOW)
    return list(fault.value.complaints)


# -- the file --------------------------------------------------------------------------------------


def test_a_card_by_cost_that_is_applied_again_changes_nothing() -> None:
    catalog = Catalog()
    text = """
[rate_cards.chat.models.gpt-4o-mini]
cost_plus = { factor = "1.3", credits_per_usd = "100", provider_id = "openai" }
"""
    assert applied(catalog, text) == ["rate_cards.chat"]
    assert applied(catalog, text) == []
    assert applied(catalog, write_file(catalog, NOW)) == []


def test_a_catalog_is_written_as_a_file_that_changes_nothing_and_makes_the_same_again() -> None:
    catalog, again = Catalog(), Catalog()
    assert len(applied(catalog, EXAMPLE)) == 9
    rates = Rates(3_000_000, 15_000_000, 300_000, minimum=1)
    odd = 'model "4"\n.x é'
    for command in (
        SetRateCard(feature="chat", models={odd: rates}),
        SetFeature(feature="a.b:c", name="Line\nbreak \\ \x7f", overage="debt"),
    ):
        evolve_catalog(catalog, decide_catalog(catalog, command, NOW))
    text = write_file(catalog, NOW)
    assert applied(catalog, text) == []
    assert len(applied(again, text)) == 11
    assert again == Catalog(
        11,
        catalog.features,
        catalog.rate_cards,
        catalog.refund_policies,
        catalog.plans,
        catalog.packs,
        catalog.referral_rewards,
    )


def test_only_what_differs_is_put_and_each_changed_field_is_told() -> None:
    catalog = Catalog()
    applied(catalog, EXAMPLE)
    text = EXAMPLE.replace('credits = "12000"', 'credits = "13000"\nretired = true').replace(
        "amount = 500,", "amount = 550,"
    )
    (plan, pack) = changes_to(catalog, read_file(text), NOW)
    assert (plan.place, plan.version, plan.fields) == (
        "plans.pro_annual",
        2,
        [("credits", "12000", "13000"), ("retired", None, True)],
    )
    assert (pack.place, pack.fields) == ("packs.credits_200", [("price.amount", 500, 550)])


def test_to_come_back_to_what_was_so_once_is_another_change() -> None:
    catalog = Catalog()
    keys = []
    for price in ("1", "2", "1", "2"):
        text = f'[features.f]\nname = "F"\nunit_price = "{price}"'
        (change,) = changes_to(catalog, read_file(text), NOW)
        order = change.order(TENANT, None)
        assert order == change.order(TENANT, None)
        keys.append(order.key)
        evolve_catalog(catalog, decide_catalog(catalog, change.command, NOW))
    assert len(set(keys)) == 4


def test_a_time_to_come_is_kept_and_one_that_is_over_is_not_written() -> None:
    catalog = Catalog()
    later = '[plans.p]\nname = "P"\ncredits = 1\neffective_at = 2026-12-01T00:00:00Z'
    assert applied(catalog, later) == ["plans.p"]
    assert applied(catalog, later) == []
    assert "effective_at = 2026-12-01" in write_file(catalog, NOW)
    assert applied(catalog, write_file(catalog, NOW)) == []
    assert "effective_at" not in write_file(catalog, NOW + timedelta(days=9))
    # Once it is in force, the file that said when still says what is so.
    assert applied(catalog, later, NOW + timedelta(days=9)) == []


SOLD = '[{0}.{1}]\nname = "X"\ncredits = 1\nproviders = {{ stripe = [{2}] }}\n'


def test_what_gives_up_a_price_comes_before_what_takes_it() -> None:
    catalog = Catalog()
    applied(catalog, SOLD.format("plans", "b", '"p"'))
    moved = SOLD.format("plans", "a", '"p"') + SOLD.format("plans", "b", "")
    assert applied(catalog, moved) == ["plans.b", "plans.a"]
    assert applied(catalog, moved) == []
    both = SOLD.format("plans", "a", '"p"') + SOLD.format("packs", "c", '"p"')
    assert complaints(both) == [
        "packs.c: providers.stripe must not hold p, which is of plan a",
    ]


def test_what_a_file_does_not_name_stays() -> None:
    catalog = Catalog()
    applied(catalog, EXAMPLE)
    assert applied(catalog, '[features.new]\nname = "New"') == ["features.new"]
    assert len(catalog.features) == 3


def test_the_refund_policy_may_be_that_slices_lapse() -> None:
    catalog = Catalog()
    assert applied(catalog, "[refund_policy]") == ["refund_policy"]
    assert applied(catalog, write_file(catalog, NOW)) == []
    assert applied(catalog, "[refund_policy]\nregrant_days = 3") == ["refund_policy"]
    assert catalog.regrant_days == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = ", "this is not TOML"),
        ("[" * 10_000, "this is not TOML"),
        ("[nonsense.x]", "nonsense: is no section"),
        ("features = 1", "features: is no section"),
        ("[features]\nf = 1", "features.f: must be a table"),
        ('[features."a b"]\nname = "x"', "features.a b: the key must be 1 to 128 letters"),
        ("[features.f]", "features.f: name must be given"),
        ('[features.f]\nname = "x"\nprice = 1', "features.f: price is not known here"),
        ('[features.f]\nname = "x"\nreason = "y"', "features.f: reason is given to `apply`"),
        ('[features.f]\nname = "x"\nunit_price = 0.0000001', "features.f: unit_price must have"),
        ('[features.f]\nname = "x"\nunit_price = nan', "features.f: "),
        ('[features.f]\nname = "x"\nunit_price = 99999999999999999999999', "features.f: "),
        ('[features.f]\nname = "a\\u0000b"', "features.f: name must not hold NUL"),
        ('[plans.p]\nname = "P"\ncredits = 1\ntrial_days = 3', "plans.p: trial_days and trial_"),
        (
            '[plans.p]\nname = "P"\ncredits = 1\neffective_at = 2026-12-01T00:00:00',
            "plans.p: effective_at must be an RFC 3339 time",
        ),
        (
            '[plans.p]\nname = "P"\ncredits = 1\neffective_at = 2026-12-01',
            "plans.p: effective_at must be an RFC 3339 time",
        ),
        ('[rate_cards.c.models.m]\ninput_per_million = "1"', "rate_cards.c: models"),
        ("refund_policy = 3", "refund_policy: must be a table"),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused_in_words(text: str, said: str) -> None:
    (one,) = complaints(text)
    assert one.startswith(said), one


def test_every_fault_of_a_file_is_told_at_once() -> None:
    assert len(complaints('[features.f]\n[plans.p]\n[packs.q]\nname = "Q"')) == 3


def test_a_price_in_the_file_keeps_every_digit() -> None:
    (wanted,) = read_file('[features.f]\nname = "x"\nunit_price = 0.300001')
    assert wanted == Wanted("features", "f", SetFeature(feature="f", name="x", unit_price=300_001))


# -- the command -----------------------------------------------------------------------------------

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def database(postgres_server: EmbeddedPostgres) -> Iterator[DatabaseUrls]:
    urls = postgres_server.create_database("catalog_by_command")
    migrate(urls.owner_url, "scrip_app")
    with psycopg.connect(urls.app_url, autocommit=True) as connection:
        for tenant in (TENANT, "other"):
            create_tenant(connection, tenant, "test")
    yield urls
    postgres_server.drop_database(urls.name)


@pytest.fixture(scope="module")
def run(database: DatabaseUrls) -> Run:
    return lambda *words: scrip("catalog", *words, DATABASE_URL=database.app_url)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "catalog.toml"
    path.write_text(EXAMPLE, "utf-8")
    return path


def lines(done: subprocess.CompletedProcess[str]) -> list[Any]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_example_is_printed_and_is_in_order_without_a_database(file: Path) -> None:
    assert scrip("catalog", "example").stdout == EXAMPLE
    done = scrip("catalog", "validate", str(file))
    assert (done.returncode, done.stdout) == (0, "")
    assert "9 entries, all in order" in done.stderr


def test_the_example_is_applied_once_and_both_features_have_a_price(
    run: Run, file: Path, database: DatabaseUrls
) -> None:
    shown = lines(run("apply", str(file), "--tenant", TENANT, "--dry-run"))
    assert [one["position"] for one in shown] == [None] * 9
    assert run("show", "--tenant", TENANT).stdout == ""
    put = lines(run("apply", str(file), "--tenant", TENANT, "--reason", "to begin with"))
    assert [{**one, "position": None} for one in put] == shown
    assert all(one["position"] for one in put)
    again = run("apply", str(file), "--tenant", TENANT)
    assert (again.returncode, again.stdout) == (0, "")
    assert "0 entries differ of 9; nothing was changed" in again.stderr
    file.write_text(run("show", "--tenant", TENANT).stdout, "utf-8")
    assert lines(run("apply", str(file), "--tenant", TENANT)) == []
    assert len(lines(run("apply", str(file), "--tenant", "other"))) == 9
    store = Store.open(database.app_url)
    with Writer(store) as writer:
        for feature, quantity, price in (("ai_text_chat", 1, 1), ("ai_image_generation", 3, 15)):
            charge = Charge(feature=feature, quantity=quantity * MICRO)
            assert writer.quote(TENANT, charge).result()[0] == price * MICRO
        fallback = writer.catalog(TENANT).result().plans["free"][-1]
        assert fallback.terms.fallback
    store.close()


def test_what_cannot_be_applied_is_refused_whole(run: Run, file: Path) -> None:
    before = run("show", "--tenant", TENANT).stdout
    file.write_text('[features.fine]\nname = "Fine"\n[plans.p]\nname = "P"\ncredits = 0', "utf-8")
    for words in (("validate", str(file)), ("apply", str(file), "--tenant", TENANT)):
        done = run(*words)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "plans.p: credits must be more than 0\n"
    assert run("show", "--tenant", TENANT).stdout == before
    nobody = run("show", "--tenant", "nobody")
    assert (nobody.returncode, nobody.stdout) == (1, "")
    assert "there is no tenant 'nobody'" in nobody.stderr
    assert run("validate", "no such file").returncode == 2
    file.write_bytes(b"\xff")
    assert run("validate", str(file)).stderr == f"{file} is not UTF-8\n"
