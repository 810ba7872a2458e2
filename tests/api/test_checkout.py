"""Checkouts: made at a provider, paid there, and the credits are there."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import httpx
import pytest

from scrip.embedded import DatabaseUrls, EmbeddedNats
from scrip.provider_server.server import STRIPE_KEY
from tests.api.paying import Shop, open_shop, until
from tests.api.room import Answer

BACK = {"success_url": "https://example.com/paid", "cancel_url": "https://example.com/no"}
USD, BRL = {"amount": 900, "currency": "USD"}, {"amount": 9451, "currency": "BRL"}


@pytest.fixture
def shop(own_database: DatabaseUrls, own_nats: EmbeddedNats) -> Iterator[Shop]:
    """Run the API and the providers; ada has an account, the tenant its keys."""
    with open_shop(own_database, own_nats, working=False) as shop:
        shop.tenant.account(name="ada")
        shop.put_keys()
        yield shop


@pytest.fixture
def whole_shop(own_database: DatabaseUrls, own_nats: EmbeddedNats) -> Iterator[Shop]:
    """Run a worker too."""
    with open_shop(own_database, own_nats) as shop:
        shop.tenant.account(name="ada")
        shop.put_keys()
        yield shop


def ask(shop: Shop, *, key: str | None = None, **asked: Any) -> Answer:
    return shop.tenant.service.post("/v1/checkout", {"account": "ada", **BACK, **asked}, key=key)


def made(shop: Shop, **asked: Any) -> dict[str, Any]:
    answer = ask(shop, **asked)
    assert answer.status == 201, answer.body
    body: dict[str, Any] = answer.body
    return body


def pay(url: str) -> None:
    assert httpx.post(url, trust_env=False).status_code in {200, 303}


def sell_pack(shop: Shop) -> str:
    price: str = shop.providers.stripe.add_price(900)["id"]
    shop.sell("small", USD, stripe=[price])
    return price


def test_a_pack_is_paid_at_stripe_and_the_credits_are_there(whole_shop: Shop) -> None:
    sell_pack(whole_shop)
    whole_shop.hear_of_stripe()
    checkout = made(whole_shop, pack="small", quantity=3)
    assert checkout["provider"] == "stripe"
    assert "27.00 USD" in httpx.get(checkout["url"], trust_env=False).text
    pay(checkout["url"])
    until(lambda: whole_shop.available("ada") == "3000", "the credits")
    whole_shop.providers.sender.wait()
    assert set(whole_shop.providers.sender.statuses) == {200}


def test_a_plan_is_paid_at_stripe_and_each_period_again(whole_shop: Shop) -> None:
    price = whole_shop.providers.stripe.add_price(2_000, interval="month")["id"]
    terms = {"name": "Pro", "credits": "500", "rollover": "none", "providers": {"stripe": [price]}}
    assert whole_shop.tenant.admin.put("/v1/catalog/plans/pro", terms).status == 200
    whole_shop.hear_of_stripe()
    pay(made(whole_shop, plan="pro")["url"])
    until(lambda: whole_shop.available("ada") == "500", "the first period")
    (subscription,) = whole_shop.providers.stripe.kept["subscriptions"].values()
    assert subscription["metadata"] == {"scrip_account": "ada", "scrip_price": price}


def test_a_pack_is_paid_at_asaas_and_the_credits_are_there(whole_shop: Shop) -> None:
    whole_shop.sell("pacote", BRL, asaas=["pacote"])
    whole_shop.hear_of_asaas()
    checkout = made(whole_shop, pack="pacote")
    assert (checkout["provider"], checkout["expires_at"]) == ("asaas", None)
    (link,) = whole_shop.providers.asaas.links.values()
    assert (link["value"], link["externalReference"]) == (Decimal("94.51"), "ada:pacote")
    pay(checkout["url"])
    until(lambda: whole_shop.available("ada") == "1000", "the credits")


def test_a_plan_is_a_link_of_asaas_that_is_paid_again_and_again(shop: Shop) -> None:
    ids = {"asaas": ["plano"]}
    terms = {"name": "Pro", "credits": "5", "price": BRL, "period": "year", "providers": ids}
    assert shop.tenant.admin.put("/v1/catalog/plans/pro", terms).status == 200
    made(shop, plan="pro")
    (link,) = shop.providers.asaas.links.values()
    assert (link["chargeType"], link["subscriptionCycle"]) == ("RECURRENT", "YEARLY")


def test_what_stripe_is_told_leads_back_to_the_account(shop: Shop) -> None:
    price = sell_pack(shop)
    checkout = made(shop, pack="small", save_card=True)
    session = shop.providers.stripe.kept["checkout/sessions"][checkout["id"]]
    metadata = {"scrip_account": "ada", "scrip_price": price}
    assert session["client_reference_id"] == "ada"
    assert session["metadata"] == metadata
    assert session["_payment_intent_data"] == {
        "metadata": metadata,
        "setup_future_usage": "off_session",
    }
    assert (session["customer"], session["customer_creation"]) == (None, "always")
    assert (session["success_url"], session["cancel_url"]) == tuple(BACK.values())
    assert checkout["url"] == session["url"]
    assert checkout["expires_at"]


def test_an_account_that_stripe_knows_pays_as_that_customer(shop: Shop) -> None:
    sell_pack(shop)
    customer = shop.providers.stripe.add_customer()["id"]
    with shop.service.database() as connection:
        connection.execute(
            "INSERT INTO scrip.account_links (tenant, owner, account, by)"
            " VALUES (%(t)s, %(o)s, 'ada', 'key:test'), (%(t)s, 'clerk:user:u', 'ada', 'key:test')",
            {"t": shop.tenant.name, "o": f"stripe:customer:{customer}"},
        )
    made(shop, pack="small")
    (session,) = shop.providers.stripe.kept["checkout/sessions"].values()
    assert session["customer"] == customer


def test_a_request_that_is_repeated_makes_one_checkout(shop: Shop) -> None:
    sell_pack(shop)
    first, again = (ask(shop, pack="small", key="k") for _ in range(2))
    assert (first.status, again.raw) == (201, first.raw)
    assert again.headers["idempotent-replayed"] == "true"
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: ask(shop, pack="small", key="k2"), range(8)))
    assert {answer.raw for answer in answers} == {answers[0].raw}
    assert len(shop.providers.stripe.kept["checkout/sessions"]) == 2
    other = ask(shop, pack="small", quantity=2, key="k")
    assert other.code == "idempotency_mismatch"


def test_a_checkout_whose_answer_was_lost_is_the_same_one_again(shop: Shop) -> None:
    sell_pack(shop)
    shop.providers.stripe.break_down(3, after_work=True)
    lost = ask(shop, pack="small", key="k")
    assert (lost.status, lost.code, lost.body["retryable"]) == (503, "provider_unavailable", True)
    again = ask(shop, pack="small", key="k")
    assert list(shop.providers.stripe.kept["checkout/sessions"]) == [again.body["id"]]


def test_while_a_provider_takes_its_time_the_database_is_free_for_others(shop: Shop) -> None:
    sell_pack(shop)
    shop.providers.stripe.lock.acquire()
    try:
        with ThreadPoolExecutor(10) as threads:
            waiting = [threads.submit(ask, shop, pack="small") for _ in range(10)]
            until(lambda: len(shop.providers.stripe.requests) == 10, "ten questions")
            assert shop.tenant.admin.get("/v1/providers/stripe").status == 200
            assert not any(one.done() for one in waiting)
            shop.providers.stripe.lock.release()
            assert {one.result().status for one in waiting} == {201}
    finally:
        if shop.providers.stripe.lock._is_owned():  # type: ignore[attr-defined]
            shop.providers.stripe.lock.release()


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({}, "pack"),
        ({"pack": "small", "plan": "pro"}, "pack"),
        ({"pack": "no such"}, "pack"),
        ({"plan": "pro", "quantity": 2}, "quantity"),
        ({"pack": "small", "provider": "asaas", "quantity": 2}, "quantity"),
        ({"pack": "small", "quantity": 0}, "quantity"),
        ({"plan": "pro", "save_card": True}, "save_card"),
        ({"pack": "small", "success_url": "javascript:alert(1)"}, "success_url"),
        ({"pack": "small", "cancel_url": "https://"}, "cancel_url"),
        ({"pack": "small", "provider": "clerk"}, "provider"),
    ],
)
def test_what_makes_no_sense_is_refused(shop: Shop, asked: dict[str, Any], field: str) -> None:
    refused = ask(shop, **asked)
    assert (refused.status, refused.code) == (422, "invalid_request")
    assert [error["field"] for error in refused.body["errors"]] == [field]
    assert shop.providers.stripe.requests == []


def test_what_cannot_be_sold_says_why(shop: Shop) -> None:
    price = sell_pack(shop)
    shop.sell("dollars", USD, asaas=["d"])
    shop.sell("nowhere", USD)
    shop.sell("colon", BRL, asaas=["a:b"])
    old = {"name": "Old", "credits": "1", "retired": True, "providers": {"stripe": ["price_old"]}}
    shop.tenant.admin.put("/v1/catalog/packs/old", old)
    shop.sell("unknown", USD, stripe=["price_none"])
    codes = {
        name: (answer.status, answer.code)
        for name, answer in {
            "none": ask(shop, pack="none"),
            "old": ask(shop, pack="old"),
            "nowhere": ask(shop, pack="nowhere"),
            "elsewhere": ask(shop, pack="small", provider="asaas"),
            "dollars": ask(shop, pack="dollars"),
            "colon": ask(shop, pack="colon"),
            "nobody": ask(shop, pack="small", account="nobody"),
        }.items()
    }
    assert codes == {
        "none": (404, "offer_not_found"),
        "old": (404, "offer_not_found"),
        "nowhere": (422, "offer_not_sold"),
        "elsewhere": (422, "offer_not_sold"),
        "dollars": (422, "offer_not_sold"),
        "colon": (422, "offer_not_sold"),
        "nobody": (404, "account_not_found"),
    }
    refused = ask(shop, pack="unknown", key="k")
    assert (refused.status, refused.code) == (502, "provider_refused")
    assert refused.body["message"] == "No such price: 'price_none'"
    assert STRIPE_KEY not in refused.raw.decode()
    shop.sell("unknown", USD, stripe=["price_none", price])
    assert ask(shop, pack="unknown", key="k").code == "provider_refused"


def test_without_a_key_it_says_so_and_with_one_it_goes_on(shop: Shop) -> None:
    sell_pack(shop)
    shop.tenant.admin.send("DELETE", "/v1/providers/stripe", key="d")
    refused = ask(shop, pack="small", key="k")
    assert (refused.status, refused.code) == (422, "provider_key_missing")
    shop.put_keys()
    assert ask(shop, pack="small", key="k").status == 201


def test_a_provider_that_is_away_is_asked_again_later(shop: Shop) -> None:
    sell_pack(shop)
    shop.providers.stripe.slow_down(1, "60")
    away = ask(shop, pack="small", key="k")
    assert (away.status, away.code) == (503, "provider_unavailable")
    assert away.body["retry_after_seconds"] == 60
    assert ask(shop, pack="small", key="k").status == 201
