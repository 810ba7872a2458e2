"""What may come and what is answered: inputs at which the providers' own libraries slip, or crash.

Each test is one such input, or one place of the boundary; all of them are signed as the sender
would, so that nothing but the rule itself can refuse them.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from api.webhooks import asaas, clerk, providers, stripe, users
from api.webhooks.guard import (
    BODY_BYTES_MAX,
    SIGNATURES_BYTES_MAX,
    STATUS,
    Delivery,
    WebhookRefused,
)
from tests.api.webhooks.senders import (
    AT,
    BODIES,
    NOW,
    OTHERS,
    PREFIXES,
    PROVIDERS,
    SECRETS,
    SIGNERS,
    Headers,
    headers_of,
    hex_signature,
    replaced,
    signature_header,
    v1_signature,
    value_of,
)

YEAR = 365 * 24 * 3600
STANDARD = tuple(PREFIXES)
ZEROS = b"v1," + b"A" * 43 + b"="


@dataclass
class Sent:
    """One request, and how it is answered: a fault, or none."""

    provider: str
    headers: Headers
    body: bytes
    fault: str | None
    secrets: list[str] = field(default_factory=list)

    def answer(self) -> Delivery | WebhookRefused:
        secrets = self.secrets or [SECRETS[self.provider]]
        try:
            return providers.verify(self.provider, self.headers, self.body, secrets, NOW)
        except WebhookRefused as refused:
            return refused


def _sent_at(provider: str, at: int, fault: str | None) -> Sent:
    body = BODIES[provider]
    return Sent(provider, headers_of(provider, body, at=at), body, fault)


def _with_signature(provider: str, signature: bytes, fault: str | None) -> Sent:
    headers = headers_of(provider, BODIES[provider])
    headers = replaced(headers, signature_header(provider), signature)
    return Sent(provider, headers, BODIES[provider], fault)


def _with_body(provider: str, body: bytes, fault: str | None = "body_malformed") -> Sent:
    return Sent(provider, headers_of(provider, body), body, fault)


def _with_time(provider: str, written: bytes, understood: bytes, fault: str) -> Sent:
    """Sign what a library would understand by a time that is written in another way."""
    body = BODIES[provider]
    headers = headers_of(provider, body, at=understood)
    if provider == "stripe":
        name, value = b"stripe-signature", value_of(headers, b"stripe-signature")
        return Sent(
            provider, replaced(headers, name, value.replace(understood, written, 1)), body, fault
        )
    name = PREFIXES[provider] + b"-timestamp"
    return Sent(provider, replaced(headers, name, written), body, fault)


def _right(provider: str, secret: str | None = None) -> bytes:
    body = BODIES[provider]
    headers = headers_of(provider, body, secret=secret)
    return value_of(headers, signature_header(provider))


T = b"t=%d," % AT
V1 = {provider: _right(provider) for provider in SIGNERS}
V1_OTHER = {provider: _right(provider, OTHERS[provider]) for provider in SIGNERS}
HEX = hex_signature(SECRETS["stripe"], b"%d" % AT, BODIES["stripe"])
HEX_OTHER = hex_signature(OTHERS["stripe"], b"%d" % AT, BODIES["stripe"])

CASES: dict[str, Sent] = {}
for p in PROVIDERS:
    CASES[f"{p}: valid"] = _sent_at(p, AT, None)
    CASES[f"{p}: the body has a byte beyond UTF-8"] = _with_body(p, BODIES[p][:-1] + b"\xff}")
    CASES[f"{p}: the body is half a character"] = _with_body(p, b'{"a":"\xc3"}')
    CASES[f"{p}: the body is a list"] = _with_body(p, b"[]")
    CASES[f"{p}: the body is a text"] = _with_body(p, b'"a"')
    CASES[f"{p}: the body is null"] = _with_body(p, b"null")
    CASES[f"{p}: the body is not JSON"] = _with_body(p, b"not JSON")
    CASES[f"{p}: the body is empty"] = _with_body(p, b"")
    CASES[f"{p}: the body repeats a name"] = _with_body(p, b'{"id":"a","id":"b"}')
    CASES[f"{p}: the body has a number that is none"] = _with_body(p, b'{"a":NaN}')
    CASES[f"{p}: the body has a NUL"] = _with_body(p, b'{"a":"\\u0000"}')
    CASES[f"{p}: the body has half a pair"] = _with_body(p, b'{"a":"\\ud800"}')
    CASES[f"{p}: the body is nested 64 deep"] = _with_body(
        p, BODIES[p][:-1] + b',"a":' + b"[" * 63 + b"]" * 63 + b"}", None
    )
    for depth in (64, 200, 600, 800, 2_000, 100_000):
        CASES[f"{p}: the body is nested {depth + 1} deep"] = _with_body(
            p, BODIES[p][:-1] + b',"a":' + b"[" * depth + b"]" * depth + b"}"
        )
    CASES[f"{p}: the body has a number of 5 000 digits"] = _with_body(
        p, BODIES[p][:-1] + b',"a":' + b"9" * 5_000 + b"}"
    )
    CASES[f"{p}: the body has 1 MiB"] = _with_body(p, BODIES[p].ljust(BODY_BYTES_MAX), None)
    CASES[f"{p}: the body has a byte more"] = _with_body(
        p, BODIES[p].ljust(BODY_BYTES_MAX + 1), "body_too_large"
    )
    CASES[f"{p}: the event has no type"] = _with_body(p, b'{"id":"a"}', "event_malformed")
    CASES[f"{p}: the event's type is a number"] = _with_body(
        p, b'{"id":"a","type":1,"event":1}', "event_malformed"
    )
    CASES[f"{p}: the event's type has a space"] = _with_body(
        p, b'{"id":"a","type":"a b","event":"a b"}', "event_malformed"
    )
    CASES[f"{p}: a type that nobody knows"] = _with_body(
        p, b'{"id":"a","type":"a.b_C","event":"a.b_C"}', None
    )
    CASES[f"{p}: an empty secret"] = Sent(
        p, headers_of(p, BODIES[p], secret="whsec_"), BODIES[p], "endpoint_disabled", [""]
    )
    CASES[f"{p}: a secret of one byte"] = Sent(
        p,
        headers_of(p, BODIES[p], secret="whsec_YQ=="),
        BODIES[p],
        "endpoint_disabled",
        ["whsec_YQ=="],
    )
    CASES[f"{p}: the other of two secrets"] = Sent(
        p, headers_of(p, BODIES[p]), BODIES[p], None, [OTHERS[p], SECRETS[p]]
    )
    CASES[f"{p}: one of two secrets"] = Sent(
        p, headers_of(p, BODIES[p]), BODIES[p], None, [SECRETS[p], OTHERS[p]]
    )
    CASES[f"{p}: a right secret beside a weak one"] = Sent(
        p, headers_of(p, BODIES[p]), BODIES[p], None, ["", SECRETS[p]]
    )
    CASES[f"{p}: another secret"] = Sent(
        p,
        headers_of(p, BODIES[p], secret=OTHERS[p]),
        BODIES[p],
        "token_mismatch" if p == "asaas" else "signature_mismatch",
    )
    CASES[f"{p}: no headers"] = Sent(p, [], BODIES[p], "header_missing")
    for name, _ in headers_of(p, BODIES[p])[2:]:
        whole = headers_of(p, BODIES[p])
        CASES[f"{p}: no {name.decode()}"] = Sent(
            p, [pair for pair in whole if pair[0] != name], BODIES[p], "header_missing"
        )
        again = (name, value_of(whole, name))
        CASES[f"{p}: {name.decode()} twice"] = Sent(
            p, [*whole, again], BODIES[p], "header_repeated"
        )
        CASES[f"{p}: {name.decode()} twice, in capitals"] = Sent(
            p, [(name.upper(), again[1]), *whole], BODIES[p], "header_repeated"
        )
for p in SIGNERS:
    CASES[f"{p}: 300 seconds old"] = _sent_at(p, AT - 300, None)
    CASES[f"{p}: 301 seconds old"] = _sent_at(p, AT - 301, "timestamp_outside_tolerance")
    CASES[f"{p}: 300 seconds ahead"] = _sent_at(p, AT + 300, None)
    CASES[f"{p}: 301 seconds ahead"] = _sent_at(p, AT + 301, "timestamp_outside_tolerance")
    CASES[f"{p}: a year ahead"] = _sent_at(p, AT + YEAR, "timestamp_outside_tolerance")
    CASES[f"{p}: as late as can be written"] = _sent_at(
        p, 9_999_999_999, "timestamp_outside_tolerance"
    )
    CASES[f"{p}: a body with another byte"] = Sent(
        p, headers_of(p, BODIES[p]), BODIES[p] + b" ", "signature_mismatch"
    )
    CASES[f"{p}: garbage for a signature"] = _with_signature(p, b"garbage", "signature_malformed")
    CASES[f"{p}: an empty signature"] = _with_signature(p, b"", "signature_malformed")
    CASES[f"{p}: two spaces for a signature"] = _with_signature(p, b"  ", "signature_malformed")
    CASES[f"{p}: a signature that is too long"] = _with_signature(
        p, (V1[p] + b" ").ljust(SIGNATURES_BYTES_MAX + 1, b"v"), "signature_malformed"
    )
    for written, understood in (
        (b"+%d" % AT, b"%d" % AT),
        (b" %d" % AT, b"%d" % AT),
        (b"%d " % AT, b"%d" % AT),
        (b"1_790_000_000", b"%d" % AT),
        (b"%d.9" % AT, b"%d" % AT),
        (b"0%d" % AT, b"%d" % AT),
        (b"1.79e9", b"%d" % AT),
        (b"-%d" % AT, b"-%d" % AT),
        ("١٧٩٠٠٠٠٠٠٠".encode(), b"%d" % AT),
        (b"%d\n" % AT, b"%d" % AT),
        (b"NaN", b"NaN"),
        (b"", b""),
        (b"%d000" % AT, b"%d000" % AT),
    ):
        CASES[f"{p}: the time {written!r}"] = _with_time(
            p, written, understood, "timestamp_malformed"
        )
for p in STANDARD:
    for name, signature in {
        "v1,a,b": b"v1,a,b",
        "v1,abc": b"v1,abc",
        "a v1a alone": V1[p].replace(b"v1,", b"v1a,"),
        "a v2 alone": V1[p].replace(b"v1,", b"v2,"),
        "two spaces between two right ones": V1[p] + b"  " + V1[p],
        "a space before a right one": b" " + V1[p],
        "a space after a right one": V1[p] + b" ",
        "a byte beyond ASCII": V1[p][:-2] + b"\xff=",
        "a right one without padding": V1[p][:-1],
        "a right one that goes on": V1[p] + b"=",
        "a right one of another spelling of base64": V1[p][:-2] + b"\n=",
    }.items():
        CASES[f"{p}: {name}"] = _with_signature(p, signature, "signature_malformed")
    for name, signature in {
        "a right one after a wrong one": ZEROS + b" " + V1[p],
        "a right one before a wrong one": V1[p] + b" " + ZEROS,
        "a right one after v1,a,b": b"v1,a,b " + V1[p],
        "a right one after v1,abc": b"v1,abc " + V1[p],
        "a right one after garbage": b"garbage \xff\x00 , v1 " + V1[p],
        "a right one beside v1a": b"v1a,AAAA " + V1[p],
        "a right one beside that of another secret": V1_OTHER[p] + b" " + V1[p],
    }.items():
        CASES[f"{p}: {name}"] = _with_signature(p, signature, None)
    CASES[f"{p}: a signature of 32 zeros"] = _with_signature(p, ZEROS, "signature_mismatch")
    body = BODIES[p]
    split = headers_of(p, body, message_id=b"m1.%d" % AT)
    joined = v1_signature(SECRETS[p], b"m1", b"%d" % AT, b"%d." % AT + body)
    assert joined == value_of(split, signature_header(p))
    CASES[f"{p}: a dot in the id, for which other bytes were signed"] = Sent(
        p, split, body, "id_malformed"
    )
    for bad in (b"", b"msg 1", b"msg\xc3\xa9", b"m" * 129, b"msg_1\n", b"a/b", b"a&b", b"a\0"):
        CASES[f"{p}: the id {bad!r}"] = Sent(
            p, headers_of(p, body, message_id=bad), body, "id_malformed"
        )
    CASES[f"{p}: an id of 128 characters"] = Sent(
        p, headers_of(p, body, message_id=b"Aa0_-" + b"m" * 123), body, None
    )
CASES |= {
    "clerk: headers of Standard Webhooks": Sent(
        "clerk",
        headers_of("users", BODIES["clerk"], secret=SECRETS["clerk"]),
        BODIES["clerk"],
        "header_missing",
    ),
    "users: headers of Svix": Sent(
        "users",
        headers_of("clerk", BODIES["users"], secret=SECRETS["users"]),
        BODIES["users"],
        "header_missing",
    ),
    "clerk: wrong headers of Standard Webhooks beside the right ones": Sent(
        "clerk",
        [(b"webhook-id", b"x.y"), *headers_of("clerk", BODIES["clerk"])],
        BODIES["clerk"],
        None,
    ),
}
for name, signature in {
    "a v0 alone": T + b"v0=" + HEX,
    "no time": b"v1=" + HEX,
    "no signature": T[:-1],
    "capital letters": T + b"v1=" + HEX.upper(),
    "a byte beyond ASCII": T + b"v1=" + HEX[:-1] + b"\xe9",
    "a space before v1": T + b" v1=" + HEX,
    "a signature that goes on": T + b"v1=" + HEX + b"=0",
    "a short signature": T + b"v1=" + HEX[:-1],
}.items():
    CASES[f"stripe: {name}"] = _with_signature("stripe", signature, "signature_malformed")
for name, signature in {
    "a right one after a wrong one": T + b"v1=" + b"0" * 64 + b",v1=" + HEX,
    "a right one before a wrong one": T + b"v1=" + HEX + b",v1=" + b"0" * 64,
    "a right one after a byte beyond ASCII": T + b"v1=\xe9,v1=" + HEX,
    "a right one after garbage": b"garbage,,=,v1," + T + b"v1=" + HEX,
    "a right one beside v0": T + b"v1=" + HEX + b",v0=" + b"0" * 64,
    "a right one before the time": b"v1=" + HEX + b"," + T[:-1],
    "a right one beside that of another secret": T + b"v1=" + HEX_OTHER + b",v1=" + HEX,
}.items():
    CASES[f"stripe: {name}"] = _with_signature("stripe", signature, None)
for name, signature in {
    "two times, the first right": T + b"t=1," + b"v1=" + HEX,
    "two times, the last right": b"t=1," + T + b"v1=" + HEX,
    "the same time twice": T + T + b"v1=" + HEX,
}.items():
    CASES[f"stripe: {name}"] = _with_signature("stripe", signature, "timestamp_repeated")
for name, body in {
    "no id": b'{"type":"invoice.paid","event":"PAYMENT_RECEIVED"}',
    "an id that is a number": b'{"id":1,"type":"invoice.paid","event":"PAYMENT_RECEIVED"}',
    "an id with a dot": b'{"id":"a.b","type":"invoice.paid","event":"PAYMENT_RECEIVED"}',
    "an id with a line end": b'{"id":"a\\n","type":"invoice.paid","event":"PAYMENT_RECEIVED"}',
    "an id that is empty": b'{"id":"","type":"invoice.paid","event":"PAYMENT_RECEIVED"}',
}.items():
    for p in ("stripe", "asaas"):
        CASES[f"{p}: {name}"] = _with_body(p, body, "event_malformed")
CASES["stripe: an id with &"] = _with_body("stripe", b'{"id":"a&b","type":"a"}', "event_malformed")
for name, token in {
    "empty": b"",
    "with a space after it": SECRETS["asaas"].encode() + b" ",
    "without its last character": SECRETS["asaas"].encode()[:-1],
    "beyond ASCII": b"\xff" * 34,
    "in capitals": SECRETS["asaas"].upper().encode(),
}.items():
    CASES[f"asaas: a token {name}"] = Sent(
        "asaas", [(b"asaas-access-token", token)], BODIES["asaas"], "token_mismatch"
    )


@pytest.mark.parametrize("name", CASES)
def test_it_is_answered_as_it_should_be(name: str) -> None:
    sent = CASES[name]
    answer = sent.answer()
    if isinstance(answer, WebhookRefused):
        assert (answer.code, answer.status) == (sent.fault, STATUS[answer.code])
        assert answer.rule
        told = f"{answer.rule} {answer!s} {answer!r}"
        assert not [secret for secret in (*SECRETS.values(), *OTHERS.values()) if secret in told]
    else:
        assert sent.fault is None


def test_every_fault_is_provoked() -> None:
    assert {sent.fault for sent in CASES.values()} == {None, *STATUS}


@pytest.mark.parametrize(
    ("faults", "status"),
    [
        ({"signature_malformed", "signature_mismatch", "token_mismatch", "header_missing"}, 401),
        ({"timestamp_outside_tolerance"}, 401),
        ({"id_malformed", "timestamp_malformed", "timestamp_repeated", "header_repeated"}, 400),
        ({"body_malformed", "event_malformed"}, 400),
        ({"endpoint_disabled"}, 404),
        ({"body_too_large"}, 413),
    ],
)
def test_the_status_tells_what_cannot_be_read_from_what_is_not_proven(
    faults: set[str], status: int
) -> None:
    assert {STATUS[fault] for fault in faults} == {status}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_endpoint_without_secrets_is_disabled(provider: str) -> None:
    with pytest.raises(WebhookRefused) as refused:
        providers.verify(provider, [], b"", [], NOW)
    assert (refused.value.code, refused.value.status) == ("endpoint_disabled", 404)


@pytest.mark.parametrize("provider", SIGNERS)
def test_a_part_of_a_second_counts(provider: str) -> None:
    body, moment = BODIES[provider], timedelta(microseconds=1)
    late = NOW + timedelta(seconds=300)
    early = NOW - timedelta(seconds=300)
    headers = headers_of(provider, body)
    for now in (late, early):
        assert providers.verify(provider, headers, body, [SECRETS[provider]], now).id
    for now in (late + moment, early - moment):
        with pytest.raises(WebhookRefused, match="timestamp_outside_tolerance"):
            providers.verify(provider, headers, body, [SECRETS[provider]], now)


@pytest.mark.parametrize("module", [stripe, clerk, asaas, users])
def test_nobody_can_widen_or_drop_the_tolerance(module: object) -> None:
    names = list(inspect.signature(module.verify).parameters)
    assert names == ["headers", "body", "secrets", "now"]
