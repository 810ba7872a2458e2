"""Who pays next, out of lines by feature, is who the one burn-down order names."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ledger.domain.account import Account
from ledger.domain.entities import Grant
from tests.domain.agreement import documented_order
from tests.domain.strategies import KIND, START

SCOPE = st.lists(st.sampled_from(("image", "text", "voice")), max_size=4).map(tuple)
WHEN = st.sampled_from((1, 2)).map(lambda days: START + timedelta(days=days))
GRANTS = st.lists(
    st.builds(
        Grant,
        id=st.uuids().map(str),
        amount=st.just(9),
        kind=KIND,
        priority=st.sampled_from((1, 2)),
        scope=SCOPE,
        effective_at=WHEN,
        expires_at=st.none() | WHEN,
        cost_basis=st.sampled_from((None, 0, 1)),
        sequence=st.integers(1, 9),
        available=st.integers(0, 2),
    ),
    unique_by=lambda grant: grant.id,
    max_size=20,
)
CHANGES = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 2)), max_size=20)


@settings(max_examples=500)
@given(grants=GRANTS, changes=CHANGES)
def test_the_lines_are_the_burn_down_order_of_those_that_can_pay(
    grants: list[Grant], changes: list[tuple[int, int]]
) -> None:
    account = Account()
    for grant in grants:
        account.put_grant(grant)
    for place, available in changes:
        if place < len(grants):
            account.put_grant(replace(grants[place], available=available))
    restored = Account.restore(account.snapshot())
    filled = [grant for grant in account.grants.values() if grant.available]
    filled.sort(key=lambda grant: (*documented_order(grant), grant.id))
    for one in (account, account.fork(), restored):
        assert list(one.payers(None, any_scope=True)) == filled
        for feature in ("image", "text", "video", None):
            payers = [grant for grant in filled if grant.covers(feature)]
            assert list(one.payers(feature)) == payers
