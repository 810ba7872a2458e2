"""Alerts in the ledger: each once, whoever raises it, and in nobody's way."""

from __future__ import annotations

import pytest

from ledger.domain.commands import Deduct, GrantCredits, PutAccount, RaiseAlert, SetFeature
from ledger.domain.entities import Charge
from ledger.domain.errors import IdempotencyMismatch, InvalidCommand
from ledger.domain.events import CreditsDeducted
from ledger.domain.tenant_events import AlertRaised
from ledger.domain.values import MICRO
from ledger.records import Order, Outcome, Recorded, stream_id
from ledger.store import Store
from ledger.verify import verify
from ledger.writer import Writer
from scrip.embedded import DatabaseUrls
from tests.ledger.conftest import NewWriter
from tests.ledger.room import TENANT, ask, opened, order, put

IMAGE = Charge(feature="image", quantity=MICRO)


def alert(number: int = 1, tenant: str = TENANT) -> Order:
    """Return the order that the worker gives for an alert."""
    subject = f"stripe:session:cs_{number}"
    return Order(
        tenant=tenant,
        account=None,
        command=RaiseAlert(code="unknown_price", subject=subject, price="price_9"),
        key=f"alert:unknown_price:{subject}:price_9",
        by="service:payments",
    )


def priced(unit_price: int) -> Order:
    feature = SetFeature(feature="image", name="Image", unit_price=unit_price)
    return order(feature, f"price-{unit_price}", None)


def events(store: Store) -> list[Recorded]:
    return store.events_of(stream_id(TENANT, None))


def test_an_alert_is_an_event_of_the_tenant(writer: Writer, store: Store) -> None:
    recorded = put(writer, alert())
    assert events(store) == [recorded]
    assert (recorded.tenant, recorded.account, recorded.by) == (TENANT, None, "service:payments")
    assert (recorded.name, recorded.version) == ("alert.raised.v1", 1)
    assert recorded.balance is None
    assert recorded.event == AlertRaised(
        code="unknown_price", subject="stripe:session:cs_1", price="price_9"
    )


def test_an_alert_told_again_by_anybody_is_one_event(
    writer: Writer, new_writer: NewWriter, store: Store
) -> None:
    other = new_writer()
    other.catalog(TENANT).result(10)
    answers = ask(writer, [alert(), alert(), alert(2)])
    first = answers[0]
    assert isinstance(first, Outcome)
    assert answers[1] == Outcome(first.recorded, replayed=True)
    assert ask(other, [alert()]) == [Outcome(first.recorded, replayed=True)]
    assert len(events(store)) == 2


def test_two_workers_that_raise_the_same_alerts_at_once_raise_each_once(
    new_writer: NewWriter, store: Store
) -> None:
    writers = (new_writer(batch_max=3), new_writer(batch_max=4))
    futures = [
        one.submit(alert(number)) for number in range(40) for one in (*writers, *writers[::-1])
    ]
    outcomes = [future.result(30) for future in futures]
    assert len(events(store)) == 40
    assert sum(not outcome.replayed for outcome in outcomes) == 40
    assert {outcome.recorded.key for outcome in outcomes if outcome.recorded} == {
        alert(number).key for number in range(40)
    }


def test_the_same_key_for_another_alert_is_refused(writer: Writer, store: Store) -> None:
    put(writer, alert())
    other = RaiseAlert(code="price_not_told", subject="stripe:session:cs_1")
    with pytest.raises(IdempotencyMismatch):
        writer.submit(order(other, alert().key, None)).result(10)
    assert len(events(store)) == 1


def test_an_alert_of_another_tenant_is_its_own(writer: Writer, store: Store) -> None:
    ask(writer, [alert(), alert(tenant="other")])
    assert len(events(store)) == 1
    assert len(store.events_of(stream_id("other", None))) == 1


def test_an_alert_that_is_refused_leaves_what_is_asked_with_it(
    writer: Writer, store: Store
) -> None:
    bad = order(RaiseAlert(code="unknown_price", subject="\ud800"), "bad", None)
    before, refused, after = ask(writer, [alert(1), bad, alert(2)])
    assert isinstance(refused, InvalidCommand)
    assert isinstance(before, Outcome)
    assert isinstance(after, Outcome)
    assert len(events(store)) == 2


def test_prices_stand_while_another_process_raises_alerts(
    writer: Writer, new_writer: NewWriter, database: DatabaseUrls
) -> None:
    """What is priced is written only on the newest catalog; an alert makes that no other."""
    worker = new_writer()
    ask(writer, [priced(2), *opened(credits_given=1_000)])
    for number in range(20):
        raised = worker.submit(alert(number))
        spent = put(writer, order(Deduct(charge=IMAGE), f"d{number}"))
        assert isinstance(spent.event, CreditsDeducted)
        assert spent.event.price is not None
        assert (spent.event.amount, spent.event.price.version) == (2, 1)
        raised.result(30)
    put(worker, priced(3))
    dearer = put(writer, order(Deduct(charge=IMAGE), "dearer")).event
    assert isinstance(dearer, CreditsDeducted)
    assert dearer.price is not None
    assert (dearer.amount, dearer.price.version) == (3, 2)
    catalogs = [one.catalog(TENANT).result(10) for one in (writer, worker, new_writer())]
    assert [catalog.version for catalog in catalogs] == [22, 22, 22]
    assert catalogs[0] == catalogs[1] == catalogs[2]
    assert list(verify(database.app_url)) == []


def test_an_alert_and_a_price_in_one_batch_with_what_is_priced(writer: Writer) -> None:
    answers = ask(
        writer,
        [
            order(PutAccount(), "open"),
            order(GrantCredits(amount=9, kind="paid"), "grant"),
            alert(1),
            priced(2),
            alert(2),
            order(Deduct(charge=IMAGE), "d"),
        ],
    )
    assert all(isinstance(answer, Outcome) for answer in answers), answers
    assert writer.view(TENANT, "a").result(10).balance.consumed == 2
