"""Requests that are nearly right, told by chance; and whether one was signed.

That is judged here, from the raw request, by code that shares nothing with ours.
"""

from __future__ import annotations

import base64
import binascii
import json
import random

from tests.api.webhooks.senders import (
    AT,
    BODIES,
    OTHERS,
    PREFIXES,
    SECRETS,
    Headers,
    headers_of,
    hmac_sha256,
)

REQUESTS = 20_000
SEED = 4
VALUES = (
    *b"garbage|v1,a,b|v1,abc|v1,|v1|v1a,AAAA|,|=|t=|t=1790000000|v1=|v0=00|NaN|inf|-1|0".split(
        b"|"
    ),
    *(b"+1790000000", b" 1790000000", b"1_790_000_000", b"1790000000.9", b"9999999999", b"1e9"),
    *(
        b"",
        b" ",
        b"  ",
        b"\0",
        b"\xff",
        b"\xc3",
        b"\xc3\xa9",
        b"\r\n",
        b"\x85",
        b"msg.1",
        b"a" * 5_000,
    ),
    *("١٧٩٠٠٠٠٠٠٠".encode(), b"\xed\xa0\x80", b"v1," + b"A" * 43 + b"=", b"v1=" + b"0" * 64),
)
PIECES = (
    *b"""[ ] { } " : , \\ \\u0000 \\ud800 null true NaN -Infinity 1e400 0.1 -0 01""".split(),
    *(b'"id"', b'"type"'),
    *(b'"id":1', b'"type":{}', b'"event":"x"', b'"a":1,"a":2', b"\xff", b"\xc3", b"\xed\xa0\x80"),
    *(
        b"\xef\xbb\xbf",
        b"\0",
        b"9" * 5_000,
        b"[" * 100,
        b'{"a":' * 700,
        b"[" * 60_000,
        b"x" * 2**20,
    ),
)
BODIES_OF_NOTHING = (
    b"",
    b"[]",
    b"{}",
    b"null",
    b"1",
    b'""',
    b"[" * 999 + b"]" * 999,
    b"\xff\xfe{}",
)

Request = tuple[Headers, bytes]


def _cut(chance: random.Random, old: bytes) -> bytes:
    start, end = sorted(chance.randrange(len(old) + 1) for _ in range(2))
    piece = chance.choice((b"", chance.choice(VALUES), chance.randbytes(3), old[start:end] * 2))
    return old[:start] + piece + old[end:]


def _flip(chance: random.Random, old: bytes) -> bytes:
    if not old:
        return b"\0"
    at = chance.randrange(len(old))
    return old[:at] + bytes([old[at] ^ (1 << chance.randrange(8))]) + old[at + 1 :]


def _other_value(chance: random.Random, old: bytes) -> bytes:
    change = chance.choice((_cut, _flip, _flip, lambda chance, _: chance.choice(VALUES)))
    return change(chance, old)


def _other_headers(chance: random.Random, headers: Headers) -> Headers:
    changed = list(headers)
    at = chance.randrange(len(changed))
    name, value = changed[at]
    match chance.randrange(7):
        case 0:
            del changed[at]
        case 1:
            changed.insert(chance.randrange(len(changed)), (name, _other_value(chance, value)))
        case 2:
            changed[at] = (chance.choice((name.upper(), name.title())), value)
        case 3:
            chance.shuffle(changed)
        case 4:
            changed[at] = (name, chance.choice((b" ", b",", b", ")).join([value, value]))
        case 5:
            before, after = _other_value(chance, value), chance.choice((b" ", b",", b"  "))
            changed[at] = (name, before + after + value)
        case _:
            changed[at] = (name, _other_value(chance, value))
    return changed


def _other_body(chance: random.Random, body: bytes) -> bytes:
    match chance.randrange(5):
        case 0:
            return chance.choice(BODIES_OF_NOTHING)
        case 1:
            return _flip(chance, body)
        case 2:
            return _cut(chance, body)
        case 3:
            return body[:-1] + b',"a":' + chance.choice(PIECES) + b"}"
        case _:
            at = chance.randrange(len(body) + 1)
            return body[:at] + chance.choice(PIECES) + body[at:]


def request_of(chance: random.Random, provider: str) -> Request:
    """Return a valid request with some change, or with several, or nothing of one at all."""
    body, kind = BODIES[provider], chance.randrange(10)
    if kind == 0:
        names = (*(name for name, _ in headers_of(provider, body)), b"x", b"")
        values = (*VALUES, chance.randbytes(20), SECRETS[provider].encode())
        headers = [
            (chance.choice(names), chance.choice(values)) for _ in range(chance.randrange(6))
        ]
        return headers, chance.choice((chance.randbytes(chance.randrange(200)), body))
    if kind in {1, 2, 3}:  # So that what is behind the signature is reached as well.
        body = _other_body(chance, body)
    at: int | bytes = AT
    if kind == 4:
        at = chance.choice((AT + chance.randrange(-600, 600), chance.choice(VALUES)))
    secret = chance.choice((SECRETS, SECRETS, SECRETS, SECRETS, OTHERS))[provider]
    message_id = b"msg_1" if kind != 5 else _other_value(chance, b"msg_1")
    headers = headers_of(provider, body, at=at, secret=secret, message_id=message_id)
    if kind == 6:
        body = _other_body(chance, body)
    if kind >= 6:
        for _ in range(chance.randrange(3)):
            headers = _other_headers(chance, headers)
    return headers, body


def _values(headers: Headers, name: bytes) -> list[bytes]:
    return [value for key, value in headers if key.lower() == name]


def _is_near(written: bytes) -> bool:
    return written.isdigit() and len(written) == 10 and abs(int(written) - AT) <= 300


def _stripe_signed(headers: Headers, body: bytes) -> bool:
    (header,) = _values(headers, b"stripe-signature")
    parts = header.split(b",")
    (time,) = [part[2:] for part in parts if part.startswith(b"t=")]
    right = hmac_sha256(SECRETS["stripe"].encode(), time + b"." + body).hex().encode()
    return _is_near(time) and b"v1=" + right in parts


def _standard_signed(provider: str, headers: Headers, body: bytes) -> bool:
    prefix = PREFIXES[provider]
    ((name,), (time,), (signatures,)) = (
        _values(headers, prefix + end) for end in (b"-id", b"-timestamp", b"-signature")
    )
    key = base64.b64decode(SECRETS[provider][6:])
    right = binascii.b2a_base64(hmac_sha256(key, b"%b.%b.%b" % (name, time, body)), newline=False)
    return b"." not in name and _is_near(time) and b"v1," + right in signatures.split(b" ")


def is_believed(provider: str, headers: Headers, body: bytes) -> bool:
    """Tell whether the sender of a request holds the secret, and its body is an object."""
    try:
        is_object = isinstance(json.loads(body.decode()), dict)
        if provider == "stripe":
            return is_object and _stripe_signed(headers, body)
        if provider == "asaas":
            return is_object and _values(headers, b"asaas-access-token") == [
                SECRETS["asaas"].encode()
            ]
        return is_object and _standard_signed(provider, headers, body)
    except (ValueError, RecursionError):
        return False
