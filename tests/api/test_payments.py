"""Payments and alerts, as an admin reads them: what was settled, from which facts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg
import pytest

from ledger.domain.entities import Source
from ledger.domain.facts import Content, Link, PaymentFact, Purchase, Refund, fact
from ledger.domain.offers import Money
from ledger.domain.settled import Delta, Entitlement
from tests.api.room import Service, Tenant

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
FACT = """
INSERT INTO scrip.payment_facts (tenant, id, provider, type, delivery, occurred_at, fact)
VALUES (%(tenant)s, %(id)s, %(provider)s, %(type)s, %(delivery)s, %(occurred_at)s, %(fact)s)
"""
REF = "INSERT INTO scrip.payment_refs (tenant, ref, fact) VALUES (%(tenant)s, %(ref)s, %(fact)s)"
PAYMENT = """
INSERT INTO scrip.payments (tenant, payment, fact, revision, owners, account, state, why, told,
    offer, amount, first_seen_at)
VALUES (%(tenant)s, %(payment)s, %(fact)s, 1, '{}', %(account)s, %(state)s, %(why)s, %(told)s,
    %(offer)s, %(amount)s, %(first_seen_at)s)
"""
ALERT = """
INSERT INTO scrip.payment_alerts (tenant, code, subject, price, fact, raised_at)
VALUES (%(tenant)s, %(code)s, %(subject)s, %(price)s, 'fact_1', %(raised_at)s)
"""


class Books:
    """What the worker writes of payments, written by hand."""

    def __init__(self, connection: psycopg.Connection[Any], tenant: str) -> None:
        self.connection = connection
        self.tenant = tenant

    def fact(self, refs: set[str], content: Content, at: datetime = NOON) -> PaymentFact:
        told = fact(
            provider="stripe",
            delivery="evt_1",
            type="told",
            occurred_at=at,
            refs=refs,
            owners={"stripe:customer:cus_1"},
            content=content,
        )
        row = {name: getattr(told, name) for name in ("id", "provider", "type", "delivery")}
        row |= {"occurred_at": told.occurred_at, "fact": msgspec.json.encode(told)}
        self.connection.execute(FACT, {"tenant": self.tenant, **row})
        for ref in told.refs:
            named = {"tenant": self.tenant, "ref": ref, "fact": told.id}
            self.connection.execute(REF, named)
        return told

    def payment(self, name: str, of: PaymentFact, told: Any, **more: Any) -> None:
        row: dict[str, Any] = {
            "account": "a",
            "state": "applied",
            "why": None,
            "offer": "pro",
            "amount": 5_000_000,
            "first_seen_at": NOON,
        }
        named = {"tenant": self.tenant, "payment": name, "fact": of.id}
        self.connection.execute(PAYMENT, row | named | {"told": msgspec.json.encode(told)} | more)

    def alert(self, code: str, subject: str, price: str = "", minutes: int = 0) -> None:
        named = {"tenant": self.tenant, "code": code, "subject": subject, "price": price}
        at = NOON + timedelta(minutes=minutes)
        self.connection.execute(ALERT, named | {"raised_at": at})


def _entitled(name: str) -> Entitlement:
    return Entitlement(
        payment=name,
        offer="pro",
        kind="paid",
        priority=100,
        credits=10_000_000,
        bonus=1_000_000,
        reversed=5_500_000,
        bonus_reversed=500_000,
        frozen=True,
        effective_at=NOON,
        source=Source("stripe", name),
    )


def test_a_payment_is_read_with_all_facts_that_are_connected_to_it(
    service: Service, tenant: Tenant
) -> None:
    with service.database() as connection:
        books = Books(connection, tenant.name)
        paid = Purchase(payment="stripe:session:cs_1", paid=True)
        bought = books.fact({"stripe:session:cs_1", "stripe:pi:pi_1"}, paid)
        charged = books.fact({"stripe:pi:pi_1", "stripe:charge:ch_1"}, Link())
        back = Refund(refund="re_1", money=Money(500, "EUR"), failed=False)
        refunded = books.fact({"stripe:charge:ch_1"}, back, NOON + timedelta(days=1))
        other = books.fact({"stripe:pi:pi_2"}, Link())
        books.payment("stripe:session:cs_1", bought, _entitled("stripe:session:cs_1"))
    read = tenant.admin.get("/v1/payments/stripe:session:cs_1").body
    assert (read["state"], read["account"], read["amount"]) == ("applied", "a", "5")
    assert (read["credits"], read["bonus"]) == ("10", "1")
    assert (read["reversed"], read["bonus_reversed"], read["frozen"]) == ("5.5", "0.5", True)
    told = [one["id"] for one in read["facts"]]
    assert told[0] == refunded.id
    assert set(told) == {bought.id, charged.id, refunded.id}
    assert other.id not in told
    assert read["facts"][0]["content"]["money"] == {"amount": 500, "currency": "EUR"}
    assert read["facts"][0]["owners"] == ["stripe:customer:cus_1"]
    assert read["more_facts"] is False
    (listed,) = tenant.admin.get("/v1/payments").body["data"]
    assert listed == {name: read[name] for name in listed}


def test_a_change_of_credits_is_shown_with_its_sign(service: Service, tenant: Tenant) -> None:
    with service.database() as connection:
        books = Books(connection, tenant.name)
        taken = Delta(delta="users:delta:d1", amount=-2_000_000)
        books.payment(taken.delta, books.fact(set(), Link()), taken, amount=-2_000_000)
    read = tenant.admin.get("/v1/payments/users:delta:d1").body
    assert (read["amount"], read["credits"], read["bonus"]) == ("-2", "-2", "0")
    assert len(read["facts"]) == 1


def test_payments_are_listed_the_latest_first_by_state_and_account(
    service: Service, tenant: Tenant
) -> None:
    with service.database() as connection:
        books = Books(connection, tenant.name)
        of = books.fact({"stripe:pi:pi_1"}, Link())
        for number in range(5):
            waits = number % 2 == 1
            books.payment(
                f"p{number}",
                of,
                _entitled(f"p{number}"),
                state="waiting" if waits else "applied",
                why="account_unknown" if waits else None,
                account=None if waits else f"a{number}",
                first_seen_at=NOON + timedelta(minutes=number // 2),
            )
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        body = tenant.admin.get("/v1/payments", limit=2, **cursor).body
        seen += [payment["payment"] for payment in body["data"]]
        if body["next_cursor"] is None:
            break
        cursor = {"cursor": body["next_cursor"]}
    assert seen == ["p4", "p2", "p3", "p0", "p1"]
    waiting = tenant.admin.get("/v1/payments", state="waiting").body["data"]
    assert [(one["payment"], one["why"]) for one in waiting] == [
        ("p3", "account_unknown"),
        ("p1", "account_unknown"),
    ]
    of_one = tenant.admin.get("/v1/payments", account="a2").body["data"]
    assert [one["payment"] for one in of_one] == ["p2"]
    assert tenant.admin.get("/v1/payments", state="lost").code == "invalid_request"
    assert tenant.admin.get("/v1/payments", cursor="x").code == "invalid_request"


def test_alerts_are_listed_and_resolved(service: Service, tenant: Tenant) -> None:
    with service.database() as connection:
        books = Books(connection, tenant.name)
        books.alert("unknown_price", "stripe:session:cs_1", "price_1")
        books.alert("unknown_price", "stripe:session:cs_1", "price_2")
        books.alert("amount_mismatch", "stripe:session:cs_2", minutes=1)
    listed = tenant.admin.get("/v1/alerts").body["data"]
    assert [(one["code"], one["price"]) for one in listed] == [
        ("amount_mismatch", ""),
        ("unknown_price", "price_1"),
        ("unknown_price", "price_2"),
    ]
    at = "/v1/alerts/unknown_price/stripe:session:cs_1/resolve"
    assert tenant.admin.post(at).code == "alert_not_found"
    resolved = tenant.admin.post(at, {"price": "price_1"}).body
    assert resolved["resolved_at"] is not None
    assert tenant.admin.post(at, {"price": "price_1"}).body == resolved
    still = tenant.admin.get("/v1/alerts", open="true").body["data"]
    assert [one["price"] for one in still] == ["", "price_2"]
    assert tenant.admin.get("/v1/alerts", open="false").body["data"] == [resolved]
    assert tenant.admin.get("/v1/alerts", open="perhaps").code == "invalid_request"


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_alerts_of_one_moment_are_each_on_one_page(
    service: Service, tenant: Tenant, limit: int
) -> None:
    with service.database() as connection:
        books = Books(connection, tenant.name)
        for number in range(4):
            books.alert("unknown_price", f"s{number // 2}", f"p{number}")
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        body = tenant.admin.get("/v1/alerts", limit=limit, **cursor).body
        seen += [alert["price"] for alert in body["data"]]
        if body["next_cursor"] is None:
            break
        cursor = {"cursor": body["next_cursor"]}
    assert seen == ["p0", "p1", "p2", "p3"]


def test_another_tenants_payments_and_alerts_are_not_found(
    service: Service, tenant: Tenant
) -> None:
    with service.database() as connection:
        books = Books(connection, tenant.name)
        books.payment("p", books.fact({"stripe:pi:pi_1"}, Link()), _entitled("p"))
        books.alert("unknown_price", "p")
    stranger = service.tenant()
    assert stranger.admin.get("/v1/payments/p").code == "payment_not_found"
    assert stranger.admin.get("/v1/payments").body["data"] == []
    assert stranger.admin.get("/v1/alerts").body["data"] == []
    assert stranger.admin.post("/v1/alerts/unknown_price/p/resolve").code == "alert_not_found"
    stranger.close()
