"""Every order and repetition of what providers tell ends in the same, and never gives too much."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import permutations
from random import Random

import pytest

from ledger.domain.facts import PaymentFact
from ledger.domain.settled import Settlement
from ledger.domain.settlement import settle
from tests.domain.payment_stories import (
    BIG,
    BONUS,
    MICRO,
    OFFERS,
    PACK,
    SMALL,
    T0,
    T1,
    T2,
    Delivery,
    asaas,
    clerk,
    dispute,
    done,
    invoice,
    item,
    line,
    refund,
    refunded,
    session,
    subscription,
)

PaidFor = Callable[[AbstractSet[str]], int]
"""From what was told so far, by name, to the credits that are paid for at most."""


def pack_by_a_slow_payment(told: AbstractSet[str]) -> int:
    back = 1_000 if "full" in told else 400 if "partial" in told else 0
    return (PACK + BONUS) * (1_000 - back) // 1_000 if "paid later" in told else 0


def bigger_plan(told: AbstractSet[str]) -> int:
    if "upgrade" in told:
        return BIG
    return SMALL if told & {"paid", "succeeded"} else 0


def disputed(told: AbstractSet[str]) -> int:
    return SMALL if "paid" in told and "lost" not in told else 0


def two_periods(told: AbstractSet[str]) -> int:
    return SMALL * (bool(told & {"created", "active"}) + ("renewed" in told))


def refunded_in_parts(told: AbstractSet[str]) -> int:
    left = 0 if "full" in told else 70 if "partial" in told else 100
    return PACK * left // 100 if told else 0


def never_refunded(told: AbstractSet[str]) -> int:
    return PACK if told else 0


FIRST = line("il_1", "price_small", 1_000)
UPGRADE = (
    line("il_2", "price_small", -500, start=T0 + 1_000, proration=True),
    line("il_3", "price_big", 1_500, start=T0 + 1_000, proration=True),
)
WITH_CHARGE = {"charge": "ch_1", "payment_intent": "pi_1"}
OPENED = (
    invoice("paid", "invoice.paid", "in_1", FIRST, **WITH_CHARGE),
    dispute("created", "created", "needs_response"),
    dispute("withdrawn", "funds_withdrawn", "needs_response"),
)

STORIES: dict[str, tuple[tuple[Delivery, ...], PaidFor]] = {
    "a pack, paid later, refunded": (
        (
            session("unpaid", "completed", payment_status="unpaid"),
            session("paid later", "async_payment_succeeded", T0 + 9),
            refunded("partial", 400),
            refunded("full", 1_000),
        ),
        pack_by_a_slow_payment,
    ),
    "a plan, and a bigger one": (
        (
            subscription("created", "created", T0, "active", "price_small"),
            invoice("paid", "invoice.paid", "in_1", FIRST),
            invoice("succeeded", "invoice.payment_succeeded", "in_1", FIRST),
            subscription("updated", "updated", T0 + 1_000, "active", "price_big"),
            invoice("upgrade", "invoice.paid", "in_2", *UPGRADE, at=T0 + 1_001),
        ),
        bigger_plan,
    ),
    "a dispute, won": (
        (*OPENED, dispute("won", "closed", "won")),
        disputed,
    ),
    "a dispute, lost": (
        (*OPENED, dispute("lost", "closed", "lost")),
        disputed,
    ),
    "clerk, two periods": (
        (
            clerk(
                "created", "subscription.created", T0, {"id": "csub_1", "items": [item("active")]}
            ),
            clerk("active", "subscriptionItem.active", T0 + 1, item("active")),
            clerk("renewed", "subscriptionItem.updated", T1, item("active", T1, T2)),
            clerk("canceled", "subscriptionItem.canceled", T1 + 9, item("canceled", T1, T2)),
            clerk("ended", "subscriptionItem.ended", T2, item("ended", T1, T2)),
        ),
        two_periods,
    ),
    "asaas, refunded": (
        (
            asaas("confirmed", "PAYMENT_CONFIRMED", "CONFIRMED"),
            asaas("received", "PAYMENT_RECEIVED", "RECEIVED", paymentDate="2026-10-20"),
            asaas("partial", "PAYMENT_PARTIALLY_REFUNDED", "RECEIVED", refunds=done("30")),
            asaas("full", "PAYMENT_REFUNDED", "REFUNDED", refunds=done("30.0", "70.00")),
        ),
        refunded_in_parts,
    ),
    "asaas, a chargeback": (
        (
            asaas("confirmed", "PAYMENT_CONFIRMED", "CONFIRMED"),
            asaas(
                "requested",
                "PAYMENT_CHARGEBACK_REQUESTED",
                "CHARGEBACK_REQUESTED",
                chargeback={"status": "REQUESTED"},
            ),
            asaas(
                "contested",
                "PAYMENT_CHARGEBACK_DISPUTE",
                "CHARGEBACK_DISPUTE",
                chargeback={"status": "IN_DISPUTE"},
            ),
            asaas(
                "reversal",
                "PAYMENT_AWAITING_CHARGEBACK_REVERSAL",
                "AWAITING_CHARGEBACK_REVERSAL",
                chargeback={"status": "IN_DISPUTE"},
            ),
        ),
        never_refunded,
    ),
}


def entitled(settlement: Settlement) -> int:
    return sum(
        each.credits + each.bonus - each.reversed - each.bonus_reversed
        for each in settlement.entitlements
    )


def orders_with_a_duplicate_of_each(count: int) -> Iterator[tuple[int, ...]]:
    """Yield every distinct order of two of each of 0…count-1."""

    def follow(left: list[int], order: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if not any(left):
            yield order
        for place, more in enumerate(left):
            if more:
                left[place] -= 1
                yield from follow(left, (*order, place))
                left[place] += 1

    return follow([2] * count, ())


class Table:
    """Facts as they are kept: each once, by its id, in the order in which they were first told.

    What follows from one order of distinct facts is worked out once, for there are few of these.
    """

    def __init__(self, deliveries: Sequence[Delivery], paid_for: PaidFor) -> None:
        self.names = [delivery.name for delivery in deliveries]
        self.told = [(delivery.facts("evt_1"), delivery.facts("evt_2")) for delivery in deliveries]
        self.paid_for = paid_for
        self.settled: dict[tuple[str, ...], Settlement] = {}

    def feed(self, order: Sequence[int]) -> Settlement:
        known: dict[str, PaymentFact] = {}
        names: set[str] = set()
        end = Settlement()
        for place in order:
            for fact in self.told[place][self.names[place] in names]:
                known.setdefault(fact.id, fact)
            names.add(self.names[place])
            key = tuple(known)
            if key not in self.settled:
                self.settled[key] = settle(known.values(), OFFERS)
            end = self.settled[key]
            assert entitled(end) <= self.paid_for(names), [self.names[each] for each in order]
        return end


@pytest.mark.parametrize("story", STORIES)
def test_a_story_ends_as_if_told_in_order(story: str) -> None:
    deliveries, paid_for = STORIES[story]
    table = Table(deliveries, paid_for)
    in_order = table.feed(range(len(deliveries)))
    for order in orders_with_a_duplicate_of_each(len(deliveries)):
        assert table.feed(order) == in_order, [table.names[place] for place in order]


@pytest.mark.parametrize("story", STORIES)
def test_the_facts_may_be_repeated_in_one_call_as_well(story: str) -> None:
    facts = [fact for delivery in STORIES[story][0] for fact in delivery.facts()]
    in_order = settle(facts, OFFERS)
    for order in permutations(facts) if len(facts) < 6 else [facts[::-1], *shuffles(facts)]:
        assert settle([*order, *order[::2]], OFFERS) == in_order


def shuffles(facts: Sequence[PaymentFact]) -> Iterator[list[PaymentFact]]:
    random = Random(4)  # noqa: S311 - nothing here is secret
    for _ in range(200):
        yield random.sample(facts, len(facts))


def test_all_stories_of_stripe_at_once_end_as_if_told_in_order() -> None:
    facts = [
        fact
        for story in ("a plan, and a bigger one", "a dispute, lost", "a pack, paid later, refunded")
        for delivery in STORIES[story][0]
        for fact in delivery.facts()
    ]
    facts += refund("failed", "refund.failed", "failed", 300).facts()
    in_order = settle(facts, OFFERS)
    for order in shuffles(facts):
        assert settle(order, OFFERS) == in_order


def ends(story: str) -> Settlement:
    facts = [fact for delivery in STORIES[story][0] for fact in delivery.facts()]
    return settle(facts, OFFERS)


def test_the_ends_of_the_stories() -> None:
    pack = ends("a pack, paid later, refunded").entitlements[0]
    assert (pack.payment, pack.credits, pack.bonus) == ("stripe:session:cs_1", PACK, BONUS)
    assert (pack.reversed, pack.bonus_reversed, pack.frozen) == (PACK, BONUS, False)
    upgraded = ends("a plan, and a bigger one")
    assert [(each.offer, each.credits) for each in upgraded.entitlements] == [("big", BIG)]
    assert [each.plan for each in upgraded.standings] == ["big"]
    won, lost = (ends(f"a dispute, {how}").entitlements[0] for how in ("won", "lost"))
    assert (won.credits, won.reversed, won.frozen) == (SMALL, 0, False)
    assert (lost.credits, lost.reversed, lost.frozen) == (SMALL, SMALL, False)
    clerk_end = ends("clerk, two periods")
    assert [each.credits for each in clerk_end.entitlements] == [SMALL, SMALL]
    assert [(each.status, each.plan) for each in clerk_end.standings] == [("ended", "free")]
    assert clerk_end.owners == ("clerk:user:user_1",)
    back = ends("asaas, refunded").entitlements[0]
    assert (back.credits, back.reversed) == (PACK, PACK)
    thawed = ends("asaas, a chargeback").entitlements[0]
    assert (thawed.credits, thawed.reversed, thawed.frozen) == (PACK, 0, False)
    assert not any(ends(story).alerts for story in STORIES)
    assert PACK == 1_000 * MICRO
