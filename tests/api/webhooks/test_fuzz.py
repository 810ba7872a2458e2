"""Whatever is sent, it is a delivery or a refusal; and a delivery only when it was signed."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal

import pytest

from api.webhooks import providers
from api.webhooks.guard import STATUS, Delivery, Fault, WebhookRefused
from tests.api.webhooks.fuzzing import REQUESTS, SEED, Request, is_believed, request_of
from tests.api.webhooks.senders import (
    AT,
    BODIES,
    NOW,
    PREFIXES,
    PROVIDERS,
    SECRETS,
    SIGNERS,
    Headers,
    headers_of,
    signature_header,
    value_of,
)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_nothing_but_a_delivery_or_a_refusal_comes_out(provider: str) -> None:
    chance = random.Random(f"{SEED} {provider}")  # noqa: S311 - Told by its seed, to be repeated.
    secrets = [SECRETS[provider]]
    met: Counter[Fault | None] = Counter()
    for _ in range(REQUESTS):
        headers, body = request_of(chance, provider)
        try:
            delivery = providers.verify(provider, headers, body, secrets, NOW)
        except WebhookRefused as refused:
            met[refused.code] += 1
            continue
        met[None] += 1
        assert type(delivery) is Delivery
        assert is_believed(provider, headers, body), (headers, body[:500])
        assert delivery.payload == json.loads(body, parse_float=Decimal)
        assert delivery.type == delivery.payload["event" if provider == "asaas" else "type"]
        assert delivery.id in {delivery.payload.get("id"), "msg_1"} or provider in PREFIXES
    # The chance is such that everything is reached, and far from all is refused.
    signed = {"timestamp_malformed", "timestamp_outside_tolerance"}
    signed |= {"signature_malformed", "signature_mismatch"}
    never = {"endpoint_disabled"}
    never |= signed | {"id_malformed"} if provider == "asaas" else {"token_mismatch"}
    never |= {"timestamp_repeated", *never} if provider != "stripe" else {"id_malformed"}
    assert set(met) == {None, *STATUS} - never
    assert met[None] > REQUESTS / 10


@pytest.mark.parametrize("provider", PROVIDERS)
def test_one_other_bit_anywhere_is_refused(provider: str) -> None:
    """Every bit of the body that is signed, and of each header that proves it."""
    headers, body, secrets = headers_of(provider, BODIES[provider]), BODIES[provider], SECRETS
    for other in _with_another_bit(headers, body, is_signed=provider in SIGNERS):
        with pytest.raises(WebhookRefused) as refused:
            providers.verify(provider, *other, [secrets[provider]], NOW)
        assert not refused.value.code.startswith("event_")
    assert providers.verify(provider, headers, body, [secrets[provider]], NOW)


def _with_another_bit(headers: Headers, body: bytes, *, is_signed: bool) -> Iterator[Request]:
    for at, (name, value) in list(enumerate(headers))[2:]:
        for bit in range(len(value) * 8):
            yield [*headers[:at], (name, _other_bit(value, bit)), *headers[at + 1 :]], body
    for bit in range(len(body) * 8 if is_signed else 0):
        yield headers, _other_bit(body, bit)


def _other_bit(old: bytes, bit: int) -> bytes:
    at, shift = divmod(bit, 8)
    return old[:at] + bytes([old[at] ^ (1 << shift)]) + old[at + 1 :]


@pytest.mark.parametrize("provider", PREFIXES)
def test_a_signature_is_for_one_message_at_one_time(provider: str) -> None:
    body = BODIES[provider]
    signature = value_of(headers_of(provider, body), signature_header(provider))
    for other in (
        headers_of(provider, body, message_id=b"msg_2"),
        headers_of(provider, body, at=AT + 1),
    ):
        headers = [*other[:-1], (signature_header(provider), signature)]
        with pytest.raises(WebhookRefused, match="signature_mismatch"):
            providers.verify(provider, headers, body, [SECRETS[provider]], NOW)
