"""The ids of the grants of payments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.payment_ids import bonus_grant_id, payment_grant_id
from ledger.domain.values import NAME_MAX, is_name


def test_a_key_that_can_be_an_id_is_the_id() -> None:
    key = "stripe:subscription:sub_1:1792592000"
    assert payment_grant_id(key) == key
    assert bonus_grant_id(key) == f"{key}~bonus"


@pytest.mark.parametrize("key", ["asaas:payment:pay&1", "stripe:pi:" + "x" * NAME_MAX, "-", "~a"])
def test_a_key_that_cannot_be_an_id_is_hashed(key: str) -> None:
    name = payment_grant_id(key)
    assert name.startswith("payment:")
    assert is_name(name)
    assert name == payment_grant_id(key)


@given(st.lists(st.text(min_size=1, max_size=200), unique=True))
def test_each_payment_has_its_own_grants_and_none_is_too_long(keys: list[str]) -> None:
    grants = {payment_grant_id(key) for key in keys}
    bonuses = {bonus_grant_id(key) for key in keys}
    assert len(grants | bonuses) == 2 * len(keys)
    assert all(map(is_name, grants))
    assert max(map(len, bonuses), default=0) <= NAME_MAX
