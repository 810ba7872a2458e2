"""What waits, whose a payment is, what people must look at: payments over the real ledger."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from consumers.fact_book import Told, keep_facts
from consumers.health import Health
from consumers.settling import NotYet, Settler
from consumers.waiting import settle_waiting
from ledger.domain.commands import Deduct, GrantCredits, PutAccount, SetPack
from ledger.domain.entities import Charge
from ledger.domain.offers import Money, Pack, ProviderIds
from ledger.records import stream_id
from tests.consumers.room import until
from tests.consumers.settling_room import CLERK_USER, NOW, Dated, Payments
from tests.domain.payment_stories import (
    BONUS,
    MICRO,
    PACK,
    SMALL,
    T0,
    Delivery,
    clerk,
    dispute,
    invoice,
    item,
    line,
    refunded,
    session,
)
from tests.domain.test_payments_in_any_order import STORIES

PAID = session("paid", "completed")
UNNAMED = session("paid", "completed", client_reference_id=None)


async def rows(payments: Payments, tenant: str) -> list[Any]:
    return await payments.rows(
        "SELECT payment, account, state, why, amount FROM scrip.payments"
        " WHERE tenant = %(t)s ORDER BY payment",
        t=tenant,
    )


async def alerts(payments: Payments, tenant: str) -> list[Any]:
    return await payments.rows(
        "SELECT code, subject, price, resolved_at IS NOT NULL FROM scrip.payment_alerts"
        " WHERE tenant = %(t)s ORDER BY code, subject",
        t=tenant,
    )


async def swept(payments: Payments, check: Any) -> None:
    """Run what settles waiting payments until `check` is true."""
    stop = asyncio.Event()
    part = Health().part("waiting")
    task = asyncio.create_task(settle_waiting(payments.settler, part, stop, 0.05))
    try:
        await until(check)
    finally:
        stop.set()
        await task


async def test_a_pack_is_two_grants_and_its_customer_becomes_known(dated: Dated) -> None:
    async with dated.payments() as payments:
        tenant = await payments.new_tenant()
        await payments.deliver(tenant, PAID)
        view = await payments.view(tenant)
        assert [(grant.kind, grant.amount) for grant in view.grants] == [
            ("paid", PACK),
            ("promotional", BONUS),
        ]
        assert await rows(payments, tenant) == [
            ("stripe:session:cs_1", "acct", "applied", None, PACK + BONUS)
        ]
        # From now on, what names only the customer is the account's.
        await payments.deliver(tenant, invoice("i", "invoice.paid", "in_1", LINE, **UNKNOWN))
        assert (await payments.balance(tenant)).granted == PACK + BONUS + SMALL


LINE = line("il_1", "price_small", 1_000)
UNKNOWN = {"parent": {"subscription_details": {"subscription": "sub_1", "metadata": {}}}}


async def test_what_names_nobody_waits_and_is_applied_when_the_link_comes(dated: Dated) -> None:
    async with dated.payments() as payments:
        tenant = await payments.new_tenant()
        await payments.deliver(tenant, UNNAMED)
        waiting = ("stripe:session:cs_1", None, "waiting", "account_unknown", PACK + BONUS)
        assert await rows(payments, tenant) == [waiting]
        assert (await payments.balance(tenant)).granted == 0
        await payments.deliver(tenant, refunded("half", 500))

        async def is_applied() -> bool:
            return (await payments.balance(tenant)).granted > 0

        await payments.link(tenant, "stripe:customer:cus_1", "acct")
        await swept(payments, is_applied)
        balance = await payments.balance(tenant)
        assert (balance.granted, balance.available) == (PACK + BONUS, (PACK + BONUS) // 2)


async def test_an_account_that_is_not_open_yet_is_waited_for(dated: Dated) -> None:
    async with dated.payments() as payments:
        tenant = await payments.new_tenant(account=None)
        await payments.deliver(tenant, PAID)
        (row,) = await rows(payments, tenant)
        assert row[1:4] == ("acct", "waiting", "account_not_found")
        await payments.ask(tenant, "acct", PutAccount())

        async def is_granted() -> bool:
            return (await payments.balance(tenant)).granted == PACK + BONUS

        await swept(payments, is_granted)
        (row,) = await rows(payments, tenant)
        assert row[1:4] == ("acct", "applied", None)


async def test_two_accounts_named_for_one_payment_wait_for_a_person(dated: Dated) -> None:
    async with dated.payments() as payments:
        tenant = await payments.new_tenant()
        await payments.ask(tenant, "other", PutAccount())
        await payments.deliver(tenant, session("unpaid", "completed", payment_status="unpaid"))
        later = session("later", "async_payment_succeeded", client_reference_id="other")
        await payments.deliver(tenant, later)
        (row,) = await rows(payments, tenant)
        assert row[1:4] == (None, "waiting", "account_conflict")
        code, subject, _, resolved = (await alerts(payments, tenant))[0]
        assert (code, subject, resolved) == ("account_conflict", "stripe:session:cs_1", False)

        async def is_applied() -> bool:
            return (await payments.balance(tenant, "other")).granted > 0

        await payments.link(tenant, "stripe:session:cs_1", "other")
        await swept(payments, is_applied)
        assert (await payments.balance(tenant)).granted == 0

        async def is_resolved() -> bool:
            return all(alert[3] for alert in await alerts(payments, tenant))

        await until(is_resolved)


async def test_a_payment_stays_where_it_was_granted_whatever_is_linked_later(dated: Dated) -> None:
    async with dated.payments() as payments:
        tenant = await payments.new_tenant()
        await payments.ask(tenant, "other", PutAccount())
        await payments.link(tenant, "stripe:customer:cus_1", "acct")
        await payments.deliver(tenant, UNNAMED)
        await payments.sql(
            "UPDATE scrip.account_links SET account = 'other' WHERE tenant = %(t)s", t=tenant
        )
        await payments.deliver(tenant, refunded("full", 1_000))
        assert (await payments.balance(tenant)).available == 0
        assert (await payments.balance(tenant, "other")).granted == 0


async def test_an_unknown_price_grants_nothing_and_is_an_alert_until_the_catalog_knows_it(
    dated: Dated,
) -> None:
    async with dated.payments() as payments:
        tenant = await payments.new_tenant(catalog=False)
        dated.clock.now = NOW + timedelta(days=3)
        await payments.deliver(tenant, PAID)
        assert await rows(payments, tenant) == []
        alert = ("unknown_price", "stripe:session:cs_1", "price_pack")
        assert await alerts(payments, tenant) == [(*alert, False)]
        events = payments.writer.store.events_of(stream_id(tenant, None))
        told = [event.event for event in events if event.name == "alert.raised.v1"]
        assert [(one.code, one.subject, one.price) for one in told] == [  # type: ignore[union-attr]
            ("unknown_price", "price_pack", "price_pack")
        ]
        # Another payment of that price is another row, and no other event.
        other = session("other", "completed", id="cs_2", payment_intent="pi_2")
        await payments.deliver(tenant, other)
        assert len(await alerts(payments, tenant)) == 2
        assert len(payments.writer.store.events_of(stream_id(tenant, None))) == len(events)

        async def is_granted() -> bool:
            return (await payments.balance(tenant)).granted == 2 * PACK

        terms = Pack(
            name="Pack",
            price=Money(1_000, "USD"),
            credits=PACK,
            providers=ProviderIds(stripe=("price_pack",)),
        )
        await payments.ask(tenant, None, SetPack(pack="p", terms=terms))
        await swept(payments, is_granted)
        await until(lambda: _resolved(payments, tenant))
        # It is on record once, however often it was so.
        await payments.deliver(tenant, PAID, "evt_9")
        assert len(payments.writer.store.events_of(stream_id(tenant, None))) == len(events) + 1


async def _resolved(payments: Payments, tenant: str) -> bool:
    return all(alert[3] for alert in await alerts(payments, tenant))


async def test_a_user_who_comes_has_an_account_and_one_that_is_open_stays_as_it_is(
    dated: Dated,
) -> None:
    async with dated.payments() as payments:
        tenant = await payments.new_tenant(account=None)
        user = {"id": "user_1", "object": "user"}
        await payments.deliver(
            tenant, clerk("active", "subscriptionItem.active", T0, item("active"))
        )
        assert (await rows(payments, tenant))[0][2:4] == ("waiting", "account_unknown")
        await payments.deliver(tenant, clerk("created", "user.created", T0, user))
        assert (await payments.view(tenant, "user_1")).opened

        async def is_granted() -> bool:
            return (await payments.balance(tenant, "user_1")).granted == SMALL

        await swept(payments, is_granted)
        named = {**user, "id": "user_2", "external_id": "mine"}
        await payments.ask(tenant, "mine", PutAccount(label="Mine", overdraft_limit=5 * MICRO))
        await payments.deliver(tenant, clerk("created", "user.created", T0, named))
        view = await payments.view(tenant, "mine")
        assert (view.label, view.balance.overdraft_limit) == ("Mine", 5 * MICRO)
        linked = await payments.rows(
            "SELECT account FROM scrip.account_links WHERE tenant = %(t)s AND owner = %(o)s",
            t=tenant,
            o="clerk:user:user_2",
        )
        assert linked == [("mine",)]
        odd = {**user, "id": "user/3"}
        await payments.deliver(tenant, clerk("created", "user.created", T0, odd))
        assert not (await payments.view(tenant, "user/3")).opened
        await payments.deliver(tenant, clerk("gone", "user.deleted", T0 + 9, named))
        assert (await payments.view(tenant, "mine")).opened


def delta(id_: str, amount: str, account: str = "acct") -> Delivery:
    payload = {
        "type": "credits.delta",
        "timestamp": "2026-09-21T14:13:20Z",
        "data": {"id": id_, "account": account, "delta": amount},
    }
    return Delivery(id_, "users", "credits.delta", payload)


async def test_a_user_system_gives_and_takes_once_for_each_id(dated: Dated) -> None:
    async with dated.payments() as payments:
        tenant = await payments.new_tenant()
        for _ in range(2):
            await payments.deliver(tenant, delta("d_1", "10"))
            await payments.deliver(tenant, delta("d_2", "-12.5"))
        balance = await payments.balance(tenant)
        assert (balance.available, balance.debt) == (0, 2_500_000)
        # The id counts once, whatever else is said under it.
        await payments.deliver(tenant, delta("d_1", "11"))
        assert await payments.balance(tenant) == balance
        assert ("delta_mismatch", "users:delta:d_1", "", False) in await alerts(payments, tenant)
        await payments.deliver(tenant, delta("d_3", "1", "nobody"))
        assert (await rows(payments, tenant))[-1][1:4] == (
            "nobody",
            "waiting",
            "account_not_found",
        )


async def test_what_was_spent_of_a_refunded_payment_becomes_debt(dated: Dated) -> None:
    async with dated.payments() as payments:
        tenant = await payments.new_tenant()
        await payments.deliver(tenant, session("paid", "completed", metadata=NO_BONUS))
        await payments.deliver(tenant, invoice("i", "invoice.paid", "in_1", LINE, **CHARGED))
        await payments.ask(tenant, "acct", Deduct(charge=Charge(amount=30 * MICRO)))
        await payments.deliver(tenant, dispute("lost", "closed", "lost"))
        balance = await payments.balance(tenant)
        assert (balance.available, balance.debt) == (0, 30 * MICRO)


NO_BONUS = {"scrip_price": "price_unknown"}
CHARGED = {"charge": "ch_1", "payment_intent": "pi_1"}


async def test_what_the_ledger_refuses_is_said_and_other_payments_go_on(dated: Dated) -> None:
    async with dated.payments() as payments:
        tenant = await payments.new_tenant()
        await payments.ask(
            tenant, "acct", GrantCredits(id="stripe:session:cs_1", amount=1, kind="paid")
        )
        await payments.deliver(tenant, PAID)
        assert (await rows(payments, tenant))[0][1:4] == ("acct", "refused", "grant_exists")
        refused = ("refused", "stripe:session:cs_1", "grant_exists", False)
        assert await alerts(payments, tenant) == [refused]


@pytest.mark.parametrize("story", STORIES)
async def test_two_workers_that_are_told_parts_at_once_end_alike(dated: Dated, story: str) -> None:
    deliveries, _ = STORIES[story]
    async with dated.payments() as payments:
        in_order = await payments.new_tenant()
        mixed = await payments.new_tenant()
        for tenant in (in_order, mixed):
            await payments.link(tenant, CLERK_USER, "acct")
        for delivery in deliveries:
            await payments.deliver(in_order, delivery)
        other = Settler(payments.settler.pool, payments.writer)
        facts = [fact for delivery in deliveries for fact in delivery.facts()]

        async def told(settler: Settler, fact: Any) -> None:
            async with settler.pool.connection() as connection:
                await keep_facts(connection, [Told(mixed, fact)])
            await settler.settle(mixed, fact.id)

        await asyncio.gather(
            *(told(settler, fact) for fact in facts for settler in (payments.settler, other))
        )
        assert await payments.balance(mixed) == await payments.balance(in_order)
        assert await rows(payments, mixed) == await rows(payments, in_order)


async def test_a_crash_between_ledger_and_rows_is_made_good_by_the_next_telling(
    dated: Dated,
) -> None:
    async with dated.payments() as payments:
        tenant = await payments.new_tenant()
        await payments.deliver(tenant, PAID)
        before = await payments.view(tenant)
        # As after a crash: the ledger knows, the rows do not.
        await payments.sql("UPDATE scrip.payments SET state = 'waiting', account = NULL")
        await payments.deliver(tenant, PAID, "evt_again")
        assert (await rows(payments, tenant))[0][1:3] == ("acct", "applied")
        after = await payments.view(tenant)
        assert (after.version, after.balance) == (before.version, before.balance)


async def test_a_ledger_that_takes_no_more_is_asked_again(dated: Dated) -> None:
    async with dated.payments() as payments:
        tenant = await payments.new_tenant()
        (fact,) = PAID.facts()
        dated.writer.close()
        async with payments.settler.pool.connection() as connection:
            await keep_facts(connection, [Told(tenant, fact)])
        with pytest.raises(NotYet):
            await payments.settler.settle(tenant, fact.id)
