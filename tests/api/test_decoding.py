"""The fast way to read a body comes to the same as the exact one, whatever is sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from api.app import ROUTES
from api.decoding import Decoder, check_syntax, is_plain
from api.problems import document
from api.routes import Ask, Write
from ledger.domain.errors import LedgerError
from tests.api.writes import USES

BODIES: dict[str, Any] = {
    route.name: route.body for route in ROUTES if isinstance(route, Write | Ask)
}
DECODERS: dict[str, Decoder[Any]] = {name: Decoder(kind) for name, kind in BODIES.items()}
FIELDS = sorted({field for kind in BODIES.values() for field in kind.__struct_fields__})
NAMES = st.sampled_from([*FIELDS, "", "a", "b:", '":', "input_tokens", "m"]) | st.text(max_size=4)
TEXTS = st.sampled_from(["1", "0.5", "12.500000", "paid", "reject", ":", '":', " :"])
SCALARS = (
    TEXTS
    | st.text(max_size=5)
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.booleans()
    | st.none()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
MEMBERS = st.lists(st.tuples(NAMES, VALUES), max_size=6)
COLONS = st.sampled_from([":", ": ", " :", "\t:", "\n : ", "\r:"])
NEEDLES = st.sampled_from(
    rb"""" : , { } [ ] \ \u0061 \ud800 \u0000 \n 1e400 NaN - 01 1. // "amount":1 "a":""".split(b" ")
) | st.sampled_from(
    [
        b"\x00",
        b"\x1f",
        b"\x7f",
        b"\xff",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\x0c",
        b"\xc2\xa0",
    ]
)


def _told(name: str, body: bytes, *, exactly: bool) -> Any:
    decoder = DECODERS[name]
    try:
        if exactly:
            check_syntax(body)
            return decoder.decode_checked(body)
        return decoder.decode(body)
    except LedgerError as refusal:
        return document(refusal, "req_1")


def _is_the_same(name: str, body: bytes) -> None:
    assert _described(_told(name, body, exactly=False)) == _described(
        _told(name, body, exactly=True)
    )


def _described(told: Any) -> Any:
    """Return a record as what can be compared: some of its values are only equal to themselves."""
    if hasattr(told, "__struct_fields__"):
        return [type(told), *(_described(getattr(told, f)) for f in told.__struct_fields__)]
    if isinstance(told, list | tuple):
        return [_described(one) for one in told]
    if isinstance(told, dict):
        return [(name, _described(one)) for name, one in told.items()]
    return _described(told.value) if hasattr(told, "value") else repr(told)


@st.composite
def _objects(draw: st.DrawFn, base: dict[str, Any] | None = None) -> bytes:
    """Make the text of an object in which names may be repeated, and spaced in all ways."""
    members = [*(base or {}).items(), *draw(MEMBERS)]
    members = draw(st.permutations(members))
    is_ascii = draw(st.booleans())
    parts = []
    for name, value in members:
        nested = draw(st.integers(0, 9)) == 0
        text = draw(_objects()) if nested else _dumped(value, is_ascii=is_ascii)
        key = _dumped(name, is_ascii=is_ascii)
        parts.append(key + draw(COLONS).encode() + text)
    return b"{" + b", ".join(parts) + b"}"


def _dumped(value: Any, *, is_ascii: bool) -> bytes:
    return json.dumps(value, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("name", USES)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_is_sent_gets_the_same_answer_fast_or_exactly(
    name: str, data: st.DataObject
) -> None:
    base = data.draw(st.sampled_from([USES[name].body, USES[name].other, {}]))
    body = data.draw(_objects(base))
    for _ in range(data.draw(st.integers(0, 2))):
        place = data.draw(st.integers(0, len(body)))
        gone = data.draw(st.integers(0, 2))
        body = body[:place] + data.draw(NEEDLES) + body[place + gone :]
    _is_the_same(name, body)


@given(st.binary(max_size=30))
@example(b'{"amount":"1","amount":"1"}')
@example(b'{"amount":"1","amount" :"1"}')
@example(b'{"amount":"1","amount"\n:"1"}')
@example(b'{"amount":"1","\\u0061mount":"1"}')
@example(b'{"amount":"1","metadata":{"a/b":"1","a\\/b":"1"}}')
@example(b'{"amount":"1","metadata":{"a":":","a":"1"}}')
@example(b'{"amount":"1","metadata":{"a":"\\":"}}')
@example(b'{"amount":"1","job":"\x01"}')
@example(b'{"amount":"1","job":"\xed\xa0\x80"}')
@example(b'{"amount":"1","job":"\xff"}')
@example(b'\xef\xbb\xbf{"amount":"1"}')
@example(b'{"amount":"1"}\x00')
@example(b'{"amount":01}')
@example(b'{"amount":1e400}')
@example(b'{"amount":1e9999999999999999999}')
@example(b'{"amount":' + b"9" * 5_000 + b"}")
@example(b'{"amount":NaN}')
@example(b'{"metadata":' * 5_000 + b"1" + b"}" * 5_000)
@example(b"[" * 100_000)
@example(b"")
def test_hostile_bodies_get_the_same_answer_fast_or_exactly(body: bytes) -> None:
    _is_the_same("create_deduction", body)


@pytest.mark.parametrize("name", USES)
def test_what_is_usually_sent_is_read_fast(name: str) -> None:
    for body in (USES[name].body, USES[name].other):
        assert is_plain(json.dumps(body).encode())
        assert is_plain(json.dumps(body, separators=(",", ":")).encode())


def test_a_repeated_name_is_never_plain() -> None:
    for body in (
        b'{"a":{"x":1},"a":{}}',
        b'{"a":[{"x":1,"x":2}]}',
        b'{"commands":[{"key":"1"},{"key":"1","key":"2"}]}',
    ):
        assert not is_plain(body)


@pytest.mark.parametrize("inner", [b"1", rb'"\u0041"', b"NaN"])
@pytest.mark.parametrize("around", [(b"[", b"]"), (b'{"a":', b"}")], ids=["lists", "objects"])
def test_a_body_nested_however_deeply_is_refused_and_no_bug(
    around: tuple[bytes, bytes], inner: bytes
) -> None:
    """Each of the readers has a depth of its own at which it gives up."""
    for depth in (*range(100, 1_200, 20), 5_000, 100_000):
        body = b'{"amount":' + around[0] * depth + inner + around[1] * depth + b"}"
        with pytest.raises(LedgerError):
            DECODERS["create_deduction"].decode(body)
