"""What providers send is read as facts: both shapes of Stripe, odd shapes, nothing personal."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.webhooks import clerk_facts, stripe_facts, users_facts
from api.webhooks.reading import Unreadable
from ledger.domain.facts import Link, PaymentFact, PeriodPaid, Purchase, Subscription, User
from ledger.domain.settlement import settle
from tests.domain.payment_stories import (
    OFFERS,
    T0,
    T1,
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

PERIOD = invoice("paid", "invoice.paid", "in_1", line("il_1", "price_small", 1_000))
ATTEMPT = clerk(
    "attempt",
    "paymentAttempt.updated",
    T0,
    {"status": "paid", "payment_id": "cpay_1", "subscription_items": [item("active")]},
)
DELTA = {
    "type": "credits.delta",
    "timestamp": "2026-09-21T14:13:20Z",
    "data": {"id": "d_1", "account": "acct", "delta": "-2.5"},
}
ALL = [
    session("session", "completed"),
    refunded("refunded", 400),
    refund("refund", "refund.created", "succeeded", 400),
    dispute("dispute", "created", "needs_response"),
    PERIOD,
    subscription("subscription", "updated", T0, "active", "price_small"),
    stripe("linked", "invoice_payment.paid", T0, {"invoice": "in_1", "payment": {"charge": "c"}}),
    stripe("intent", "payment_intent.succeeded", T0, {"id": "pi_1", "latest_charge": "ch_1"}),
    clerk("user", "user.created", T0, {"id": "user_1", "external_id": "acct"}),
    clerk("whole", "subscription.created", T0, {"id": "csub_1", "items": [item("active")]}),
    clerk("item", "subscriptionItem.active", T0, item("active")),
    ATTEMPT,
    asaas("paid", "PAYMENT_RECEIVED", "RECEIVED", refunds=done("1"), chargeback={"status": "DONE"}),
    Delivery("delta", "users", "credits.delta", DELTA),
]


def one(delivery: Delivery) -> PaymentFact:
    (fact,) = delivery.facts()
    return fact


def test_an_invoice_reads_alike_before_and_after_basil() -> None:
    old_line = {
        "id": "il_1",
        "amount": 1_000,
        "currency": "usd",
        "quantity": 1,
        "period": {"start": T0, "end": T1},
        "price": {"id": "price_small", "object": "price"},
        "subscription_item": "si_1",
        "proration": False,
    }
    old = invoice(
        "old",
        "invoice.paid",
        "in_1",
        old_line,
        parent=None,
        subscription="sub_1",
        subscription_details={"metadata": {"scrip_account": "acct"}},
    )
    assert one(old) == one(PERIOD)
    assert one(old).owners == ("account:acct", "stripe:customer:cus_1")


def test_a_subscription_reads_alike_before_and_after_basil() -> None:
    items = {"data": [{"id": "si_1", "quantity": 1, "plan": {"id": "price_small"}}]}
    period = {"current_period_start": T0, "current_period_end": T1}
    now = subscription("now", "updated", T0, "active", "price_small")
    old = subscription("now", "updated", T0, "active", "price_small", items=items, **period)
    assert one(old) == one(now)


def test_one_invoice_told_by_two_events_is_one_fact() -> None:
    again = invoice(
        "again", "invoice.payment_succeeded", "in_1", line("il_1", "price_small", 1_000)
    )
    assert one(again).id == one(PERIOD).id
    assert again.facts("evt_9")[0].delivery == "evt_9"


def test_an_object_may_stand_where_its_id_is_expected() -> None:
    expanded = session("s", "completed", payment_intent={"id": "pi_1", "object": "payment_intent"})
    assert one(expanded) == one(session("s", "completed"))


def test_what_links_a_checkout_of_a_subscription() -> None:
    fact = one(session("s", "completed", mode="subscription", subscription="sub_1", invoice="in_1"))
    assert fact.content == Link()
    assert {"stripe:subscription:sub_1", "stripe:invoice:in_1"} <= set(fact.refs)
    assert fact.owners == ("account:acct", "stripe:customer:cus_1")


def test_a_top_up_is_a_purchase_by_its_intent() -> None:
    intent = {"id": "pi_1", "amount": 1_000, "currency": "usd"}
    metadata = {"scrip_top_up": "price_pack", "scrip_account": "acct"}
    fact = one(stripe("t", "payment_intent.succeeded", T0, {**intent, "metadata": metadata}))
    assert isinstance(fact.content, Purchase)
    assert (fact.content.payment, fact.content.price) == ("stripe:pi:pi_1", "price_pack")


def test_clerk_tells_times_in_milliseconds_and_past_due_in_two_ways() -> None:
    for name in ("past_due", "pastDue"):
        fact = one(clerk("p", f"subscriptionItem.{name}", T0, item(name)))
        assert isinstance(fact.content, Subscription)
        assert fact.content.status == "past_due"
        assert fact.content.items[0].starts_at == when(T0)


def test_a_subscription_of_clerk_has_items_under_either_name() -> None:
    data: dict[str, Any] = {"id": "csub_1", "payer": {"organization_id": "org_1", "user_id": "u"}}
    active = item("active", payer=None)
    read = [
        clerk("s", "subscription.active", T0, {**data, name: [active]}).facts()
        for name in ("items", "subscription_items")
    ]
    assert read[0] == read[1]
    assert {fact.owners for fact in read[0]} == {("clerk:organization:org_1",)}
    assert [type(fact.content) for fact in read[0]] == [Subscription, PeriodPaid]


def test_a_trial_of_clerk_is_not_paid_for() -> None:
    fact = one(clerk("t", "subscriptionItem.active", T0, item("active", is_free_trial=True)))
    assert isinstance(fact.content, Subscription)
    assert fact.content.status == "trialing"


def test_a_user_of_clerk_is_linked_to_the_account_that_it_names() -> None:
    data = {"id": "user_1", "external_id": "acct", "first_name": "Some", "email_addresses": []}
    fact = one(clerk("u", "user.created", T0, data))
    assert fact.content == User(user="clerk:user:user_1", change="created")
    assert fact.owners == ("account:acct", "clerk:user:user_1")
    gone = one(clerk("u", "user.deleted", T0, {"id": "user_1", "deleted": True}))
    assert gone.content == User(user="clerk:user:user_1", change="deleted")


@pytest.mark.parametrize(("value", "cents"), [(100, 10_000), (Decimal("94.51"), 9_451)])
def test_asaas_counts_in_reais(value: object, cents: int) -> None:
    fact = one(asaas("p", "PAYMENT_RECEIVED", "RECEIVED", value=value))
    assert isinstance(fact.content, Purchase)
    assert fact.content.money is not None
    assert (fact.content.money.amount, fact.content.money.currency) == (cents, "BRL")


@pytest.mark.parametrize(
    "value", [None, 94.51, "94.51", Decimal("0.001"), Decimal("NaN"), -1, True]
)
def test_an_amount_of_asaas_that_is_none_is_refused_by_name(value: object) -> None:
    with pytest.raises(Unreadable) as refused:
        asaas("p", "PAYMENT_RECEIVED", "RECEIVED", value=value).facts()
    assert refused.value.field == "value"


def test_a_reference_of_asaas_names_the_account_and_what_is_bought() -> None:
    for reference, link, account, price in (
        ("acct:pacote", None, ("account:acct",), "pacote"),
        ("acct", "link_1", ("account:acct",), "link_1"),
        ("a:b:pacote", None, ("account:a:b",), "pacote"),
        (None, None, (), None),
    ):
        fact = one(
            asaas(
                "p", "PAYMENT_RECEIVED", "RECEIVED", externalReference=reference, paymentLink=link
            )
        )
        assert isinstance(fact.content, Purchase)
        assert fact.content.price == price
        assert fact.owners == (*account, "asaas:customer:cus_9")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"delta": 1}, "data.delta"),
        ({"delta": "0.0000001"}, "data.delta"),
        ({"delta": "1e3"}, "data.delta"),
        ({"account": "a/b"}, "data.account"),
        ({"id": None}, "data.id"),
    ],
)
def test_a_delta_that_cannot_be_read_is_refused_by_name(
    changes: dict[str, Any], field: str
) -> None:
    payload = {**DELTA, "data": {**msgspec.to_builtins(DELTA["data"]), **changes}}
    with pytest.raises(Unreadable) as refused:
        users_facts.facts("msg_1", "credits.delta", payload)
    assert refused.value.field == field


@pytest.mark.parametrize(
    "read",
    [stripe_facts.facts, clerk_facts.facts, users_facts.facts],
)
def test_what_is_none_of_ours_tells_nothing(read: Any) -> None:
    assert read("id", "v1.invoice.paid", {"type": "v1.invoice.paid"}) == ()
    assert read("id", "something.else", {}) == ()


def test_lines_that_are_not_all_there_must_be_fetched() -> None:
    lines = {"has_more": True, "data": []}
    with pytest.raises(Unreadable) as refused:
        invoice("cut", "invoice.paid", "in_1", lines=lines, amount_paid=1).facts()
    assert refused.value.field == "data.object.lines"


@pytest.mark.parametrize("delivery", ALL, ids=lambda delivery: delivery.name)
def test_a_fact_can_be_stored_and_has_nothing_personal(delivery: Delivery) -> None:
    for fact in delivery.facts():
        stored = msgspec.json.encode(fact)
        assert msgspec.json.decode(stored, type=PaymentFact) == fact
        for personal in (b"example.org", b"192.0.2", b"4242"):
            assert personal not in stored


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    pairs = value.items() if isinstance(value, dict) else ()
    for key, part in [*pairs, *(enumerate(value) if isinstance(value, list) else ())]:
        yield from places(part, (*path, key))


ODD = st.sampled_from(
    (
        *(None, True, 0, -1, 10**30, 2**53, "", "x" * 999, "\xe9\x00", "12", [], [None], [[]], {}),
        *({"id": 1}, {"data": 7}),
        *("9999-12-31", "0001-01-01T00:00:00+23:00", 253_402_300_799, 2**52),
        *(Decimal("1E+40"), Decimal("NaN"), Decimal("0.5"), Decimal("-0")),
    )
)


@settings(max_examples=2_000, deadline=None)
@given(delivery=st.sampled_from(ALL), odd=st.lists(st.tuples(st.integers(0, 99), ODD), max_size=3))
def test_odd_shapes_are_read_or_refused_by_name(
    delivery: Delivery, odd: list[tuple[int, Any]]
) -> None:
    payload = copy.deepcopy(delivery.payload)
    for number, value in odd:
        paths = [path for path in places(payload) if path]
        *way, last = paths[number % len(paths)] if paths else ("data",)
        part = payload
        for key in way:
            part = part[key]
        part[last] = copy.deepcopy(value)
    changed = Delivery("odd", delivery.provider, delivery.type, payload)
    try:
        facts = changed.facts()
    except Unreadable:
        return
    settle(facts, OFFERS)
    for fact in facts:
        assert msgspec.json.decode(msgspec.json.encode(fact), type=PaymentFact) == fact
