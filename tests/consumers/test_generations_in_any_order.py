"""Whatever order and repetition messages arrive in, the ledger says the same in the end."""

from collections.abc import Sequence
from itertools import permutations

import pytest

from ledger.domain.commands import Reserve
from ledger.domain.entities import Charge, Metered, Rates, Usage
from ledger.domain.errors import OperationExists
from ledger.domain.values import MICRO
from tests.consumers.room import (
    FEATURE,
    MODEL,
    RATES,
    Message,
    Room,
    again,
    generation,
    tokens,
)

GRANTED = 1_000 * MICRO
FREE = Rates(input_per_million=0, output_per_million=0, cached_input_per_million=0)
DEAR = Rates(
    input_per_million=2 * MICRO,
    output_per_million=8 * MICRO,
    cached_input_per_million=MICRO,
    minimum=3 * MICRO,
)
OVER_HTTP = "reserved over HTTP"


def arrivals(steps: Sequence[str]) -> list[tuple[str, ...]]:
    """Return every order in which `steps` and one of them again can arrive."""
    return sorted({order for step in steps for order in permutations([*steps, step])})


class Jobs:
    """One account and one job for each order of arrival, all of which go on side by side."""

    def __init__(self, room: Room, orders: Sequence[tuple[str, ...]]) -> None:
        self.room = room
        self.orders = orders
        self.accounts = [f"account-{n}" for n in range(len(orders))]
        self.sent: dict[tuple[str, str], Message] = {}
        for account in self.accounts:
            room.open_account(account)

    def message(self, account: str, step: str) -> Message:
        data = {
            "started": {"estimate": {"usage": {"input_tokens": 400_000}}},
            "progressed": tokens(100_000, 20_000),
            "progressed further": tokens(200_000, 30_000),
            "succeeded": tokens(300_000, 50_000),
        }.get(step, {})
        if step == "started":
            data |= {"feature": FEATURE, "model": MODEL}
        if (account, step) in self.sent:
            return again(self.sent[account, step])
        message = generation(step.partition(" ")[0], "job-1", account, **data)
        self.sent[account, step] = message
        return message

    def reserve(self, account: str) -> None:
        charge = Charge(feature=FEATURE, model=MODEL, usage=Usage(input_tokens=400_000))
        try:
            self.room.do(account, Reserve(id="job-1", charge=charge), key="http-1")
        except OperationExists:
            return

    async def run(self) -> None:
        async with self.room.capturing() as client:
            for place in range(len(self.orders[0])):
                messages = []
                for account, order in zip(self.accounts, self.orders, strict=True):
                    if order[place] == OVER_HTTP:
                        self.reserve(account)
                    else:
                        messages.append(self.message(account, order[place]))
                await self.room.publish(client, messages)
                await self.room.handled(client)

    def ends(self) -> set[tuple[int, int, int, Metered, int]]:
        found = set()
        for account in self.accounts:
            view = self.room.view(account)
            assert view.balance.holds()
            found.add(
                (
                    view.balance.available,
                    view.balance.consumed,
                    view.balance.reserved,
                    self.room.used(account),
                    len(view.operations),
                )
            )
        return found


@pytest.mark.parametrize(
    "rates",
    [
        pytest.param(RATES, id="priced"),
        pytest.param(DEAR, id="minimum"),
        pytest.param(FREE, id="free"),
    ],
)
async def test_a_job_that_succeeds_is_charged_its_total_in_every_order(
    room: Room, rates: Rates
) -> None:
    room.set_prices(rates)
    jobs = Jobs(room, arrivals(["started", "progressed", "progressed further", "succeeded"]))

    await jobs.run()

    cost = max(
        rates.minimum,
        (300_000 * rates.input_per_million + 50_000 * rates.output_per_million) // MICRO,
    )
    used = Metered(usage=Usage(300_000, 50_000))
    assert jobs.ends() == {(GRANTED - cost, cost, 0, used, 0)}


async def test_a_job_that_fails_is_charged_what_it_had_used_in_every_order(room: Room) -> None:
    room.set_prices()
    jobs = Jobs(room, arrivals(["started", "progressed", "failed"]))

    await jobs.run()

    cost = 360_000
    assert jobs.ends() == {(GRANTED - cost, cost, 0, Metered(usage=Usage(100_000, 20_000)), 0)}


async def test_a_reservation_over_http_meets_its_jobs_events_in_every_order(room: Room) -> None:
    room.set_prices()
    jobs = Jobs(room, arrivals([OVER_HTTP, "succeeded", "cancelled"]))

    await jobs.run()

    cost = MICRO
    assert jobs.ends() == {(GRANTED - cost, cost, 0, Metered(usage=Usage(300_000, 50_000)), 0)}
