"""Every order of what providers tell, over the real ledger: one state in the end."""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import permutations
from random import Random
from typing import Any

import pytest

from tests.consumers.settling_room import CLERK_USER, Dated, Payments
from tests.domain.payment_stories import Delivery
from tests.domain.test_payments_in_any_order import STORIES

AT_ONCE = 6


def with_a_duplicate_of_each(count: int, seed: int) -> Iterator[list[int]]:
    """Yield every order of 0…count-1, with a second of each somewhere after the first."""
    random = Random(seed)  # noqa: S311 - nothing here is secret
    for order in permutations(range(count)):
        told = list(order)
        for one in order:
            told.insert(random.randint(told.index(one) + 1, len(told)), one)
        yield told


async def state_after(
    payments: Payments, deliveries: Sequence[Delivery], order: Sequence[int]
) -> Any:
    """Return what the ledger and the rows say in the end, without what differs by the order."""
    tenant = await payments.new_tenant()
    await payments.link(tenant, CLERK_USER, "acct")
    seen: set[int] = set()
    for place in order:
        await payments.deliver(tenant, deliveries[place], f"evt_{place in seen}")
        seen.add(place)
    view = await payments.view(tenant)
    grants = sorted(
        (grant.id, grant.amount, grant.unspent, grant.expired, grant.status, grant.expires_at)
        for grant in view.grants
    )
    rows = await payments.rows(
        "SELECT payment, account, state, offer, amount, starts_at, ends_at, subscription"
        " FROM scrip.payments WHERE tenant = %(t)s ORDER BY payment",
        t=tenant,
    )
    standings = await payments.rows(
        "SELECT subscription, account, status, plan, ends_at, cancel_at, ended_at"
        " FROM scrip.subscriptions WHERE tenant = %(t)s ORDER BY subscription",
        t=tenant,
    )
    alerts = await payments.rows(
        "SELECT code, subject FROM scrip.payment_alerts"
        " WHERE tenant = %(t)s AND resolved_at IS NULL",
        t=tenant,
    )
    return view.balance, grants, rows, standings, alerts


@pytest.mark.parametrize("story", STORIES)
async def test_a_story_ends_in_the_ledger_as_if_told_in_order(dated: Dated, story: str) -> None:
    deliveries, _ = STORIES[story]
    room = asyncio.Semaphore(AT_ONCE)
    async with dated.payments() as payments:
        in_order = await state_after(payments, deliveries, range(len(deliveries)))
        assert in_order[1], "the story grants something"

        async def check(order: list[int]) -> None:
            async with room:
                end = await state_after(payments, deliveries, order)
            assert end == in_order, [deliveries[place].name for place in order]

        async with asyncio.TaskGroup() as group:
            for order in with_a_duplicate_of_each(len(deliveries), seed=len(story)):
                group.create_task(check(order))
