"""A webhook of Asaas becomes a grant, by what Asaas says of the payment when it is asked."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from scrip.embedded import DatabaseUrls, EmbeddedNats
from scrip.provider_server.server import ASAAS_KEY
from tests.api.paying import TOKEN, Shop, open_shop, until

PRICE = {"amount": 9451, "currency": "BRL"}
LINK = {
    "name": "Small",
    "value": 94.51,
    "billingType": "PIX",
    "chargeType": "DETACHED",
    "externalReference": "ada:pacote",
}


@pytest.fixture
def shop(own_database: DatabaseUrls, own_nats: EmbeddedNats) -> Iterator[Shop]:
    """Run a service with a worker; ada has an account, and a pack is sold."""
    with open_shop(own_database, own_nats) as shop:
        shop.sell("small", PRICE, asaas=["pacote"])
        shop.tenant.account(name="ada")
        shop.hear_of_asaas()
        yield shop


def test_a_payment_by_a_link_is_a_grant_and_its_refund_takes_it_back(shop: Shop) -> None:
    shop.put_keys()
    link = httpx.post(
        f"{shop.providers.asaas_url}/paymentLinks",
        json=LINK,
        headers={"access_token": ASAAS_KEY},
        trust_env=False,
    ).json()
    payment = shop.providers.asaas.pay(link["id"], "CONFIRMED")["id"]
    until(lambda: shop.available("ada") == "1000", "the credits")
    shop.providers.asaas.move(payment, "RECEIVED")
    shop.providers.asaas.refund(payment)
    until(lambda: shop.available("ada") == "0", "the refund")
    shop.providers.sender.wait()
    assert set(shop.providers.sender.statuses) == {200}


def test_what_a_webhook_says_itself_is_not_believed(shop: Shop) -> None:
    shop.put_keys()
    asaas = shop.providers.asaas
    pending = asaas.add_payment("94.51", externalReference="ada:pacote")
    asaas.tell("PAYMENT_RECEIVED", {**pending, "status": "RECEIVED"})
    asaas.tell("PAYMENT_RECEIVED", {**pending, "id": "pay_none", "status": "RECEIVED"})
    path = "/v3/payments/pay_none"
    until(lambda: ("GET", path) in asaas.requests, "the question")
    shop.tenant.account(name="bob")
    true = asaas.add_payment("94.51", status="RECEIVED", externalReference="bob:pacote")
    asaas.tell("PAYMENT_RECEIVED", true)
    until(lambda: shop.available("bob") == "1000", "the credits of the true payment")
    assert shop.available("ada") == "0"


def test_without_a_key_a_payment_waits_for_one(shop: Shop) -> None:
    asaas = shop.providers.asaas
    paid = asaas.add_payment("94.51", status="RECEIVED", externalReference="ada:pacote")
    asaas.tell("PAYMENT_RECEIVED", paid)
    shop.providers.sender.wait()
    assert asaas.sender.statuses == [200]
    assert shop.available("ada") == "0"
    shop.put_keys()
    until(lambda: shop.available("ada") == "1000", "the credits")
    assert ("GET", f"/v3/payments/{paid['id']}") in asaas.requests
    assert TOKEN not in str(asaas.requests)


def test_a_provider_that_fails_or_has_too_much_to_do_is_asked_again(shop: Shop) -> None:
    shop.put_keys()
    asaas = shop.providers.asaas
    asaas.break_down(3)
    asaas.slow_down(2)
    paid = asaas.add_payment("94.51", status="RECEIVED", externalReference="ada:pacote")
    asaas.tell("PAYMENT_RECEIVED", paid)
    until(lambda: shop.available("ada") == "1000", "the credits")
    assert not asaas.faults
