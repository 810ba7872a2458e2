"""What the description says of the hot routes' bodies and answers is what is read and written."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.app import ROUTES
from api.batch import BATCHED, ITEMS, AnyItem
from api.decoding import Decoder
from api.deductions import CREATE_DEDUCTION
from api.openapi import describe
from api.reservations import CAPTURE, CREATE_RESERVATION, EXTEND, RELEASE
from ledger.domain.errors import LedgerError
from ledger.domain.values import CREDITS_MAX, format_decimal

COMPONENTS = describe(ROUTES, "0.1.0")["components"]
HOT = (CREATE_RESERVATION, CAPTURE, RELEASE, EXTEND, CREATE_DEDUCTION)
BODIES: dict[str, Any] = {
    **{route.body.__name__: Decoder(route.body) for route in HOT},
    # As in a batch: each of them is known by its `op`.
    **{item.__name__: Decoder(AnyItem) for item in ITEMS},
}
ANSWERS: dict[str, Any] = {
    route.answer.__name__: msgspec.json.Decoder(route.answer) for route in HOT
}
# No text of an amount is among them that only its value forbids ("0", one too large): a pattern
# cannot tell. The same goes for NUL, which JSON can hold and a database cannot.
ODD = [None, True, -1, 1.5, 10**40, "", "-1", "1.1234567", "1e3", " 1", "a b", "a\n", "ä", "~"]
ODD += ["x" * 600, [], ["a"], {}, {"a": 1}, {"": "x"}, {"a": "b"}, {"x" * 70: "a"}]
TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2199, 12, 31)).map(  # noqa: DTZ001 - in UTC
    lambda at: at.isoformat() + "Z"
)
WORDS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")


def _valid(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Generate what `schema` allows."""
    match schema:
        case {"$ref": ref}:
            return st.deferred(lambda: _valid(COMPONENTS["schemas"][ref.rsplit("/", 1)[1]]))
        case {"anyOf": kinds}:
            return st.one_of(*map(_valid, kinds))
        case {"enum": values}:
            return st.sampled_from(values)
        case {"const": value}:
            return st.just(value)
        case {"type": "string", "pattern": pattern} if pattern.startswith(("^[0-9]{", "^-?[0-9]")):
            return st.integers(1, CREDITS_MAX).map(format_decimal)
        case {"type": "string", "pattern": pattern}:
            return st.from_regex(pattern, fullmatch=True)
        case {"type": "string", "format": "date-time"}:
            return TIMES
        case {"type": "string"}:
            sizes = schema.get("minLength", 0), min(schema.get("maxLength", 9), 9)
            return st.text(WORDS, min_size=sizes[0], max_size=sizes[1])
        case {"type": "integer"}:
            return st.integers(schema.get("minimum", -9), schema.get("maximum", 2**31))
        case {"type": "number"}:
            return st.integers(1, CREDITS_MAX // 1_000_000)
        case {"type": "boolean"}:
            return st.booleans()
        case {"type": "null"}:
            return st.none()
        case {"type": "array", "items": items}:
            return st.lists(_valid(items), min_size=schema.get("minItems", 0), max_size=3)
        case {"type": "object", "additionalProperties": dict(values)}:
            names = _valid({"type": "string", **schema.get("propertyNames", {})})
            return st.dictionaries(names, _valid(values), max_size=3)
        case {"type": "object", "properties": properties}:
            members = {
                # The schema of an answer does not say that its times are times.
                name: TIMES if name.endswith("_at") else _valid(kind)
                for name, kind in properties.items()
            }
            required = {name: members.pop(name) for name in schema["required"]}
            return st.fixed_dictionaries(required, optional=members)
        case _:
            raise AssertionError(schema)


@st.composite
def _nearly_valid(draw: st.DrawFn, schema: dict[str, Any]) -> Any:
    """Generate what `schema` allows, or what differs from it in one or two places."""
    value = draw(_valid(schema))
    for _ in range(draw(st.integers(0, 2))):
        names = sorted({*schema["properties"], "unknown", "Amount"})
        name = draw(st.sampled_from(names))
        if draw(st.booleans()):
            odd = [one for one in ODD if not (name.endswith("_at") and isinstance(one, str))]
            value[name] = draw(st.sampled_from(odd))
        else:
            value.pop(name, None)
    return value


def _agree(name: str, value: Any, read: Callable[[bytes], Any]) -> None:
    described = {"$ref": f"#/components/schemas/{name}", "components": COMPONENTS}
    allowed = jsonschema_rs.validator_for(described, validate_formats=True).is_valid(value)
    try:
        read(json.dumps(value).encode())
        is_read = True
    except (LedgerError, msgspec.ValidationError):
        is_read = False
    assert is_read == allowed, value


@pytest.mark.parametrize("name", BODIES)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_body_is_read_if_and_only_if_its_schema_allows_it(name: str, data: st.DataObject) -> None:
    value = data.draw(_nearly_valid(COMPONENTS["schemas"][name]))
    _agree(name, value, BODIES[name].decode)


@pytest.mark.parametrize("name", ANSWERS)
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_an_answer_is_of_its_schema_if_and_only_if_it_can_be_written(
    name: str, data: st.DataObject
) -> None:
    value = data.draw(_nearly_valid(COMPONENTS["schemas"][name]))
    _agree(name, value, ANSWERS[name].decode)


def test_each_command_of_a_batch_is_described_as_it_is_alone() -> None:
    for item, write in ITEMS.items():
        assert write in BATCHED
        alone = COMPONENTS["schemas"][write.body.__name__]["properties"]
        batched = COMPONENTS["schemas"][item.__name__]["properties"]
        assert {name: batched[name] for name in alone} == alone
        assert set(batched) - set(alone) <= {"op", "account", "key", write.target}
