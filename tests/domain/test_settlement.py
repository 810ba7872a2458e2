"""What follows from payment facts, rule by rule."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.domain.facts import PaymentFact
from ledger.domain.settled import Alert, Entitlement, Settlement
from ledger.domain.settlement import settle
from tests.domain.payment_stories import (
    BIG,
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
    stripe,
    subscription,
    when,
)


def told(*deliveries: Delivery) -> Settlement:
    facts: list[PaymentFact] = [fact for each in deliveries for fact in each.facts()]
    return settle(facts, OFFERS)


def only(settlement: Settlement) -> Entitlement:
    (entitlement,) = settlement.entitlements
    return entitlement


BOUGHT = session("paid", "completed")
PERIOD = invoice("paid", "invoice.paid", "in_1", line("il_1", "price_small", 1_000))


def test_a_pack_expires_so_many_days_after_it_was_paid() -> None:
    entitlement = only(told(BOUGHT))
    assert entitlement.effective_at == when(T0)
    assert entitlement.expires_at == when(T0 + 365 * 86_400)


@pytest.mark.parametrize(
    "story", [(), (refunded("part", 333),), (dispute("d", "created", "lost"),)]
)
def test_what_goes_back_before_it_was_paid_waits(story: tuple[Delivery, ...]) -> None:
    assert told(*story).entitlements == ()


def test_a_part_is_rounded_down_and_all_is_all() -> None:
    third = refunded("third", 333)
    assert only(told(BOUGHT, third)).reversed == PACK * 333 // 1_000
    odd = session("odd", "completed", amount_subtotal=1_500, amount_total=1_500)
    assert only(told(odd, refunded("part", 1, amount=1_500))).reversed == PACK // 1_500
    assert only(told(odd, refunded("all", 1_500, amount=1_500))).reversed == PACK


def test_a_refund_told_by_its_charge_and_by_itself_is_one() -> None:
    created = refund("created", "refund.created", "succeeded", 400)
    both = told(BOUGHT, refunded("so far", 400), created)
    assert only(both).reversed == only(told(BOUGHT, created)).reversed == PACK * 4 // 10


def test_refunds_count_once_for_each_id() -> None:
    first = refund("first", "refund.created", "pending", 400)
    again = refund("again", "refund.updated", "succeeded", 400)
    second = refund("second", "refund.created", "succeeded", 100, "re_2")
    assert only(told(BOUGHT, first, again, second)).reversed == PACK // 2


def test_a_refund_that_failed_gives_its_credits_again() -> None:
    created = refund("created", "refund.created", "pending", 400)
    failed = refund("failed", "refund.failed", "failed", 400)
    so_far = refunded("so far", 400)
    for story in ((created, failed), (failed, created), (failed, so_far, created)):
        assert only(told(BOUGHT, *story)).reversed == 0


def test_a_refund_and_a_lost_dispute_take_no_more_than_all() -> None:
    lost = dispute("lost", "closed", "lost", amount=800)
    assert only(told(BOUGHT, lost)).reversed == PACK * 8 // 10
    assert only(told(BOUGHT, lost, refunded("part", 400))).reversed == PACK


def test_a_dispute_in_another_currency_is_about_all_of_it() -> None:
    lost = dispute("lost", "closed", "lost", amount=500, currency="eur")
    assert only(told(BOUGHT, lost)).reversed == PACK


@pytest.mark.parametrize(
    ("status", "frozen"),
    [
        ("warning_needs_response", False),
        ("warning_under_review", False),
        ("warning_closed", False),
        ("prevented", False),
        ("needs_response", True),
        ("under_review", True),
        ("won", False),
        ("lost", False),
    ],
)
def test_a_dispute_freezes_while_it_is_open(status: str, frozen: bool) -> None:  # noqa: FBT001
    entitlement = only(told(BOUGHT, dispute("any", "updated", status)))
    assert entitlement.frozen is frozen
    assert entitlement.reversed == (PACK if status == "lost" else 0)


def test_an_inquiry_that_becomes_a_dispute_freezes() -> None:
    inquiry = dispute("inquiry", "created", "warning_needs_response")
    real = dispute("real", "updated", "needs_response")
    assert only(told(BOUGHT, real, inquiry)).frozen


def test_one_dispute_of_two_that_is_open_freezes() -> None:
    won = dispute("won", "closed", "won", id="dp_2")
    assert only(told(BOUGHT, won, dispute("open", "created", "needs_response"))).frozen


def test_a_payment_is_found_through_what_links_it_to_its_invoice() -> None:
    link = stripe(
        "link",
        "invoice_payment.paid",
        T0,
        {"id": "inpay_1", "invoice": "in_1", "payment": {"payment_intent": "pi_1"}},
    )
    assert only(told(PERIOD, refunded("full", 1_000))).reversed == 0
    assert only(told(PERIOD, refunded("full", 1_000), link)).reversed == SMALL


def test_an_unknown_price_grants_nothing_and_is_told() -> None:
    settlement = told(session("odd", "completed", metadata={"scrip_price": "price_x"}))
    assert settlement.entitlements == ()
    assert settlement.alerts == (
        Alert(code="unknown_price", subject="stripe:session:cs_1", price="price_x"),
    )
    unknown = invoice("paid", "invoice.paid", "in_1", line("il_1", "price_x", 9))
    assert [alert.code for alert in told(unknown).alerts] == ["unknown_price"]
    untold = session("odd", "completed", metadata={})
    assert [alert.code for alert in told(untold).alerts] == ["price_not_told"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"amount_subtotal": 999}, "amount_mismatch"), ({"currency": "eur"}, "currency_mismatch")],
)
def test_money_that_only_a_reference_ties_to_a_price_must_be_enough(
    changes: dict[str, Any], code: str
) -> None:
    by_reference = told(session("less", "completed", **changes))
    assert (by_reference.entitlements, [alert.code for alert in by_reference.alerts]) == (
        (),
        [code],
    )
    items = {"line_items": {"data": [{"price": {"id": "price_pack"}, "quantity": 1}]}}
    by_stripe = told(session("less", "completed", **changes, **items))
    assert only(by_stripe).credits == PACK
    assert [alert.code for alert in by_stripe.alerts] == [code]


def test_a_discount_is_no_mismatch() -> None:
    free = session("free", "completed", amount_total=0, payment_status="no_payment_required")
    assert (only(told(free)).credits, told(free).alerts) == (PACK, ())


def test_quantities_multiply_up_to_what_one_amount_may_be() -> None:
    items = [{"price": {"id": "price_pack"}, "quantity": 3}]
    many = session("many", "completed", amount_subtotal=3_000, line_items={"data": items})
    assert only(told(many)).credits == 3 * PACK
    items[0]["quantity"] = 999_999_999 // 1_000
    settlement = told(session("more", "completed", line_items={"data": items}))
    assert only(settlement).credits == 999_999 * PACK
    line_ = {**line("il_1", "price_big", 10**12), "quantity": 1_000_000}
    assert only(told(invoice("paid", "invoice.paid", "in_1", line_))).credits == BIG * 1_000_000


def test_a_downgrade_takes_nothing_of_the_period() -> None:
    big = invoice("paid", "invoice.paid", "in_1", line("il_1", "price_big", 3_000))
    down = invoice(
        "down",
        "invoice.paid",
        "in_2",
        line("il_2", "price_big", -1_500, start=T0 + 9, proration=True),
        line("il_3", "price_small", 500, start=T0 + 9, proration=True),
        amount_paid=0,
    )
    assert only(told(big, down)).credits == BIG


UPGRADED = invoice(
    "up",
    "invoice.paid",
    "in_2",
    line("il_2", "price_small", -500, start=T0 + 9, proration=True),
    line("il_3", "price_big", 1_500, start=T0 + 9, proration=True, subscription_item="si_2"),
)


def test_an_item_that_takes_the_place_of_another_adds_the_difference() -> None:
    assert only(told(PERIOD, UPGRADED)).credits == BIG
    assert only(told(UPGRADED, PERIOD)).offer == "big"


def test_items_beside_each_other_add_up() -> None:
    beside = line("il_2", "price_big", 3_000, subscription_item="si_2")
    both = invoice("paid", "invoice.paid", "in_1", line("il_1", "price_small", 1_000), beside)
    assert only(told(both)).credits == SMALL + BIG


def test_a_refunded_upgrade_takes_back_the_difference() -> None:
    charged = stripe(
        "charged",
        "charge.refunded",
        T0,
        {
            "id": "ch_2",
            "amount": 1_000,
            "amount_refunded": 1_000,
            "currency": "usd",
            "invoice": "in_2",
        },
    )
    upgraded = only(told(PERIOD, UPGRADED, charged))
    assert (upgraded.credits, upgraded.reversed) == (BIG, BIG - SMALL)


def test_a_period_that_is_on_trial_is_not_paid_for() -> None:
    trial = invoice("paid", "invoice.paid", "in_1", line("il_1", "price_small", 0))
    assert told(trial).entitlements == ()


def test_a_pack_on_the_invoice_of_a_subscription_is_one() -> None:
    both = told(
        invoice(
            "paid",
            "invoice.paid",
            "in_1",
            line("il_1", "price_small", 1_000),
            line("il_2", "price_pack", 1_000),
        )
    )
    assert [each.payment for each in both.entitlements] == [
        "stripe:invoice:in_1:il_2",
        f"stripe:subscription:sub_1:{T1}",
    ]


def test_a_subscription_that_has_ended_falls_back_and_never_begins_again() -> None:
    ended = subscription("ended", "deleted", T0, "canceled", "price_small", ended_at=T0)
    later = subscription("later", "updated", T0 + 9, "active", "price_small")
    (standing,) = told(ended, later).standings
    assert (standing.status, standing.plan, standing.ended_at) == ("ended", "free", when(T0))


@pytest.mark.parametrize(
    ("status", "changes", "expected"),
    [
        ("trialing", {}, ("trialing", "small", None)),
        ("past_due", {}, ("past_due", "small", None)),
        ("unpaid", {}, ("past_due", "small", None)),
        ("incomplete", {}, ("incomplete", None, None)),
        ("active", {"pause_collection": {"behavior": "void"}}, ("paused", "small", None)),
        ("active", {"cancel_at_period_end": True}, ("active", "small", when(T1))),
        ("active", {"cancel_at": T2}, ("active", "small", when(T2))),
    ],
)
def test_how_a_subscription_stands(
    status: str, changes: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    told_ = subscription("now", "updated", T0, status, "price_small", **changes)
    (standing,) = told(told_).standings
    assert (standing.status, standing.plan, standing.cancel_at) == expected
    assert standing.ends_at == when(T1)


def test_of_two_facts_of_one_second_the_creation_is_first() -> None:
    created = subscription("created", "created", T0, "incomplete", "price_small")
    updated = subscription("updated", "updated", T0, "active", "price_small")
    assert told(updated, created).standings[0].status == "active"


def test_the_free_plan_of_clerk_is_the_fallback_and_pays_nothing() -> None:
    plan = {"id": "cplan_free", "is_default": True, "amount": 0, "currency": "USD"}
    free = item("active", plan=plan, amount={"amount": 0, "currency": "USD"}, period_end=None)
    settlement = told(clerk("free", "subscription.active", T0, {"id": "s", "items": [free]}))
    assert (settlement.entitlements, settlement.alerts) == ((), ())
    assert [(each.status, each.plan) for each in settlement.standings] == [("active", "free")]


def test_clerk_keeps_what_was_canceled_until_the_period_ends() -> None:
    data = item("canceled")
    (standing,) = told(clerk("c", "subscriptionItem.canceled", T0, data)).standings
    assert (standing.status, standing.plan, standing.cancel_at) == ("active", "small", when(T1))


def test_a_plan_paid_by_single_payments_stands_as_long_as_it_is_paid_for() -> None:
    one = asaas(
        "one",
        "PAYMENT_CONFIRMED",
        "CONFIRMED",
        value=50,
        externalReference="acct:plano",
        subscription="sub_9",
        dueDate="2027-01-31",
    )
    settlement = told(one)
    (standing,) = settlement.standings
    assert (standing.subscription, standing.plan) == ("asaas:subscription:sub_9", "plano")
    assert standing.ends_at is not None
    assert standing.ends_at.isoformat() == "2027-02-28T03:00:00+00:00"
    assert only(settlement).expires_at == standing.ends_at
    back = asaas(
        "back",
        "PAYMENT_REFUNDED",
        "REFUNDED",
        value=50,
        externalReference="acct:plano",
        subscription="sub_9",
        dueDate="2027-01-31",
    )
    assert told(one, back).standings == ()


def test_an_asaas_payment_that_is_undone_or_deleted_after_it_was_paid_is_taken_back() -> None:
    paid = asaas("paid", "PAYMENT_RECEIVED", "RECEIVED_IN_CASH")
    undone = asaas("undone", "PAYMENT_RECEIVED_IN_CASH_UNDONE", "PENDING")
    deleted = asaas("deleted", "PAYMENT_DELETED", "PENDING", deleted=True)
    assert told(undone).entitlements == told(deleted).entitlements == ()
    assert only(told(paid, undone)).reversed == only(told(deleted, paid)).reversed == PACK


@pytest.mark.parametrize(
    ("payment", "chargeback", "frozen", "taken"),
    [
        ("CHARGEBACK_REQUESTED", "REQUESTED", True, 0),
        ("CHARGEBACK_DISPUTE", "IN_DISPUTE", True, 0),
        ("AWAITING_CHARGEBACK_REVERSAL", "IN_DISPUTE", False, 0),
        ("CONFIRMED", "REVERSED", False, 0),
        ("RECEIVED", "DONE", False, 0),
        ("CHARGEBACK_DISPUTE", "DISPUTE_LOST", False, PACK),
        ("REFUNDED", "DONE", False, PACK),
    ],
)
def test_the_chargebacks_of_asaas(
    payment: str,
    chargeback: str,
    frozen: bool,  # noqa: FBT001
    taken: int,
) -> None:
    one = only(told(asaas("one", "PAYMENT_X", payment, chargeback={"status": chargeback})))
    assert (one.frozen, one.reversed) == (frozen, taken)


def test_refunds_of_asaas_that_are_not_done_take_nothing() -> None:
    refunds = [{"status": "PENDING", "value": 50}, {"status": "CANCELLED", "value": 50}, *done("1")]
    paid = asaas("some", "PAYMENT_X", "CONFIRMED", refunds=refunds)
    assert only(told(paid)).reversed == PACK // 100


def users(name: str, delta: str, at: str = "2026-09-21T14:13:20Z") -> Delivery:
    data = {"id": "d_1", "account": "acct", "delta": delta}
    payload = {"type": "credits.delta", "timestamp": at, "data": data}
    return Delivery(name, "users", "credits.delta", payload)


def test_a_delta_counts_once_for_its_id() -> None:
    settlement = told(users("a", "-2.5"), users("b", "-2.5", at="2026-09-21T15:00:00Z"))
    assert [(each.delta, each.amount) for each in settlement.deltas] == [
        ("users:delta:d_1", -5 * MICRO // 2)
    ]
    assert settlement.owners == ("account:acct",)
    conflict = told(users("later", "7", at="2026-09-21T15:00:00Z"), users("first", "-2.5"))
    assert [each.amount for each in conflict.deltas] == [-5 * MICRO // 2]
    assert [alert.code for alert in conflict.alerts] == ["delta_mismatch"]
