"""Decimal numbers in and out: exact, plain, and refused with the rule that was broken."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.domain.values import (
    CREDITS_MAX,
    MICRO,
    derived_id,
    format_decimal,
    is_name,
    parse_decimal,
)

AMOUNTS = st.integers(-CREDITS_MAX, CREDITS_MAX)
SPELLING = 'must be a decimal number such as "12.5", without spaces or exponent'
TOO_FINE = "must have at most 6 decimal places"
TOO_LARGE = "must be at most 9007199254.740991"


@given(AMOUNTS)
def test_what_is_written_is_read_as_the_same(amount: int) -> None:
    assert parse_decimal(format_decimal(amount), signed=True) == amount


@given(AMOUNTS)
def test_what_is_written_is_plain_and_short(amount: int) -> None:
    text = format_decimal(amount)
    assert set(text) <= set("-0123456789.")
    assert Decimal(text) * MICRO == amount
    assert "." not in text or not text.endswith(("0", "."))


@given(AMOUNTS)
def test_an_exact_decimal_is_read_however_it_is_scaled(amount: int) -> None:
    exact = Decimal(amount) / MICRO
    for spelt in (exact, exact.normalize(), exact.quantize(Decimal("0.00000001"))):
        assert parse_decimal(spelt, signed=True) == amount


@given(st.one_of(st.text(max_size=60), st.from_regex(r"-?[0-9.eE+ _]{0,45}"), st.decimals()))
@settings(max_examples=500)
def test_anything_else_is_refused_by_a_rule_and_never_breaks(value: str | Decimal) -> None:
    try:
        amount = parse_decimal(value, signed=True)
    except ValueError as broken:
        rule = str(broken)
    else:
        rule = "must have been read exactly"
        assert abs(amount) <= CREDITS_MAX
        assert Decimal(value) * MICRO == amount
    assert rule.startswith("must ")


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", 0),
        ("12.5", 12_500_000),
        ("0.000001", 1),
        ("007.10", 7_100_000),
        ("1.0000000000", MICRO),
        ("9007199254.740991", CREDITS_MAX),
        (Decimal("1E+3"), 1_000 * MICRO),
        (Decimal("0E-99"), 0),
        (Decimal(0), 0),
    ],
)
def test_a_decimal_is_read_in_millionths(text: str | Decimal, amount: int) -> None:
    assert parse_decimal(text) == amount


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("1e5", SPELLING),
        ("1E5", SPELLING),
        (" 1", SPELLING),
        ("1 ", SPELLING),
        ("1\n", SPELLING),
        ("+1", SPELLING),
        ("", SPELLING),
        (".5", SPELLING),
        ("1.", SPELLING),
        ("1,5", SPELLING),
        ("1_000", SPELLING),
        ("0x10", SPELLING),
        ("NaN", SPELLING),
        ("Infinity", SPELLING),
        ("\u0661", SPELLING),
        ("\uff11", SPELLING),
        ("--1", SPELLING),
        ("0.0000001", TOO_FINE),
        ("1.1234567", TOO_FINE),
        (Decimal("1E-7"), TOO_FINE),
        (Decimal("1E-999999"), TOO_FINE),
        ("9007199254.740992", TOO_LARGE),
        (str(10**30), TOO_LARGE),
        ("1" * 41, TOO_LARGE),
        (Decimal(10) ** 30, TOO_LARGE),
        (Decimal("1E+40"), TOO_LARGE),
        (Decimal("1E+999999"), TOO_LARGE),
        ("1" * 101, "must be at most 100 characters"),
        (Decimal("NaN"), "must be a finite number"),
        (Decimal("sNaN"), "must be a finite number"),
        (Decimal("Infinity"), "must be a finite number"),
        (Decimal("-Infinity"), "must be a finite number"),
        ("-1", "must not be negative"),
        ("-0", "must not be negative"),
        (Decimal("-0"), "must not be negative"),
    ],
)
def test_a_refusal_states_the_rule(text: str | Decimal, rule: str) -> None:
    with pytest.raises(ValueError, match=r"^must ") as refusal:
        parse_decimal(text)
    assert str(refusal.value) == rule


def test_a_signed_decimal_may_be_negative_and_minus_nothing_is_nothing() -> None:
    assert parse_decimal("-1.5", signed=True) == -1_500_000
    assert parse_decimal("-0", signed=True) == 0


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0"), (1, "0.000001"), (-1, "-0.000001"), (12_500_000, "12.5"), (-MICRO, "-1")],
)
def test_an_amount_is_written_without_exponent_or_trailing_zeros(amount: int, text: str) -> None:
    assert format_decimal(amount) == text


@pytest.mark.parametrize("name", ["a", "A1", "user_7", "a.b:c@d|e+f-g", "9" * 128])
def test_a_name_is_of_letters_digits_and_a_few_signs(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize(
    "name", ["", "_a", "-a", "a b", "a/b", "a~1", "a\n", "\u00e9", "\u0661", "9" * 129, "a%2F"]
)
def test_anything_else_is_not_a_name(name: str) -> None:
    assert not is_name(name)


@given(st.text(), st.text())
def test_a_derived_id_is_a_name_and_depends_on_kind_and_key(key: str, other: str) -> None:
    derived = derived_id("rsv", key)
    assert is_name(derived)
    assert (derived == derived_id("rsv", other)) == (key == other)
    assert derived != derived_id("ded", key)
