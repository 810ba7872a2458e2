"""`scrip dev` tops accounts up: real processes, and a pretended Stripe with its signed webhooks."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from scrip.provider_server.server import STRIPE_KEY, ProviderServer
from tests.scrip.stack import ready, start, until

USD = {"amount": 1_000, "currency": "USD"}
TOP_UP = "/v1/accounts/ada/auto-top-up"


class Admin:
    """Asks the API with an admin's key."""

    def __init__(self, says: dict[str, Any]) -> None:
        self.base_url = says["base_url"]
        key = says["keys"]["admin"]
        self.http = httpx.Client(
            base_url=self.base_url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=30,
            trust_env=False,
        )

    def do(self, method: str, path: str, body: Any) -> Any:
        headers = {"Idempotency-Key": path}
        return self.http.request(method, path, json=body, headers=headers).raise_for_status().json()

    def read(self, path: str, **query: str) -> Any:
        return self.http.get(path, params=query).raise_for_status().json()

    def available(self) -> str:
        balance = self.read("/v1/accounts/ada/balance", consistency="strong")
        return str(balance["available"])


def hear(admin: Admin, server: ProviderServer) -> None:
    """Let Stripe send what happens there."""
    endpoint = admin.do("POST", "/v1/webhook-endpoints", {"provider": "stripe"})
    hook = httpx.post(
        f"{server.stripe_url}/v1/webhook_endpoints",
        data={"url": admin.base_url + endpoint["path"], "enabled_events[]": "*"},
        headers={"authorization": f"Bearer {STRIPE_KEY}"},
        trust_env=False,
    ).json()
    path = f"/v1/webhook-endpoints/{endpoint['id']}/secrets"
    admin.do("POST", path, {"secret": hook["secret"]})


def test_an_account_is_topped_up_by_the_worker_that_scrip_dev_runs(tmp_path: Path) -> None:
    with ProviderServer() as server:
        customer = server.stripe.add_customer(card="pm_1")["id"]
        price = server.stripe.add_price(1_000)["id"]
        url = {"SCRIP_STRIPE_API_URL": server.stripe_url}
        with (
            start("dev", ["--ephemeral"], tmp_path / "data", **url) as running,
            ExitStack() as ends,
        ):
            until(lambda: ready(running), "scrip dev")
            admin = Admin(running.says)
            ends.callback(admin.http.close)
            hear(admin, server)
            admin.do("PUT", "/v1/providers/stripe", {"api_key": STRIPE_KEY})
            pack = {"name": "S", "credits": "100", "price": USD, "providers": {"stripe": [price]}}
            admin.do("PUT", "/v1/catalog/packs/small", pack)
            admin.do("PUT", "/v1/accounts/ada", {})
            admin.do("PUT", f"/v1/links/stripe:customer:{customer}", {"account": "ada"})
            assert (admin.available(), server.stripe.kept["charges"]) == ("0", {})
            asked = {"enabled": True, "threshold": "20", "pack": "small", "monthly_max": USD}
            admin.do("PUT", TOP_UP, asked)
            until(lambda: admin.available() == "100", "the credits")
            until(lambda: admin.read(TOP_UP)["attempts"][0]["state"] == "granted", "its end")
            assert admin.read(TOP_UP)["charged_this_month"] == USD
            # All of the month's money is spent: it stays short, and people are told.
            admin.do("POST", "/v1/accounts/ada/deductions", {"amount": "90"})
            until(lambda: admin.read(TOP_UP)["why"] == "monthly_max_reached", "the reason")
            (alert,) = admin.read("/v1/alerts", open="true")["data"]
            assert (alert["code"], alert["subject"]) == ("top_up_skipped", "ada")
            assert (len(server.stripe.kept["charges"]), admin.available()) == (1, "10")
