"""Messages by themselves: the documented examples, keys, and what a command is made of."""

import json
import re
from pathlib import Path
from typing import Any

from consumers.messages import KEY_MAX, key_of, order_of
from consumers.streams import GENERATION_KINDS, ledger_subject, tenant_of
from ledger.domain.commands import CaptureUpTo, Reserve
from ledger.domain.entities import Charge, Usage

DOCUMENT = Path(__file__).parents[2] / "docs" / "nats.md"


def examples() -> list[dict[str, Any]]:
    blocks = re.findall(r"^```json\n(.*?)^```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    return [json.loads(block) for block in blocks]


def test_every_documented_generation_event_is_read() -> None:
    kinds = []
    for example in examples():
        kind = example["type"].removeprefix("scrip.generation.")
        if kind in GENERATION_KINDS:
            kinds.append(kind)
            order = order_of(f"scrip.acme.generation.{kind}", json.dumps(example).encode())
            assert (order.tenant, order.account) == ("acme", "acct-7")
    assert kinds == list(GENERATION_KINDS)


def test_started_reserves_its_estimate_under_the_jobs_id() -> None:
    started = json.dumps(examples()[0]).encode()
    order = order_of("scrip.acme.generation.started", started)
    assert order.key == "ce:video-service#job-4711/1"
    assert order.command == Reserve(
        id="job-4711",
        charge=Charge(feature="chat", model="gpt-large", usage=Usage(1200, 4000)),
        ttl_seconds=900,
        actor="user-12",
        job="job-4711",
    )


def test_the_end_of_a_job_is_its_total() -> None:
    cancelled = json.dumps(examples()[4]).encode()
    order = order_of("scrip.acme.generation.cancelled", cancelled)
    assert order.command == CaptureUpTo(
        operation="job-4713", charge=Charge(amount=250_000), final=True, job="job-4713"
    )


def test_keys_are_bounded_and_never_shared_by_two_events() -> None:
    pairs = [
        ("a", "b"),
        ("a#b", "c"),
        ("a", "b#c"),
        ("a" * 255, "b" * 255),
        ("a" * 255, "b" * 254 + "c"),
        ("a b", "c"),
        ("é", "1"),
    ]
    keys = [key_of(*pair) for pair in pairs]
    assert len(set(keys)) == len(pairs)
    assert all(len(key) <= KEY_MAX and key.isascii() and " " not in key for key in keys)


def test_a_tenant_is_one_token_of_a_subject() -> None:
    subject = ledger_subject("acme.eu", "credits.granted.v1")
    assert subject == "scrip.acme%2Eeu.ledger.credits.granted.v1"
    assert tenant_of(subject) == "acme.eu"
