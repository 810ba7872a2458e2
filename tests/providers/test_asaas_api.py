"""Asaas' interface, against the server that pretends to be it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, TypeVar

import httpx
import pytest
from pydantic import SecretStr

from api.provider_problems import ProviderRefused, ProviderUnavailable
from api.providers.asaas_api import AsaasApi
from api.providers.patience import Patience
from scrip.provider_server.book import Fault
from scrip.provider_server.server import ASAAS_KEY, ProviderServer

T = TypeVar("T")
TWICE = Patience(attempts_max=2, seconds_max=1.0)
LINK = {
    "name": "Small pack",
    "value": Decimal("94.51"),
    "billingType": "PIX",
    "chargeType": "DETACHED",
    "externalReference": "acct:small",
}


def ask(server: ProviderServer, do: Callable[[AsaasApi], Awaitable[T]], key: str = ASAAS_KEY) -> T:
    async def asking() -> T:
        async with httpx.AsyncClient(trust_env=False) as http:
            return await do(AsaasApi(http, server.asaas_url, SecretStr(key), TWICE))

    return asyncio.run(asking())


def test_a_link_is_made_and_its_payment_read_to_the_cent(providers: ProviderServer) -> None:
    link = ask(providers, lambda api: api.create_link(LINK))
    assert link["url"] == f"{providers.base_url}/c/{link['id']}"
    assert ask(providers, lambda api: api.link(link["id"]))["externalReference"] == "acct:small"
    payment = providers.asaas.pay(link["id"])
    read = ask(providers, lambda api: api.payment(payment["id"]))
    assert read["value"] == Decimal("94.51")
    assert (read["status"], read["paymentLink"]) == ("RECEIVED", link["id"])


def test_what_asaas_refuses_is_told_in_its_words(providers: ProviderServer) -> None:
    with pytest.raises(ProviderRefused) as refused:
        ask(providers, lambda api: api.create_link({**LINK, "billingType": "BOLETO"}))
    assert refused.value.facts["provider_code"] == "invalid_dueDateLimitDays"
    assert refused.value.detail == "asaas refused: Informe dueDateLimitDays."


def test_a_wrong_key_is_refused_and_not_told(providers: ProviderServer) -> None:
    wrong = "$aact_hmlg_wrong"
    with pytest.raises(ProviderRefused) as refused:
        ask(providers, lambda api: api.payment("pay_1"), key=wrong)
    assert refused.value.facts["provider_code"] == "invalid_access_token"
    assert wrong not in repr(refused.value)


def test_a_payment_that_is_not_there_is_refused(providers: ProviderServer) -> None:
    with pytest.raises(ProviderRefused) as refused:
        ask(providers, lambda api: api.payment("pay_1/../x"))
    assert refused.value.facts["provider_code"] == "404"


def test_too_many_requests_are_waited_out(providers: ProviderServer) -> None:
    payment = providers.asaas.add_payment("10")["id"]
    providers.asaas.slow_down(1)
    assert ask(providers, lambda api: api.payment(payment))["id"] == payment
    providers.asaas.slow_down(2)
    with pytest.raises(ProviderUnavailable):
        ask(providers, lambda api: api.payment(payment))


def test_payments_are_read_page_by_page(providers: ProviderServer) -> None:
    made = [providers.asaas.add_payment(1, externalReference="a")["id"] for _ in range(205)]
    providers.asaas.add_payment(1, externalReference="b")

    async def all_pages(api: AsaasApi) -> list[list[dict[str, Any]]]:
        today = providers.asaas.local().date()
        return [page async for page in api.pages(since=today, externalReference="a")]

    pages = ask(providers, all_pages)
    assert [len(page) for page in pages] == [100, 100, 5]
    assert [one["id"] for page in pages for one in page] == made[::-1]


def test_an_answer_that_is_no_list_is_none(providers: ProviderServer) -> None:
    providers.asaas.faults.append(Fault(status=200))
    with pytest.raises(ProviderUnavailable):
        ask(providers, lambda api: api.page())
