"""Answers are made from events alone, and never change for an event that has been released."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from api import catalog_examples, examples

GOLDEN = Path(__file__).parent / "golden" / "answers.json"
ANSWERS = {
    name: getattr(examples, name, None) or getattr(catalog_examples, name)
    for name in (
        "ACCOUNT",
        "GRANT",
        "REVOCATION",
        "RESERVATION",
        "CAPTURE",
        "RELEASE",
        "DEDUCTION",
        "REFUND",
        "ADJUSTMENT",
        "FEATURE",
        "RATE_CARD",
        "REFUND_POLICY",
        "PLAN",
        "PACK",
        "REFERRAL_REWARD",
    )
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_what_it_has_always_been(name: str) -> None:
    golden = msgspec.json.decode(GOLDEN.read_bytes())
    assert ANSWERS[name] == golden[name]
