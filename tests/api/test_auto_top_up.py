"""Auto top-up over HTTP: put and read, and all of it, from a saved card to the credits."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from scrip.embedded import DatabaseUrls, EmbeddedNats
from tests.api.paying import Shop, open_shop, until
from tests.api.room import Answer, Service, Tenant

USD = {"amount": 1_000, "currency": "USD"}
MOST = {"amount": 5_000, "currency": "USD"}
ON: dict[str, Any] = {"enabled": True, "threshold": "100", "pack": "small", "monthly_max": MOST}
OFF: dict[str, Any] = {"enabled": False}
DECLINING = "pm_card_chargeDeclined"
ATTEMPT = """
INSERT INTO scrip.top_up_attempts (
    tenant, account, number, id, state, customer, card, pack, price, amount, currency, payment,
    code, message, tries, asked_at, try_at, started_at, ended_at)
VALUES (
    %(t)s, %(a)s, %(n)s, %(t)s || %(a)s || %(n)s, %(state)s, 'cus_1', 'pm_1', 'small', 'price_1',
    1000, 'USD', %(payment)s, %(code)s, '', 1, %(now)s, %(now)s, %(now)s, %(now)s)
"""


def path(account: str) -> str:
    return f"{account}/auto-top-up"


def sell(tenant: Tenant, pack: str = "small", **changes: Any) -> None:
    ids = {"stripe": [f"price_{pack}"]}
    terms = {"name": "Small", "credits": "1000", "price": USD, "providers": ids, **changes}
    assert tenant.admin.put(f"/v1/catalog/packs/{pack}", terms).status == 200


def put(tenant: Tenant, account: str, **changes: Any) -> Answer:
    body = {name: value for name, value in {**ON, **changes}.items() if value is not None}
    return tenant.service.put(path(account), body)


@pytest.fixture
def account(tenant: Tenant) -> str:
    """Return the path of an account, of a tenant that sells a pack."""
    sell(tenant)
    return tenant.account("50")


def test_it_is_off_until_it_is_put(tenant: Tenant, account: str) -> None:
    nothing = dict.fromkeys(
        ("threshold", "pack", "monthly_max", "charged_this_month", "why", "why_since", "updated_at")
    )
    name = account.rpartition("/")[2]
    told = {"account": name, "enabled": False, **nothing, "attempts": [], "next_cursor": None}
    assert tenant.reader.get(path(account)).body == told
    off = tenant.service.put(path(account), OFF)
    assert (off.status, off.body["enabled"], off.body["threshold"]) == (200, False, None)


def test_what_is_put_is_read_and_stays_when_it_is_switched_off(
    tenant: Tenant, account: str
) -> None:
    answer = put(tenant, account)
    assert answer.status == 200
    assert {name: answer.body[name] for name in ON} == ON
    assert answer.body["charged_this_month"] == {"amount": 0, "currency": "USD"}
    read = tenant.reader.get(path(account)).body
    assert {name: read[name] for name in answer.body} == answer.body
    off = tenant.service.put(path(account), OFF).body
    assert {name: off[name] for name in ON} == {**ON, "enabled": False}


@pytest.mark.parametrize(
    ("changes", "field", "rule"),
    [
        ({"threshold": None}, "threshold", "must be given to switch it on"),
        ({"pack": None}, "pack", "must be given to switch it on"),
        ({"monthly_max": None}, "monthly_max", "must be given to switch it on"),
        ({"threshold": "0"}, "threshold", "must be more than 0"),
        ({"threshold": "-1"}, "threshold", "must not be negative"),
        ({"threshold": "1000.000001"}, "threshold", "must be at most what one pack gives"),
        ({"pack": "none"}, "pack", "must be a pack that is sold now, and has a price at Stripe"),
        ({"pack": "old"}, "pack", "must be a pack that is sold now, and has a price at Stripe"),
        ({"pack": "pix"}, "pack", "must be a pack that is sold now, and has a price at Stripe"),
        ({"pack": "later"}, "pack", "must be a pack that is sold now, and has a price at Stripe"),
        ({"pack": "free"}, "pack", "must be a pack with a price"),
        ({"monthly_max": {"amount": 9_000, "currency": "EUR"}}, "monthly_max.currency", None),
        ({"monthly_max": {"amount": 999, "currency": "USD"}}, "monthly_max.amount", None),
        ({"monthly_max": {"amount": 0, "currency": "USD"}}, "monthly_max.amount", None),
        ({"monthly_max": {"amount": 9_000, "currency": "usd"}}, "monthly_max.currency", None),
        ({"enabled": "yes"}, "enabled", None),
        ({"card": "pm_1"}, "card", None),
    ],
)
def test_what_could_never_buy_anything_is_refused_by_name(
    tenant: Tenant, account: str, changes: dict[str, Any], field: str, rule: str | None
) -> None:
    sell(tenant, "old", retired=True)
    sell(tenant, "pix", providers={"asaas": ["pix"]})
    sell(tenant, "free", price=None)
    sell(tenant, "later", effective_at=(datetime.now(UTC) + timedelta(days=1)).isoformat())
    refused = put(tenant, account, **changes)
    assert (refused.status, refused.code) == (422, "invalid_request")
    (error,) = refused.body["errors"]
    assert error["field"] == field
    assert rule is None or error["message"] == rule
    assert tenant.reader.get(path(account)).body["updated_at"] is None


def test_an_account_that_is_not_there_or_anothers_has_none(
    service: Service, tenant: Tenant, account: str
) -> None:
    assert put(tenant, account).status == 200
    stranger = service.tenant()
    for whose, where in ((tenant, "/v1/accounts/nobody"), (stranger, account)):
        for answer in (put(whose, where), whose.reader.get(path(where))):
            assert (answer.status, answer.code) == (404, "account_not_found")
    stranger.close()
    assert tenant.reader.get(path(account)).body["enabled"] is True


def test_whoever_may_only_read_puts_nothing(tenant: Tenant, account: str) -> None:
    refused = tenant.reader.put(path(account), ON)
    assert (refused.status, refused.code) == (403, "forbidden")
    assert tenant.reader.get(path(account)).body["enabled"] is False


def test_attempts_are_read_page_by_page_the_latest_first(
    service: Service, tenant: Tenant, account: str
) -> None:
    put(tenant, account)
    with service.database() as connection:
        for number in range(1, 4):
            row = {"t": tenant.name, "a": account.rpartition("/")[2], "n": number}
            state = "granted" if number == 2 else "declined"
            row |= {"state": state, "code": "" if number == 2 else "card_declined"}
            row |= {"payment": "stripe:pi:pi_2" if number == 2 else None, "now": datetime.now(UTC)}
            connection.execute(ATTEMPT, row)
    first = tenant.reader.get(path(account), limit=2).body
    rest = tenant.reader.get(path(account), limit=2, cursor=first["next_cursor"]).body
    attempts = first["attempts"] + rest["attempts"]
    assert [one["state"] for one in attempts] == ["declined", "granted", "declined"]
    assert [one["code"] for one in attempts] == ["card_declined", None, "card_declined"]
    assert attempts[1]["payment"] == "stripe:pi:pi_2"
    assert rest["next_cursor"] is None
    assert first["charged_this_month"] == USD
    refused = tenant.reader.get(path(account), cursor="none")
    assert (refused.status, refused.body["errors"][0]["field"]) == (422, "cursor")


# -- all of it: the API, a worker, and a pretended Stripe ----------------------------------------


@pytest.fixture
def shop(own_database: DatabaseUrls, own_nats: EmbeddedNats) -> Iterator[Shop]:
    """Run all of it; ada has bought a pack, and her card is kept."""
    with open_shop(own_database, own_nats) as shop:
        shop.tenant.account(name="ada")
        shop.put_keys()
        shop.hear_of_stripe()
        shop.sell("small", USD, stripe=[shop.providers.stripe.add_price(1_000)["id"]])
        back = {"success_url": "https://example.com/paid"}
        asked = {"account": "ada", "pack": "small", "save_card": True, **back}
        made = shop.tenant.service.post("/v1/checkout", asked).body
        assert httpx.post(made["url"], trust_env=False).status_code in {200, 303}
        until(lambda: shop.available("ada") == "1000", "the credits of the checkout")
        yield shop


def read(shop: Shop) -> dict[str, Any]:
    body: dict[str, Any] = shop.tenant.reader.get("/v1/accounts/ada/auto-top-up").body
    return body


def spend(shop: Shop, amount: str) -> None:
    spent = shop.tenant.service.post("/v1/accounts/ada/deductions", {"amount": amount})
    assert spent.status == 201, spent.body


def alerts(shop: Shop) -> list[tuple[str, str]]:
    found = shop.tenant.admin.get("/v1/alerts", open="true").body["data"]
    return [(alert["code"], alert["subject"]) for alert in found]


def test_an_account_that_is_short_is_topped_up_through_the_webhook(shop: Shop) -> None:
    assert put(shop.tenant, "/v1/accounts/ada").status == 200
    spend(shop, "950")
    until(lambda: shop.available("ada") == "1050", "the credits of the top-up")
    until(lambda: [one["state"] for one in read(shop)["attempts"]] == ["granted"], "its end")
    (attempt,) = read(shop)["attempts"]
    assert read(shop)["charged_this_month"] == attempt["money"] == USD
    paid = shop.tenant.admin.get(f"/v1/payments/{attempt['payment']}").body
    assert (paid["account"], paid["state"]) == ("ada", "applied")
    shop.providers.sender.wait()
    assert set(shop.providers.sender.statuses) == {200}
    # The checkout, and one top-up.
    assert len(shop.providers.stripe.kept["charges"]) == 2


def test_a_card_that_is_declined_is_left_alone_and_an_admin_sees_it(shop: Shop) -> None:
    (customer,) = shop.providers.stripe.kept["customers"]
    shop.providers.stripe.save_card(customer, DECLINING)
    spend(shop, "950")
    put(shop.tenant, "/v1/accounts/ada")
    until(lambda: read(shop)["why"] == "backing_off", "the decline")
    put(shop.tenant, "/v1/accounts/ada")
    until(lambda: read(shop)["why"] == "backing_off", "another look")
    (attempt,) = read(shop)["attempts"]
    assert (attempt["state"], attempt["code"]) == ("declined", "card_declined")
    assert (shop.available("ada"), alerts(shop)) == ("50", [("top_up_declined", "ada")])
    assert shop.providers.stripe.requests.count(("POST", "/v1/payment_intents")) == 1
