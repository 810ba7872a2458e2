"""What is kept of a payload: listed fields, and of their values what looks like an id or a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.webhooks.redacting import ALLOWED, METADATA, redacted
from tests.api.webhooks.senders import PROVIDERS

NAMES = st.sampled_from([*sorted(ALLOWED["stripe"] | ALLOWED["asaas"]), "email", "name", "x y"])
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.just("pay_1")
)
VALUES = st.recursive(
    LEAVES,
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(NAMES | st.text(max_size=4), parts),
    max_leaves=30,
)


def kept(provider: Any, payload: dict[str, Any]) -> Any:
    return json.loads(bytes(redacted(provider, payload)), parse_float=Decimal)


def names(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
    for part in value.values() if isinstance(value, dict) else value:
        if isinstance(part, dict | list):
            yield from names(part)


@pytest.mark.parametrize("provider", PROVIDERS)
@settings(max_examples=300, deadline=None)
@given(payload=st.dictionaries(NAMES, VALUES))
def test_no_other_name_is_left_and_what_is_kept_is_kept_again(
    provider: Any, payload: dict[str, Any]
) -> None:
    once = kept(provider, payload)
    assert set(names(once)) <= ALLOWED[provider]
    assert kept(provider, once) == once


def test_of_metadata_only_what_is_ours_is_kept() -> None:
    metadata = {"scrip_account": "a", "id": "x", "scrip_price": {"id": "x"}, "ten": "Zoe"}
    assert kept("stripe", {"data": {"object": {"metadata": metadata}}}) == {
        "data": {"object": {"metadata": {"scrip_account": "a", "scrip_price": {}}}}
    }
    assert kept("stripe", {"metadata": ["zoe@x"], "data": {"metadata": "zoe"}}) == {"data": {}}
    assert ALLOWED["stripe"] > METADATA


def test_texts_that_people_write_are_dropped() -> None:
    payload = {
        "id": "evt_1&2",
        "event": "Zoe Smith",
        "dateCreated": "2026-09-21 11:13:20",
        "payment": {
            "value": Decimal("94.51"),
            "status": "x" * 256,
            "refunds": [{"value": 10**30, "dueDate": "2026-09-21"}, "Zoë", None],
        },
    }
    assert kept("asaas", payload) == {
        "id": "evt_1&2",
        "dateCreated": "2026-09-21 11:13:20",
        "payment": {"value": Decimal("94.51"), "refunds": [{"dueDate": "2026-09-21"}, None]},
    }
