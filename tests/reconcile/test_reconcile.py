"""`scrip reconcile` against pretended providers: what it finds, mends, and goes on with."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from datetime import timedelta

import pytest

from tests.reconcile.shop import ACCOUNT, MICRO, Shop, at, wait_for

HERE = "scrip-reconcile-{}-acme.jsonl"
SUBSCRIPTIONS, RENEWALS = 10, 99


def test_a_thousand_invoices_are_read_to_their_end_though_the_run_is_killed(shop: Shop) -> None:
    subscriptions = [shop.subscribe() for _ in range(SUBSCRIPTIONS)]
    for subscription in subscriptions:
        for _ in range(RENEWALS):
            shop.stripe.renew(subscription)
    invoices = list(shop.stripe.kept["invoices"])
    assert len(invoices) == 1_000
    lost = invoices[3::150]
    shop.hear(shop.told([*lost, *map(shop.charge_of, lost)]))
    refunded = shop.stripe.refund(shop.charge_of(invoices[10]), 500)
    disputed = shop.stripe.dispute(shop.charge_of(invoices[20]))

    # It is told to slow down, which it does; and is killed meanwhile.
    stripe = shop.stripe
    stripe.requests.clear()
    stripe.slow_down(2)
    with subprocess.Popen(
        shop.command("stripe"), env=shop.environment(), cwd=shop.folder, stderr=subprocess.DEVNULL
    ) as process:
        wait_for(lambda: len(stripe.requests) >= 16)
        stripe.slow_down(1, "60")
        wait_for(lambda: not stripe.faults)
        process.kill()
    notes = shop.folder / HERE.format("stripe")
    # What was killed while it wrote a line has not read that page.
    pages = sum(line.endswith(b"\n") for line in notes.read_bytes().splitlines(keepends=True)) - 1
    assert 10 <= pages < 20
    stripe.requests.clear()

    found = shop.found("stripe")
    assert not notes.exists()
    # 10 pages each of charges, intents and invoices, and one each of the rest.
    assert len(stripe.requests) == 33 - pages
    assert Counter(one["what"] for one in found) == {"missing": len(lost), "different": 2}
    sides = {(one["due"]["back"], one["due"]["frozen"]) for one in found}
    assert sides == {("0", False), ("25", False), ("0", True)}
    assert {one["account"] for one in found} == {ACCOUNT}
    assert (refunded["amount"], disputed["amount"]) == (500, 2_000)

    before = shop.balance()
    assert shop.found("stripe", "--apply") == found
    shop.work()
    assert shop.found("stripe") == []
    given, left, frozen = shop.balance()
    assert given - before[0] == len(lost) * 100 * MICRO
    assert left + frozen - before[1] == (len(lost) * 100 - 25) * MICRO
    assert frozen == 100 * MICRO


def test_a_pack_whose_webhooks_were_lost_expires_as_if_it_had_been_told_at_once(
    shop: Shop,
) -> None:
    now = time.time()
    shop.stripe.clock = lambda: now - 7_200
    session = shop.checkout()
    shop.stripe.clock = lambda: now - 3_600
    shop.stripe.pay(session["id"])
    (one,) = shop.found("stripe", "--apply")
    assert one == {
        "what": "missing",
        "payment": f"stripe:session:{session['id']}",
        "account": ACCOUNT,
        "offer": "small",
        "due": {"credits": "11", "back": "0", "frozen": False},
        "held": None,
        "why": None,
    }
    # Nothing has happened before a worker is there; and what is sent twice happens once.
    assert shop.balance()[0] == 0
    assert shop.found("stripe", "--apply") == [one]
    shop.work()
    assert shop.found("stripe", "--apply") == []
    shop.work()
    assert shop.balance()[0] == 11 * MICRO
    ((told,),) = shop.rows("SELECT convert_from(told, 'UTF8')::jsonb FROM scrip.payments")
    paid_at = at(int(now - 3_600))
    assert told["expires_at"] == (paid_at + timedelta(days=30)).strftime("%Y-%m-%dT%H:%M:%SZ")
    # What the webhook says, when it comes at last, is nothing new.
    shop.hear(shop.told())
    assert shop.found("stripe") == []
    assert shop.balance()[0] == 11 * MICRO


def test_what_webhooks_have_told_does_not_differ(shop: Shop) -> None:
    now = time.time()
    shop.stripe.clock = lambda: now - 7_200
    session = shop.checkout()
    shop.stripe.clock = lambda: now
    paid = shop.stripe.pay(session["id"])
    charge = shop.stripe.get("payment_intents", paid["payment_intent"])["latest_charge"]
    shop.stripe.refund(charge, 100)
    dispute = shop.stripe.dispute(charge)
    shop.stripe.close_dispute(dispute["id"], "won")
    later = shop.checkout()["id"]
    shop.stripe.pay(later, later=True)
    shop.subscribe()
    shop.checkout()
    shop.hear(shop.told())
    done = shop.reconcile("stripe")
    assert (done.returncode, done.stdout) == (0, "")
    assert "2 payments compared, 0 differences" in done.stderr


def test_money_that_went_back_without_a_word_goes_back_here(shop: Shop) -> None:
    sessions = [shop.stripe.pay(shop.checkout()["id"]) for _ in range(5)]
    intents = [one["payment_intent"] for one in sessions]
    whole, half, opened, lost, won = [
        shop.stripe.get("payment_intents", one)["latest_charge"] for one in intents
    ]
    shop.hear(shop.told())
    assert shop.found("stripe") == []
    shop.stripe.refund(whole)
    shop.stripe.refund(half, 100)
    shop.stripe.refund(half, 150)
    shop.stripe.dispute(opened)
    shop.stripe.close_dispute(shop.stripe.dispute(lost)["id"], "lost")
    shop.stripe.close_dispute(shop.stripe.dispute(won)["id"], "won")
    found = {one["payment"]: one for one in shop.found("stripe", "--apply")}
    assert {one["what"] for one in found.values()} == {"different"}
    due = [found.get(f"stripe:session:{one['id']}", {}).get("due") for one in sessions]
    assert [one and (one["back"], one["frozen"]) for one in due] == [
        ("11", False),
        ("5.5", False),
        ("0", True),
        ("11", False),
        None,
    ]
    shop.work()
    assert shop.found("stripe") == []
    # What the webhooks say, when they come at last, is nothing new.
    shop.hear(shop.told())
    assert shop.found("stripe") == []
    assert shop.balance() == (55 * MICRO, 16_500_000, 11 * MICRO)


def test_a_top_up_that_nobody_told_is_granted_and_one_that_was_declined_is_not(shop: Shop) -> None:
    paid = shop.top_up()
    shop.top_up("pm_card_chargeDeclined", status=402)
    (one,) = shop.found("stripe", "--apply")
    assert one["payment"] == f"stripe:pi:{paid['id']}"
    assert (one["what"], one["account"], one["offer"]) == ("missing", ACCOUNT, "small")
    shop.work()
    assert shop.found("stripe") == []
    assert shop.balance() == (11 * MICRO, 11 * MICRO, 0)
    shop.stripe.refund(paid["latest_charge"])
    (one,) = shop.found("stripe", "--apply")
    assert (one["what"], one["due"]["back"], one["held"]["back"]) == ("different", "11", "0")
    shop.work()
    shop.hear(shop.told())
    assert shop.found("stripe") == []
    assert shop.balance() == (11 * MICRO, 0, 0)


def test_credits_for_fewer_than_were_bought_differ(shop: Shop) -> None:
    # The webhook does not tell the line items, and its metadata does not tell how many.
    shop.stripe.pay(shop.checkout(quantity=3)["id"])
    shop.hear(shop.told())
    (expires,) = shop.rows(
        "SELECT convert_from(told, 'UTF8')::jsonb->'expires_at' FROM scrip.payments"
    )
    assert shop.balance()[0] == 11 * MICRO
    (one,) = shop.found("stripe", "--apply")
    assert one["what"] == "different"
    assert (one["due"]["credits"], one["held"]["credits"]) == ("33", "11")
    shop.work()
    assert shop.found("stripe") == []
    assert shop.balance()[0] == 33 * MICRO
    assert shop.rows(
        "SELECT convert_from(told, 'UTF8')::jsonb->'expires_at' FROM scrip.payments"
    ) == [expires]


def test_an_object_that_cannot_be_read_is_told_and_keeps_nothing_else_back(shop: Shop) -> None:
    session = shop.stripe.pay(shop.checkout()["id"])
    charge = shop.stripe.get("payment_intents", session["payment_intent"])["latest_charge"]
    dispute = shop.stripe.dispute(charge)
    dispute["status"] = "unheard_of"
    found = {one["what"]: one for one in shop.found("stripe", "--apply")}
    assert found.keys() == {"missing", "unreadable"}
    assert found["unreadable"]["payment"] == dispute["id"]
    assert found["unreadable"]["why"].endswith("must be a status of a dispute")
    shop.work()
    assert [one["what"] for one in shop.found("stripe")] == ["unreadable"]
    assert shop.balance()[0] == 11 * MICRO


def test_facts_that_nobody_settled_are_settled(shop: Shop) -> None:
    shop.stripe.pay(shop.checkout()["id"])
    shop.hear(shop.told(), settle=False)
    (one,) = shop.found("stripe", "--apply")
    assert one["what"] == "missing"
    shop.work()
    assert shop.found("stripe") == []
    assert shop.balance()[0] == 11 * MICRO


def test_what_waits_for_an_account_and_what_has_no_known_price_is_told(shop: Shop) -> None:
    nobody = shop.checkout()["id"]
    shop.stripe.get("checkout/sessions", nobody)["client_reference_id"] = None
    shop.stripe.pay(nobody)
    shop.hear(shop.told())
    other = shop.checkout()["id"]
    shop.stripe.get("checkout/sessions", other)["_line_items"][0]["price"] = {"id": "price_x"}
    shop.stripe.pay(other)
    found = {one["what"]: one for one in shop.found("stripe")}
    assert found["waiting"]["why"] == "account_unknown"
    assert found["alert"]["why"] == "unknown_price price_x"
    done = shop.reconcile("stripe", "--apply")
    assert done.returncode == 1
    shop.work()
    # Whoever is alerted is not told of it again and again.
    assert {one["what"] for one in shop.found("stripe")} == {"waiting"}


def test_a_table_is_for_people(shop: Shop) -> None:
    shop.stripe.pay(shop.checkout()["id"])
    words = [word for word in shop.command("stripe") if word != "--json"]
    done = subprocess.run(
        words,
        env=shop.environment(),
        cwd=shop.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if "missing" in line]
    assert [word for word in line.split() if not word.startswith("stripe:")] == [
        "missing",
        ACCOUNT,
        "small",
        "11",
    ]


def test_payments_of_asaas_are_compared_page_by_page(shop: Shop) -> None:
    known = [shop.pay_asaas() for _ in range(150)]
    shop.hear(shop.asaas_facts(*known))
    lost = [shop.pay_asaas() for _ in range(60)]
    link = shop.asaas.add_link(
        {"name": "n", "value": 5, "billingType": "PIX", "chargeType": "DETACHED"}
        | {"externalReference": f"{ACCOUNT}:small"}
    )
    lost.append(shop.asaas.pay(link["id"])["id"])
    shop.asaas.refund(known[0], "2.50")
    shop.asaas.dispute(known[1])
    shop.asaas.add_payment(5, externalReference=f"{ACCOUNT}:small")
    shop.asaas.slow_down(2)
    found = {one["payment"]: one for one in shop.found("asaas", "--apply")}
    assert {name for name, one in found.items() if one["what"] == "missing"} == {
        f"asaas:payment:{name}" for name in lost
    }
    assert found[f"asaas:payment:{known[0]}"]["due"]["back"] == "5.5"
    assert found[f"asaas:payment:{known[1]}"]["due"]["frozen"]
    assert len(found) == len(lost) + 2
    shop.work()
    assert shop.found("asaas") == []
    assert shop.balance()[0] == 211 * 11 * MICRO


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("sk_live_of_the_wrong_mode_1", "SCRIP_RECONCILE_API_KEY: must begin with sk_test_"),
        ("sk_test_of_somebody_else_1", "stripe refused: Invalid API Key"),
    ],
)
def test_a_key_that_will_not_do_is_told_and_not_shown(shop: Shop, key: str, says: str) -> None:
    done = shop.reconcile("stripe", SCRIP_RECONCILE_API_KEY=key)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert key not in done.stderr


def test_what_cannot_be_done_ends_with_2(shop: Shop) -> None:
    environment = shop.environment()
    del environment["SCRIP_RECONCILE_API_KEY"]
    done = subprocess.run(
        shop.command("stripe"),
        env=environment,
        cwd=shop.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "the tenant has no API key of stripe" in done.stderr
    assert shop.reconcile("stripe", "--tenant", "none").returncode == 2
    nowhere = shop.reconcile("stripe", DATABASE_URL="postgresql://x@127.0.0.1:1/x")
    assert nowhere.returncode == 2


def test_a_run_about_something_else_is_not_gone_on_with(shop: Shop) -> None:
    path = shop.folder / HERE.format("stripe")
    heading = {"provider": "stripe", "tenant": "acme", "since": "2025-01-01T00:00:00Z"}
    path.write_text(json.dumps(heading | {"began_at": "2026-01-01T00:00:00Z"}) + "\n")
    done = shop.reconcile("stripe")
    assert done.returncode == 2
    assert "--restart" in done.stderr
    assert shop.found("stripe", "--restart") == []
    assert not path.exists()
