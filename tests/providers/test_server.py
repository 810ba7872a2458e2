"""What the pretended providers send, as those verify it who receive the real ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest

from api.webhooks import asaas_facts, stripe_facts
from api.webhooks.providers import verify
from ledger.domain.facts import Purchase
from scrip.provider_server.server import ASAAS_KEY, STRIPE_KEY, ProviderServer

TOKEN = "t0k3n-f0r-th3-t3sts-0f-asaas-n0-1!"
Got = list[tuple[list[tuple[bytes, bytes]], bytes]]


class Receiver(HTTPServer):
    """Answers what it is told to, and keeps what it got."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Keeping)
        self.got: Got = []
        self.answers: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"


class Keeping(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        raw = [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
        self.server.got.append((raw, body))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def stripe(server: ProviderServer, path: str, form: dict[str, str]) -> dict[str, Any]:
    response = httpx.post(
        f"{server.base_url}/v1/{path}",
        data=form,
        headers={"authorization": f"Bearer {STRIPE_KEY}"},
        trust_env=False,
    )
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_whoever_pays_a_session_is_told_of_in_signed_events(
    providers: ProviderServer, receiver: Receiver
) -> None:
    hook = stripe(providers, "webhook_endpoints", {"url": receiver.url, "enabled_events[]": "*"})
    price = stripe(providers, "prices", {"unit_amount": "900", "currency": "usd"})["id"]
    form = {
        "mode": "payment",
        "line_items[0][price]": price,
        "success_url": "https://example.com/ok?s={CHECKOUT_SESSION_ID}",
        "client_reference_id": "acct_1",
        "metadata[scrip_price]": price,
    }
    session = stripe(providers, "checkout/sessions", form)
    assert "9.00 USD" in httpx.get(session["url"], trust_env=False).text
    paid = httpx.post(session["url"], trust_env=False)
    assert paid.headers["location"] == f"https://example.com/ok?s={session['id']}"
    providers.sender.wait()
    now = datetime.now(UTC)
    events = [verify("stripe", raw, body, [hook["secret"]], now) for raw, body in receiver.got]
    assert [event.type for event in events] == [
        "charge.succeeded",
        "payment_intent.succeeded",
        "checkout.session.completed",
    ]
    (fact,) = stripe_facts.facts(events[2].id, events[2].type, events[2].payload)
    assert isinstance(fact.content, Purchase)
    assert (fact.content.paid, fact.content.price) == (True, price)
    assert "account:acct_1" in fact.owners


def test_a_payment_by_a_link_is_told_of_with_the_token(
    providers: ProviderServer, receiver: Receiver
) -> None:
    def asaas(path: str, body: dict[str, Any]) -> dict[str, Any]:
        url = f"{providers.asaas_url}/{path}"
        answer: dict[str, Any] = httpx.post(
            url, json=body, headers={"access_token": ASAAS_KEY}, trust_env=False
        ).json()
        return answer

    asaas("webhooks", {"url": receiver.url, "authToken": TOKEN})
    link = asaas(
        "paymentLinks",
        {"name": "Pack", "value": 94.51, "billingType": "PIX", "chargeType": "DETACHED"},
    )
    assert "94.51 BRL" in httpx.get(link["url"], trust_env=False).text
    httpx.post(link["url"], trust_env=False)
    providers.sender.wait()
    now = datetime.now(UTC)
    events = [verify("asaas", raw, body, [TOKEN], now) for raw, body in receiver.got]
    assert [event.type for event in events] == ["PAYMENT_CREATED", "PAYMENT_RECEIVED"]
    payment = events[1].payload["payment"]
    (fact,) = asaas_facts.facts(events[1].id, events[1].type, payment)
    assert isinstance(fact.content, Purchase)
    assert (fact.content.paid, fact.content.price) == (True, link["id"])


def test_what_is_refused_is_sent_again(providers: ProviderServer, receiver: Receiver) -> None:
    receiver.answers = [503, 302]
    stripe(providers, "webhook_endpoints", {"url": receiver.url, "enabled_events[]": "a.b"})
    providers.stripe.tell("a.b", {"id": "x"})
    providers.stripe.tell("not.wanted", {"id": "y"})
    providers.sender.wait()
    assert providers.sender.statuses == [503, 302, 200]
    assert len({body for _, body in receiver.got}) == 1
