"""Referrals: once for each account, both sides rewarded, and nobody by himself."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection

from consumers.plans import grant_due
from tests.api.room import Answer, Service, Tenant

REWARD = "/v1/catalog/referral-reward"
INSERT_FACT = """
INSERT INTO scrip.payment_facts (tenant, id, provider, type, delivery, occurred_at, fact)
VALUES (%(tenant)s, %(payment)s, 'stripe', 'checkout.session.completed', 'evt', now(), '{}')
"""
INSERT_PAYMENT = """
INSERT INTO scrip.payments (tenant, payment, fact, revision, owners, account, state, told, amount)
VALUES (%(tenant)s, %(payment)s, %(payment)s, 1, %(owners)s, %(account)s, 'applied', '{}', 1)
"""


def work(service: Service) -> None:
    """Let the worker look once."""

    async def once() -> None:
        url = service.urls.app_url
        async with await AsyncConnection.connect(url, autocommit=True) as connection:
            await grant_due(connection, service.writer, service.writer.clock())

    asyncio.run(once())


def rewards(tenant: Tenant, account: str) -> list[tuple[str, str | None]]:
    at = tenant.service.put(account).body["position"]
    found = tenant.reader.get(f"{account}/grants", position=at).body["data"]
    return [(one["amount"], one["expires_at"]) for one in found]


def refer(tenant: Tenant, account: str, referrer: str, **more: Any) -> Answer:
    name = referrer.removeprefix("/v1/accounts/")
    return tenant.service.put(f"{account}/referrer", {"referrer": name}, **more)


def test_both_sides_are_rewarded_once_however_often_it_is_said(
    service: Service, tenant: Tenant
) -> None:
    tenant.admin.put(REWARD, {"referrer": "50", "referred": "20", "expires_days": 90})
    old, new = tenant.account(), tenant.account()
    first = refer(tenant, new, old, key="k")
    assert first.status == 200, first.body
    assert (first.body["referrer_amount"], first.body["referred_amount"]) == ("50", "20")
    assert first.body["reward_version"] == 1
    assert refer(tenant, new, old, key="k").raw == first.raw
    assert refer(tenant, new, old).body == first.body
    assert tenant.reader.get(f"{new}/referrer").body == first.body
    for _ in range(2):
        work(service)
    ends = datetime.fromisoformat(first.body["referred_at"]) + timedelta(days=90)
    assert [(n, datetime.fromisoformat(e or "")) for n, e in rewards(tenant, old)] == [("50", ends)]
    assert [(n, datetime.fromisoformat(e or "")) for n, e in rewards(tenant, new)] == [("20", ends)]
    # A reward of another time is another's.
    tenant.admin.put(REWARD, {"referrer": "1", "referred": "0"})
    third = tenant.account()
    refer(tenant, third, old)
    work(service)
    assert [amount for amount, _ in rewards(tenant, old)] == ["50", "1"]
    assert rewards(tenant, third) == []


def test_without_a_reward_it_is_kept_and_nothing_is_given(service: Service, tenant: Tenant) -> None:
    old, new = tenant.account(), tenant.account()
    answer = refer(tenant, new, old).body
    assert (answer["reward_version"], answer["referrer_amount"]) == (None, "0")
    tenant.admin.put(REWARD, {"referrer": "50", "referred": "20"})
    assert refer(tenant, new, old).body == answer
    work(service)
    assert rewards(tenant, old) == rewards(tenant, new) == []


def test_an_account_is_brought_by_one_and_never_by_another(tenant: Tenant) -> None:
    old, other, new = (tenant.account() for _ in range(3))
    refer(tenant, new, old)
    refused = refer(tenant, new, other)
    assert (refused.status, refused.code) == (409, "referral_exists")
    assert refused.body["referrer"] == old.removeprefix("/v1/accounts/")


def test_nobody_brings_himself_nor_those_who_brought_him(tenant: Tenant) -> None:
    a, b, c = (tenant.account() for _ in range(3))
    assert refer(tenant, a, a).code == "self_referral"
    assert refer(tenant, b, a).status == 200
    assert refer(tenant, c, b).status == 200
    for brought_by in (b, c):
        refused = refer(tenant, a, brought_by)
        assert (refused.status, refused.code) == (409, "self_referral")


def pay(service: Service, tenant: Tenant, account: str, customer: str) -> None:
    """Let a payment of a customer be applied to an account."""
    name = account.removeprefix("/v1/accounts/")
    row = {
        "tenant": tenant.name,
        "payment": f"stripe:session:{name}",
        "owners": [f"account:{name}", f"stripe:customer:{customer}"],
        "account": name,
    }
    with service.database() as connection:
        connection.execute(INSERT_FACT, row)
        connection.execute(INSERT_PAYMENT, row)


def test_the_accounts_of_one_customer_do_not_bring_each_other(
    service: Service, tenant: Tenant
) -> None:
    a, b, c, d = (tenant.account() for _ in range(4))
    for account, customer in ((a, "cus_1"), (b, "cus_1"), (c, "cus_2")):
        pay(service, tenant, account, customer)
    owner = "stripe:customer:cus_2"
    linked = tenant.admin.put(f"/v1/links/{owner}", {"account": d.removeprefix("/v1/accounts/")})
    assert linked.status == 200, linked.body
    for brought, by in ((a, b), (b, a), (c, d), (d, c)):
        refused = refer(tenant, brought, by)
        assert (refused.status, refused.code) == (409, "self_referral")
    assert refer(tenant, c, a).status == 200


def test_both_accounts_must_be_there(tenant: Tenant) -> None:
    here, away = tenant.account(), "/v1/accounts/nobody"
    assert refer(tenant, here, away).code == "account_not_found"
    assert refer(tenant, away, here).code == "account_not_found"
    assert tenant.reader.get(f"{here}/referrer").code == "referral_not_found"


def test_two_that_bring_one_another_at_once_do_not_both(service: Service, tenant: Tenant) -> None:
    tenant.admin.put(REWARD, {"referrer": "50", "referred": "20"})
    for _ in range(5):
        a, b = tenant.account(), tenant.account()
        with ThreadPoolExecutor(2) as threads:
            answers = list(threads.map(lambda pair: refer(tenant, *pair), [(a, b), (b, a)]))
        assert sorted(one.status for one in answers) == [200, 409]
        work(service)
        assert sorted(n for one in (a, b) for n, _ in rewards(tenant, one)) == ["20", "50"]


def test_a_reader_may_not_say_it(tenant: Tenant) -> None:
    refused = tenant.reader.put(f"{tenant.account()}/referrer", {"referrer": "x"})
    assert (refused.status, refused.code) == (403, "forbidden")


def test_a_reward_can_be_read_and_taken_back_by_its_id(service: Service, tenant: Tenant) -> None:
    tenant.admin.put(REWARD, {"referrer": "0", "referred": "20"})
    old, new = tenant.account(), tenant.account()
    refer(tenant, new, old)
    work(service)
    at = tenant.service.put(new).body["position"]
    (grant,) = tenant.reader.get(f"{new}/grants", position=at).body["data"]
    assert grant["id"].endswith("~reward")
    assert tenant.reader.get(f"{new}/grants/{grant['id']}").status == 200
    assert tenant.admin.post(f"{new}/grants/{grant['id']}/revoke").status == 200


@pytest.mark.parametrize("name", ["~", "a~", "a~B", "a~b~c~d", "~a", "a~" + "b" * 13])
def test_other_names_with_the_mark_are_no_grants(tenant: Tenant, name: str) -> None:
    account = tenant.account()
    assert tenant.reader.get(f"{account}/grants/{name}").code == "invalid_request"
    body = {"id": "a~b", "amount": "1", "kind": "paid"}
    assert tenant.service.post(f"{account}/grants", body).code == "invalid_request"


def test_an_account_has_the_zone_that_was_put(tenant: Tenant) -> None:
    account = tenant.account()
    assert "zone" not in tenant.service.put(account).body
    put = tenant.service.put(account, {"zone": "Europe/Berlin"})
    assert put.body["zone"] == "Europe/Berlin"
    refused = tenant.service.put(account, {"zone": "Mars/Base"})
    assert (refused.status, refused.body["errors"][0]["field"]) == (422, "zone")
