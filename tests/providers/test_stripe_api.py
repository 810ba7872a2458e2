"""Stripe's interface, through its official library, against the server that pretends to be it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest
from pydantic import SecretStr

from api.provider_problems import PaymentDeclined, ProviderRefused, ProviderUnavailable
from api.providers.patience import Patience
from api.providers.stripe_api import StripeApi, StripeHttp
from scrip.provider_server.book import Fault
from scrip.provider_server.server import STRIPE_KEY, ProviderServer

T = TypeVar("T")
TWICE = Patience(attempts_max=2, seconds_max=1.0)


def ask(
    server: ProviderServer,
    do: Callable[[StripeApi], Awaitable[T]],
    key: str = STRIPE_KEY,
    patience: Patience = TWICE,
) -> T:
    async def asking() -> T:
        http = StripeHttp(server.stripe_url)
        try:
            return await do(StripeApi(http, SecretStr(key), patience))
        finally:
            await http.close()

    return asyncio.run(asking())


def session(price: str, **more: Any) -> dict[str, Any]:
    return {
        "mode": "payment",
        "line_items": [{"price": price, "quantity": 2}],
        "success_url": "https://example.com/ok",
        "metadata": {"scrip_account": "acct"},
        **more,
    }


def test_a_session_is_made_once_for_a_key(providers: ProviderServer) -> None:
    price = providers.stripe.add_price(900)["id"]

    async def twice(api: StripeApi) -> list[dict[str, Any]]:
        return [await api.create_session(session(price), "k1") for _ in range(2)]

    first, second = ask(providers, twice)
    assert first == second
    assert first["amount_total"] == 1_800
    assert first["metadata"] == {"scrip_account": "acct"}
    assert list(providers.stripe.kept["checkout/sessions"]) == [first["id"]]


def test_the_same_key_for_something_else_is_refused(providers: ProviderServer) -> None:
    price = providers.stripe.add_price(900)["id"]

    async def twice(api: StripeApi) -> None:
        await api.create_session(session(price), "k1")
        await api.create_session(session(price, cancel_url="https://example.com/no"), "k1")

    with pytest.raises(ProviderRefused) as refused:
        ask(providers, twice)
    assert "same parameters" in refused.value.detail


def test_what_stripe_refuses_is_told_in_its_words(providers: ProviderServer) -> None:
    with pytest.raises(ProviderRefused) as refused:
        ask(providers, lambda api: api.create_session(session("price_none"), "k1"))
    assert refused.value.facts == {
        "provider": "stripe",
        "provider_code": "resource_missing",
        "message": "No such price: 'price_none'",
    }


def test_a_wrong_key_is_refused_and_not_told(providers: ProviderServer) -> None:
    wrong = "sk_test_" + "wrong" * 5
    with pytest.raises(ProviderRefused) as refused:
        ask(providers, lambda api: api.customer("cus_1"), key=wrong)
    assert "Invalid API Key" in refused.value.detail
    assert wrong not in repr(refused.value) + refused.value.detail
    assert refused.value.__cause__ is None


def test_too_many_requests_are_waited_out(providers: ProviderServer) -> None:
    customer = providers.stripe.add_customer()["id"]
    providers.stripe.slow_down(1, "0")
    assert ask(providers, lambda api: api.customer(customer))["id"] == customer
    assert len(providers.stripe.requests) == 2


def test_patience_ends(providers: ProviderServer) -> None:
    providers.stripe.slow_down(1, "60")
    with pytest.raises(ProviderUnavailable) as refused:
        ask(providers, lambda api: api.customer("cus_1"))
    assert refused.value.facts["retry_after_seconds"] == 60
    assert len(providers.stripe.requests) == 1


def test_an_answer_that_was_lost_is_asked_for_again_and_nothing_is_made_twice(
    providers: ProviderServer,
) -> None:
    price = providers.stripe.add_price(900)["id"]
    providers.stripe.break_down(1, after_work=True)
    made = ask(providers, lambda api: api.create_session(session(price), "k1"))
    assert list(providers.stripe.kept["checkout/sessions"]) == [made["id"]]
    assert len(providers.stripe.requests) == 2


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with ProviderServer() as gone:
        pass
    with pytest.raises(ProviderUnavailable):
        ask(gone, lambda api: api.customer("cus_1"))


def test_lists_are_read_page_by_page_with_what_a_fact_needs(providers: ProviderServer) -> None:
    stripe = providers.stripe
    price = stripe.add_price(2_000, interval="month")["id"]
    made = ask(providers, lambda api: api.create_session(session(price, mode="subscription"), "k"))
    subscription = stripe.pay(made["id"])["subscription"]
    invoices = [stripe.renew(subscription)["id"] for _ in range(6)]

    async def all_pages(api: StripeApi) -> list[list[dict[str, Any]]]:
        found, after = [], None
        while True:
            page = await api.page("invoices", limit=3, starting_after=after)
            found.append(page.data)
            if not page.has_more:
                return found
            after = page.data[-1]["id"]

    pages = ask(providers, all_pages)
    assert [len(page) for page in pages] == [3, 3, 1]
    ids = [one["id"] for page in pages for one in page]
    assert ids[:-1] == invoices[::-1]
    payments = pages[0][0]["payments"]["data"]
    assert payments[0]["payment"]["payment_intent"].startswith("pi_")


def test_lists_go_back_no_further_than_is_asked_for(providers: ProviderServer) -> None:
    now = 1_790_000_000
    stripe = providers.stripe
    stripe.clock = lambda: now
    intent = stripe.keep(
        "payment_intents",
        {"id": "pi_1", "amount": 5, "currency": "usd", "customer": None}
        | {
            "metadata": {},
        },
    )
    charge = stripe.charge(intent)["id"]
    stripe.refund(charge, 1)
    now += 100
    new = stripe.refund(charge, 2)["id"]
    since = datetime.fromtimestamp(now, UTC)
    page = ask(providers, lambda api: api.page("refunds", since=since))
    assert [one["id"] for one in page.data] == [new]
    assert not page.has_more


def test_an_answer_that_is_no_list_is_none(providers: ProviderServer) -> None:
    providers.stripe.faults.append(Fault(status=200))
    with pytest.raises(ProviderUnavailable):
        ask(providers, lambda api: api.page("refunds"))


def test_a_card_that_is_declined_is_told_as_that_and_kept(providers: ProviderServer) -> None:
    card = "pm_card_chargeDeclined"
    customer = providers.stripe.add_customer(card=card)["id"]
    params = {
        "amount": 900,
        "currency": "usd",
        "customer": customer,
        "payment_method": card,
        "off_session": True,
        "confirm": True,
    }
    for _ in range(2):
        with pytest.raises(PaymentDeclined) as refused:
            ask(providers, lambda api: api.create_intent(params, "k1"))
        assert refused.value.facts["provider_code"] == "card_declined"
    assert len(providers.stripe.kept["payment_intents"]) == 1


def test_the_cards_of_a_customer_are_listed(providers: ProviderServer) -> None:
    customer = providers.stripe.add_customer(card="pm_1")["id"]
    assert [card["id"] for card in ask(providers, lambda api: api.cards(customer))] == ["pm_1"]
