"""What an end user reads with a key of one account, and what such a key may not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg
import pytest

from api.app import ROUTES
from api.standings import OnPlan, Paid, next_refill, period_of, plan_of
from ledger.domain.catalog import Catalog
from ledger.domain.catalog_events import PlanSet
from ledger.domain.facts import Link, fact
from ledger.domain.offers import Period, Plan
from tests.api.room import Answer, Client, Service, Tenant
from tests.api.test_roles import BODIES, IDS
from tests.api.writes import USES

OPENED = datetime(2026, 1, 31, 12, tzinfo=UTC)
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SUBSCRIPTION = """
INSERT INTO scrip.subscriptions (tenant, subscription, fact, revision, owners, account, provider,
    status, plan, starts_at, ends_at, cancel_at, since)
VALUES (%(tenant)s, %(subscription)s, %(fact)s, 1, '{}', %(account)s, 'stripe', %(status)s,
    %(plan)s, %(starts_at)s, %(ends_at)s, %(cancel_at)s, now())
"""
FACT = """
INSERT INTO scrip.payment_facts (tenant, id, provider, type, delivery, occurred_at, fact)
VALUES (%(tenant)s, %(id)s, 'stripe', 'told', 'evt_1', now(), %(fact)s) ON CONFLICT DO NOTHING
"""


def subscribe(
    connection: psycopg.Connection[Any], tenant: str, account: str, plan: str, **more: Any
) -> None:
    """Write a subscription as the worker would."""
    told = fact(
        provider="stripe",
        delivery="",
        type="",
        occurred_at=NOON,
        refs={f"stripe:subscription:{plan}"},
        owners=set(),
        content=Link(),
    )
    named = {"tenant": tenant, "id": told.id, "fact": msgspec.json.encode(told)}
    connection.execute(FACT, named)
    now = datetime.now(UTC)
    row = {
        "tenant": tenant,
        "subscription": f"stripe:subscription:{account}:{plan}",
        "fact": told.id,
        "account": account,
        "status": "active",
        "plan": plan,
        "starts_at": now - timedelta(days=10),
        "ends_at": now + timedelta(days=20),
        "cancel_at": None,
    }
    connection.execute(SUBSCRIPTION, row | more)


def key_of(tenant: Tenant, account: str, **body: Any) -> str:
    made = tenant.service.post(f"{account}/keys", body)
    assert made.status == 200, made.body
    secret: str = made.body["key"]
    return secret


@pytest.fixture
def account(tenant: Tenant) -> str:
    return tenant.account("100", name="mine")


@pytest.fixture
def me(service: Service, tenant: Tenant, account: str) -> Iterator[Client]:
    client = Client(service.base_url, key_of(tenant, account))
    yield client
    client.http.close()


def _credits(me: Client, position: str = "0") -> Any:
    answer = me.get("/v1/me/credits", position=position)
    assert answer.status == 200, answer.body
    return answer.body


def _free(tenant: Tenant) -> None:
    body = {"name": "Free", "credits": "50", "kind": "promotional", "fallback": True}
    assert tenant.admin.put("/v1/catalog/plans/free", body).status == 200


# -- credits ---------------------------------------------------------------------------------------


def test_an_end_user_reads_balance_plan_refill_and_usage(
    service: Service, tenant: Tenant, account: str, me: Client
) -> None:
    _free(tenant)
    tenant.admin.put("/v1/catalog/plans/pro", {"name": "Pro", "credits": "1000"})
    for feature, price in (("ai_text_chat", "1"), ("ai_image_generation", "5")):
        body = {"name": feature, "unit_price": price}
        assert tenant.admin.put(f"/v1/catalog/features/{feature}", body).status == 200
    with service.database() as connection:
        subscribe(connection, tenant.name, "mine", "pro")
    for feature in ("ai_text_chat", "ai_text_chat", "ai_image_generation"):
        done = tenant.service.post(
            f"{account}/deductions", {"feature": feature, "quantity": "1"}
        ).body
    read = _credits(me, done["position"])
    assert (read["account"], read["balance"]["available"]) == ("mine", "93")
    assert read["balance"] == tenant.reader.get(account).body["balance"]
    assert read["plan"] == {"key": "pro", "name": "Pro", "status": "active"}
    assert read["next_refill"] == {"at": read["usage"]["end"], "amount": "1000"}
    assert read["usage"]["amount"] == "7"
    took = [(one["feature"], one["amount"], one["count"]) for one in read["usage"]["features"]]
    assert took == [("ai_image_generation", "5", 1), ("ai_text_chat", "2", 2)]


def test_who_pays_for_no_plan_is_on_the_free_one(tenant: Tenant, me: Client) -> None:
    read = _credits(me)
    assert (read["plan"], read["next_refill"]) == (None, None)
    _free(tenant)
    read = _credits(me)
    assert read["plan"] == {"key": "free", "name": "Free", "status": "free"}
    assert read["next_refill"]["amount"] == "50"
    assert read["next_refill"]["at"] == read["usage"]["end"]


def test_usage_of_an_earlier_period_is_not_told(
    service: Service, tenant: Tenant, account: str, me: Client
) -> None:
    done = tenant.service.post(f"{account}/deductions", {"amount": "3"}).body
    assert _credits(me, done["position"])["usage"]["amount"] == "3"
    tenant.admin.put("/v1/catalog/plans/pro", {"name": "Pro", "credits": "1000"})
    time.sleep(0.01)
    begins = datetime.now(UTC)
    with service.database() as connection:
        subscribe(connection, tenant.name, "mine", "pro", starts_at=begins)
    done = tenant.service.post(f"{account}/deductions", {"amount": "2"}).body
    usage = _credits(me, done["position"])["usage"]
    assert (usage["amount"], len(usage["features"])) == ("2", 1)
    assert usage["features"][0]["feature"] is None


# -- the key ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if route.roles], ids=lambda route: route.name
)
def test_the_key_may_ask_for_ones_own_and_nothing_else(me: Client, route: Any) -> None:
    path = route.path.format(**IDS | {"account": "mine"})
    body = None
    if route.method != "GET":
        body = USES[route.name].body if route.name in USES else BODIES.get(route.name)
    answer = me.send(route.method, path, body, key="k")
    if route.path.startswith("/v1/me/"):
        assert answer.status == 200
    else:
        assert (answer.status, answer.code) == (403, "forbidden")
        assert answer.body["role"] == "account"


@pytest.mark.parametrize("role", ["service", "admin", "reader"])
def test_other_keys_have_no_account_of_their_own(tenant: Tenant, role: Any) -> None:
    answer = tenant.as_role(role).get("/v1/me/credits")
    assert (answer.status, answer.body["needed"]) == (403, ["account"])


def test_the_key_is_shown_once(tenant: Tenant, account: str) -> None:
    first, again = (
        tenant.service.post(f"{account}/keys", {"label": "page"}, key="k") for _ in range(2)
    )
    assert first.body["key"].startswith("scrip_test_")
    assert first.body["hint"] == "scrip_test_…" + first.body["key"][-4:]
    assert again.headers["idempotent-replayed"] == "true"
    assert again.body == first.body | {"key": None}


def test_the_key_dies_when_it_is_said_to(
    service: Service, tenant: Tenant, account: str, me: Client
) -> None:
    made = tenant.service.post(f"{account}/keys", {"expires_in_seconds": 60}).body
    left = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
    assert timedelta(seconds=40) < left <= timedelta(seconds=61)
    assert _credits(me)["account"] == "mine"
    with psycopg.connect(service.urls.owner_url, autocommit=True) as owner:
        owner.execute(
            "UPDATE scrip.account_keys SET expires_at = now() + interval '1 second'"
            " WHERE tenant = %(tenant)s",
            {"tenant": tenant.name},
        )
    assert _until_refused(me).code == "unauthenticated"


def test_a_revoked_key_is_refused(service: Service, tenant: Tenant, account: str) -> None:
    made = tenant.service.post(f"{account}/keys").body
    client = Client(service.base_url, made["key"])
    assert _credits(client)["account"] == "mine"
    path = f"{account}/keys/{made['id']}"
    other = tenant.account().rpartition("/")[2]
    elsewhere = tenant.service.send("DELETE", path.replace("mine", other), key="e")
    assert elsewhere.code == "account_key_not_found"
    gone = tenant.service.send("DELETE", path, key="d")
    assert gone.body == {"id": made["id"], "account": "mine", "revoked": True}
    assert _until_refused(client).code == "unauthenticated"
    assert tenant.service.send("DELETE", path, key="d2").code == "account_key_not_found"
    client.http.close()


def _until_refused(client: Client) -> Answer:
    deadline = time.monotonic() + 10
    while (answer := client.get("/v1/me/credits")).status == 200:
        assert time.monotonic() < deadline, "the key is still good"
        time.sleep(0.05)
    return answer


@pytest.mark.parametrize("seconds", [59, 30 * 86_400 + 1, 0, -1])
def test_a_key_lives_a_minute_at_least_and_thirty_days_at_most(
    tenant: Tenant, account: str, seconds: int
) -> None:
    refused = tenant.service.post(f"{account}/keys", {"expires_in_seconds": seconds})
    assert refused.body["errors"][0]["field"] == "expires_in_seconds"
    assert tenant.service.post(f"{account}/keys", {"expires_in_seconds": 30 * 86_400}).status == 200


def test_there_is_no_key_of_an_account_that_is_not_there(tenant: Tenant) -> None:
    assert tenant.service.post("/v1/accounts/nobody/keys").code == "account_not_found"


def test_an_account_has_a_thousand_keys_at_most_and_expired_ones_make_room(
    service: Service, tenant: Tenant, account: str
) -> None:
    with service.database() as connection:
        connection.execute(
            "INSERT INTO scrip.account_keys"
            " (id, tenant, account, secret_hash, hint, by, created_at, expires_at)"
            " SELECT %(tenant)s || n, %(tenant)s, 'mine', sha256((%(tenant)s || n)::bytea), '', '',"
            " now(), now() + interval '1 hour' FROM generate_series(1, 1000) AS n",
            {"tenant": tenant.name},
        )
        full = tenant.service.post(f"{account}/keys")
        assert (full.status, full.code) == (409, "limit_reached")
        assert (full.body["limit"], full.body["max"]) == ("keys", 1000)
    with psycopg.connect(service.urls.owner_url, autocommit=True) as owner:
        owner.execute(
            "UPDATE scrip.account_keys SET expires_at = now() WHERE id = %(id)s",
            {"id": f"{tenant.name}7"},
        )
    assert tenant.service.post(f"{account}/keys").status == 200
    assert tenant.service.post(f"{account}/keys").code == "limit_reached"


# -- plans and refills -----------------------------------------------------------------------------


def _catalog(**plans: Plan) -> Catalog:
    catalog = Catalog()
    for key, terms in plans.items():
        put = PlanSet(plan=key, version=1, effective_at=OPENED, terms=terms)
        catalog.plans[key] = [put]
    return catalog


def _paid(plan: str, status: str = "active", cancel_at: datetime | None = None) -> Paid:
    return Paid(
        account="a",
        plan=plan,
        status=status,
        starts_at=NOON - timedelta(days=1),
        ends_at=NOON + timedelta(days=29),
        cancel_at=cancel_at,
    )


FREE_PLAN = Plan(name="Free", credits=5, kind="promotional", fallback=True)
CATALOG = _catalog(
    free=FREE_PLAN, small=Plan(name="Small", credits=10), big=Plan(name="Big", credits=90)
)


@pytest.mark.parametrize(
    ("paid", "key"),
    [
        ([], "free"),
        ([_paid("free")], "free"),
        ([_paid("small"), _paid("big")], "big"),
        ([_paid("big", "paused"), _paid("small")], "small"),
        ([_paid("gone"), _paid("small")], "small"),
    ],
)
def test_of_several_plans_the_best_is_told(paid: list[Paid], key: str) -> None:
    plan = plan_of(CATALOG, paid, NOON)
    assert plan is not None
    assert plan.key == key
    assert plan_of(Catalog(), [], NOON) is None


@pytest.mark.parametrize(
    ("paid", "comes"),
    [
        (_paid("big"), True),
        (_paid("big", "past_due"), True),
        (_paid("big", "paused"), False),
        (_paid("big", cancel_at=NOON + timedelta(days=29)), False),
        (_paid("big", cancel_at=NOON + timedelta(days=60)), True),
    ],
)
def test_a_paid_plan_gives_credits_when_its_period_ends(paid: Paid, *, comes: bool) -> None:
    plan = OnPlan(key="big", status=paid.status, paid=paid)
    refill = next_refill(CATALOG, plan, OPENED, NOON)
    assert (refill is not None) == comes
    if refill is not None:
        assert (refill.at, refill.amount) == (paid.ends_at, 90)


@pytest.mark.parametrize(
    ("unit", "at"),
    [
        ("month", datetime(2026, 11, 30, 12, tzinfo=UTC)),
        ("year", datetime(2027, 1, 31, 12, tzinfo=UTC)),
    ],
)
def test_the_free_plan_gives_credits_by_the_day_of_opening(unit: Period, at: datetime) -> None:
    catalog = _catalog(free=Plan(name="Free", credits=5, fallback=True, period=unit))
    refill = next_refill(catalog, OnPlan(key="free", status="free"), OPENED, NOON)
    assert refill is not None
    assert (refill.at, refill.amount) == (at, 5)


def test_without_a_plan_the_period_is_the_month() -> None:
    month = (datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))
    assert period_of(CATALOG, None, OPENED, NOON) == month
    over = Paid(
        account="a", plan="big", status="past_due", starts_at=None, ends_at=None, cancel_at=None
    )
    assert period_of(CATALOG, OnPlan(key="big", status="past_due", paid=over), OPENED, NOON) == (
        month
    )
