"""A storm of webhooks, most of them told again and again, while everything is killed in turn.

What is answered with 2xx is durable, each true fact counts once, and nothing that is forged or
stale counts at all.
"""

import itertools
import json
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from random import Random
from typing import Any

import httpx
import psycopg
from msgspec import Struct

from tests.api.webhooks.senders import OTHERS, SECRETS, headers_of
from tests.domain.payment_stories import Delivery, refunded, session
from tests.scrip.stack import Running, ready, start, until

FACTS, ACCOUNTS, SENDERS = 1_000, 50, 8
CREDITS, BONUS = 1_000, 50
VICTIMS = ("serve api", "serve worker", "nats-server", "serve api")
SEED = 20_261_128
STALE_SECONDS = 600
REFUSED = {400, 401, 404, 413}
NOT_NOW = {503}


class Sent(Struct, frozen=True):
    """One request of a sender: a true one is sent until it is taken, as providers do."""

    body: bytes
    kind: str


def story(number: int, now: int) -> list[Delivery]:
    """Return what is told of one pack, and how it ends: paid, refunded in part, or wholly."""
    account = f"acct-{number % ACCOUNTS}"
    one = {"id": f"cs_{number}", "payment_intent": f"pi_{number}", "customer": f"cus_{number}"}
    told = [session(f"paid-{number}", "completed", now, client_reference_id=account, **one)]
    charge = {"id": f"ch_{number}", "payment_intent": f"pi_{number}"}
    parts = [250, 1_000][: number % 3]
    told += [refunded(f"back-{number}-{part}", part, now, **charge) for part in parts]
    return told


def expected(numbers: int) -> dict[str, int]:
    """Return what each account has at last, in whole credits."""
    balances: dict[str, int] = defaultdict(int)
    left = {0: 1_000, 1: 750, 2: 0}
    for number in range(numbers):
        share = left[number % 3]
        # What is taken back is rounded down, by millionths: here nothing is left to round.
        balances[f"acct-{number % ACCOUNTS}"] += (CREDITS + BONUS) * 1_000 * share // 1_000
    return {account: thousandths // 1_000 for account, thousandths in balances.items()}


class Storm:
    """The requests, the senders, and what they were answered."""

    def __init__(self, running: Running, url: str) -> None:
        self.running = running
        self.url = url
        self.random = Random(SEED)  # noqa: S311 - nothing here is secret
        now = int(time.time())
        self.bodies: list[bytes] = []
        self.stories = 0
        while len(self.bodies) < FACTS:
            self.bodies += [json.dumps(one.payload).encode() for one in story(self.stories, now)]
            self.stories += 1
        self.answers: Counter[tuple[str, int]] = Counter()
        self.wrong: list[str] = []
        self.lock = threading.Lock()

    def requests(self) -> list[Sent]:
        told = [
            Sent(body, "true") for body in self.bodies for _ in range(self.random.randint(1, 10))
        ]
        for kind in ("forged", "stale"):
            false = self.random.choices(self.bodies, k=len(told) // 20)
            # What they would tell is not what was told: it would show.
            told += [Sent(body.replace(b'"pi_', b'"pi_x'), kind) for body in false]
        self.random.shuffle(told)
        return told

    def send_all(self, mine: list[Sent]) -> None:
        with httpx.Client(timeout=30) as client:
            for one in mine:
                self.send(client, one)

    def send(self, client: httpx.Client, one: Sent) -> None:
        for _ in itertools.count():
            at = int(time.time()) - (STALE_SECONDS if one.kind == "stale" else 0)
            secret = OTHERS["stripe"] if one.kind == "forged" else SECRETS["stripe"]
            headers = headers_of("stripe", one.body, at=at, secret=secret)[1:]
            try:
                answer = client.post(self.url, content=one.body, headers=headers)
            except httpx.HTTPError:
                time.sleep(0.05)
                continue
            with self.lock:
                self.answers[one.kind, answer.status_code] += 1
                if not self.is_right(one, answer):
                    self.wrong.append(f"{one.kind}: {answer.status_code} {answer.text[:200]}")
            if answer.status_code not in NOT_NOW:
                return
            time.sleep(0.05)

    @staticmethod
    def is_right(one: Sent, answer: httpx.Response) -> bool:
        if answer.status_code in NOT_NOW:
            return True
        return answer.status_code == 200 if one.kind == "true" else answer.status_code in REFUSED

    def blow(self) -> None:
        """Send everything from all senders, and kill everything meanwhile."""
        requests = self.requests()
        senders = [
            threading.Thread(target=self.send_all, args=(requests[number::SENDERS],))
            for number in range(SENDERS)
        ]
        for sender in senders:
            sender.start()
        for place, victim in enumerate(VICTIMS, 1):
            sent = len(requests) * place // (len(VICTIMS) + 1)
            until(lambda sent=sent: self.answers.total() >= sent, "answers")  # type: ignore[misc]
            self.running.kill(victim)
        for sender in senders:
            sender.join()


def prepare(client: httpx.Client) -> str:
    """Open the accounts, put the pack, and return the address for webhooks."""
    keys = (f"storm-{number}" for number in itertools.count())

    def ask(method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = client.request(method, path, json=body, headers={"Idempotency-Key": next(keys)})
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found

    for number in range(ACCOUNTS):
        ask("PUT", f"/v1/accounts/acct-{number}", {})
    pack = {
        "name": "Pack",
        "price": {"amount": 1_000, "currency": "USD"},
        "credits": str(CREDITS),
        "bonus": str(BONUS),
        "providers": {"stripe": ["price_pack"]},
        "effective_at": "2026-01-01T00:00:00Z",
    }
    ask("PUT", "/v1/catalog/packs/pack", pack)
    endpoint = ask(
        "POST", "/v1/webhook-endpoints", {"provider": "stripe", "secret": SECRETS["stripe"]}
    )
    return f"/webhooks/stripe/{endpoint['id']}"


def kept_facts(running: Running) -> int:
    with psycopg.connect(running.says["database_url"]) as connection:
        row = connection.execute("SELECT count(*) FROM scrip.payment_facts").fetchone()
    assert row is not None
    return int(row[0])


def test_in_a_storm_every_true_fact_counts_once_and_no_other(tmp_path: Path) -> None:
    words = ["--ephemeral", "--api-processes", "2"]
    with start("dev", words, tmp_path / "data") as running:
        until(lambda: ready(running), "dev.json")
        says = running.says
        headers = {"Authorization": f"Bearer {says['keys']['admin']}"}
        with httpx.Client(base_url=says["base_url"], headers=headers, timeout=30) as client:
            path = prepare(client)
            storm = Storm(running, says["base_url"] + path)
            storm.blow()
            assert storm.wrong == []
            assert storm.answers["forged", 401] > 0
            assert storm.answers["stale", 401] > 0
            until(lambda: kept_facts(running) >= len(storm.bodies), f"all facts: {storm.answers}")

            def balances() -> dict[str, int]:
                found = {}
                for number in range(ACCOUNTS):
                    account = f"acct-{number}"
                    answer = client.get(f"/v1/accounts/{account}/balance")
                    if answer.status_code in NOT_NOW:
                        return {}
                    found[account] = int(float(answer.json()["available"]))
                return found

            wanted = expected(storm.stories)
            until(lambda: balances() == wanted, f"{wanted}, not {balances()}")
            assert kept_facts(running) == len(storm.bodies)
            with psycopg.connect(says["database_url"]) as connection:
                rows = connection.execute(
                    "SELECT state, count(*) FROM scrip.payments GROUP BY state"
                ).fetchall()
            assert rows == [("applied", storm.stories)]
