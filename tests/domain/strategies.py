"""What commands are drawn from: small amounts, few names, times that coincide."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import strategies as st

from ledger.domain import commands as c
from ledger.domain.entities import Charge, Rates, Usage

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
PICK = st.integers(0, 7)
AMOUNT = st.integers(0, 9) | st.integers(0, 40)
SECONDS = st.sampled_from((1, 5, 20))
FEATURE = st.sampled_from(("image", "text", None))
PRICED = st.sampled_from(("image", "image", "text", None))
SCOPE = st.sampled_from(((), (), ("image",), ("text",), ("image", "text")))
OVERAGE = st.sampled_from(("reject", "draw", "debt"))
OR_DEFAULT = st.none() | OVERAGE
YES = st.booleans()
KIND = st.sampled_from(("paid", "promotional"))
SMALL = st.integers(0, 9)
AT_LEAST = st.sampled_from((None, None, 0, 5))
QUANTITY = st.integers(0, 4_000_000)
TOKENS = st.integers(0, 1_500_000)
MODEL = st.sampled_from(("small", "small", "large", None))
PRICE = st.sampled_from((0, 1, 2, 3, 7, None))
OFFSET = st.sampled_from((None, None, -5, 0, 1, 5))
LIFE = st.sampled_from((None, None, 1, 5, 20, 60))
BY_AMOUNT = st.builds(Charge, amount=AMOUNT, feature=FEATURE)
BY_QUANTITY = st.builds(Charge, quantity=QUANTITY, feature=PRICED)
USAGE = st.builds(Usage, TOKENS, TOKENS, TOKENS)
BY_USAGE = st.builds(Charge, usage=USAGE, feature=PRICED, model=MODEL)
CHARGE = st.one_of(BY_AMOUNT, BY_AMOUNT, BY_QUANTITY, BY_USAGE)
RATE = st.integers(0, 5)
RATES = st.builds(Rates, RATE, RATE, RATE, st.sampled_from((0, 0, 3)))
MODELS = st.builds(lambda small: {"small": small}, RATES) | st.builds(
    lambda small, large: {"small": small, "large": large}, RATES, RATES
)
NAMES = st.sampled_from(("image", "text"))
CATALOG = st.one_of(
    st.builds(c.SetFeature, feature=NAMES, name=st.just("name"), unit_price=PRICE, overage=OVERAGE),
    st.builds(c.SetRateCard, feature=NAMES, models=MODELS),
    st.builds(c.SetRefundPolicy, regrant_days=st.sampled_from((None, 1, 30))),
    st.builds(c.RaiseAlert, code=st.just("unknown_price"), subject=st.sampled_from("ab")),
)
