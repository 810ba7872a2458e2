"""Auto top-up over the real ledger and a pretended Stripe: one charge for one shortfall."""

import asyncio
import itertools
import random
from datetime import timedelta

import pytest

from consumers.top_ups import GONE_AFTER, top_up_accounts
from tests.consumers.room import until
from tests.consumers.settling_room import Dated
from tests.consumers.top_up_room import BAD, GOOD, PRICE, Died, Shop, die, part, projecting, shop

HOUR = timedelta(hours=1)
LOOKS = timedelta(minutes=1)


async def test_an_account_that_is_short_is_charged_once_and_gets_its_credits_by_webhook(
    dated: Dated,
) -> None:
    async with shop(dated) as acct:
        for _ in range(3):
            await acct.look()
            acct.later()
        assert (acct.charges, await acct.states(), await acct.why()) == (1, ["paid"], "in_flight")
        assert await acct.available() == 50
        await acct.webhooks()
        assert await acct.available() == 50 + 1_000 + 50  # The pack, and its bonus.
        await acct.granted()
        await acct.look()
        assert (acct.charges, await acct.states(), await acct.why()) == (1, ["granted"], None)
        await acct.spend(1_050)
        await acct.look()
        await acct.webhooks()
        await acct.granted()
        assert (acct.charges, await acct.states()) == (2, ["granted"] * 2)
        assert await acct.available() == 50 + 1_050


async def test_one_that_is_not_short_or_not_on_is_left_alone(dated: Dated) -> None:
    async with shop(dated) as acct:
        await acct.give(50)
        await acct.look()
        await acct.spend(100)
        await acct.put(enabled=False)
        await acct.look()
        assert (acct.asked, await acct.states()) == (0, [])


async def test_a_hundred_looks_at_once_by_two_workers_make_one_charge(dated: Dated) -> None:
    async with shop(dated) as acct:
        await asyncio.gather(*(acct.look() for _ in range(100)))
        assert (acct.charges, acct.asked, await acct.states()) == (1, 1, ["paid"])


@pytest.mark.parametrize("asked", [False, True])
async def test_a_crash_before_or_after_the_charge_ends_in_one_charge(
    dated: Dated, *, asked: bool
) -> None:
    async with shop(dated) as acct:
        with pytest.raises(Died):
            await acct.look(acct.meddled(after=die) if asked else acct.meddled(before=die))
        assert (acct.charges, await acct.states()) == (int(asked), ["open"])
        await acct.look()
        assert (await acct.states(), await acct.why()) == (["open"], "in_flight")
        acct.later()
        if not asked:
            # And again, while it is taken up again.
            with pytest.raises(Died):
                await acct.try_again(acct.meddled(after=die))
            acct.later(timedelta(minutes=5))
        await acct.try_again()
        assert (acct.charges, await acct.states()) == (1, ["paid"])


@pytest.mark.parametrize("hours", [1, 25, 24 * 40])
async def test_a_charge_whose_answer_was_lost_is_found_however_late(
    dated: Dated, hours: int
) -> None:
    async with shop(dated) as acct:
        stripe = acct.server.stripe
        await acct.look(acct.meddled(before=lambda: stripe.break_down(after_work=True)))
        assert (acct.charges, await acct.states()) == (1, ["open"])
        stripe.answered.clear()  # As Stripe forgets keys after a day.
        acct.later(hours * HOUR)
        await acct.look()
        await acct.try_again()
        assert (acct.charges, await acct.states()) == (1, ["paid"])
        await acct.webhooks()
        await acct.granted()
        assert await acct.states() == ["granted"]


async def test_a_charge_that_stripe_never_saw_is_asked_for_again_under_its_key(
    dated: Dated,
) -> None:
    async with shop(dated) as acct:
        await acct.look(acct.meddled(before=acct.server.stripe.break_down))
        assert (acct.charges, await acct.attempts()) == (0, [(1, "open", "provider_unavailable")])
        acct.later()
        await acct.try_again()
        assert (acct.charges, acct.asked, await acct.states()) == (1, 2, ["paid"])
        assert len(acct.server.stripe.answered) == 1


async def test_one_that_cannot_be_asked_for_again_fails_only_once_it_can_no_longer_be_there(
    dated: Dated,
) -> None:
    async with shop(dated) as acct:
        stripe = acct.server.stripe
        await acct.look(acct.meddled(before=stripe.break_down))
        await acct.put(enabled=False)
        for _ in range(20):
            acct.later(timedelta(minutes=2))
            await acct.try_again()
            assert await acct.states() == ["open"]
        acct.later(GONE_AFTER)
        await acct.try_again()
        assert (acct.asked, await acct.attempts()) == (1, [(1, "failed", "")])


async def test_a_refusal_after_an_answer_that_was_lost_does_not_count_as_no_charge(
    dated: Dated,
) -> None:
    async with shop(dated) as acct:
        stripe = acct.server.stripe
        await acct.look(acct.meddled(before=lambda: stripe.break_down(after_work=True)))
        acct.keys.key = None
        acct.later()
        await acct.try_again()
        assert (await acct.attempts())[0][1:] == ("open", "provider_key_missing")
        acct.later(3 * HOUR)
        await acct.try_again()
        await acct.look()
        assert (await acct.states(), acct.asked) == (["open"], 1)
        acct.keys = type(acct.keys)()
        acct.charging._keys = acct.keys
        acct.later(HOUR)
        await acct.try_again()
        assert (acct.charges, await acct.states()) == (1, ["paid"])


async def test_a_refusal_of_the_first_request_ends_it(dated: Dated) -> None:
    async with shop(dated) as acct:
        stripe = acct.server.stripe

        def gone() -> None:
            stripe.kept["payment_methods"].clear()

        await acct.look(acct.meddled(before=gone))
        assert (acct.charges, await acct.attempts()) == (0, [(1, "failed", "resource_missing")])


async def test_a_declined_card_is_charged_at_most_once_an_hour_and_less_and_less(
    dated: Dated,
) -> None:
    async with shop(dated, card=BAD) as acct:
        times = []
        for _ in range(24 * 60):
            before = acct.asked
            await acct.look()
            if acct.asked > before:
                times.append(dated.clock.now)
                await acct.put()  # As if somebody wished to hurry it.
            acct.later(timedelta(minutes=1))
        gaps = [(later - first) // HOUR for first, later in itertools.pairwise(times)]
        assert gaps == [1, 2, 4, 8]
        assert set(await acct.states()) == {"declined"}
        assert await acct.why() == "backing_off"
        declined = ("top_up_declined", "card_declined: Your card was declined.")
        assert await acct.alerts() == [declined] * 5
        acct.use(GOOD)
        acct.later(16 * HOUR)
        await acct.look()
        assert (acct.charges, (await acct.states())[-1]) == (1, "paid")
        assert await acct.open_alerts() == ["top_up_declined"]
        await acct.webhooks()
        await acct.granted()
        assert await acct.open_alerts() == []


async def test_a_decline_after_one_that_was_seen_to_is_listed_anew(dated: Dated) -> None:
    async with shop(dated, card=BAD) as acct:
        await acct.look()
        assert await acct.open_alerts() == ["top_up_declined"]
        await acct.resolve_alerts()
        acct.later()
        await acct.look()
        assert await acct.open_alerts() == []
        acct.later(HOUR)
        await acct.look()
        assert (acct.asked, await acct.open_alerts()) == (2, ["top_up_declined"])


async def test_a_month_has_its_maximum_and_the_next_month_its_own(dated: Dated) -> None:
    async with shop(dated) as acct:
        await acct.put(monthly_max=2 * PRICE + PRICE // 2)
        for _ in range(4):
            await acct.look()
            await acct.webhooks()
            await acct.granted()
            await acct.spend(min(1_050, await acct.available()))
            acct.later()
        assert (acct.charges, await acct.why()) == (2, "monthly_max_reached")
        assert await acct.alerts() == [("top_up_skipped", "monthly_max_reached")]
        assert await acct.open_alerts() == ["top_up_skipped"]
        acct.later(timedelta(days=31))
        await acct.look()
        assert acct.charges == 3


async def test_money_that_goes_back_switches_it_off_until_it_is_put_again(dated: Dated) -> None:
    async with shop(dated) as acct:
        await acct.look()
        await acct.webhooks()
        await acct.granted()
        (charge,) = acct.server.stripe.kept["charges"]
        acct.server.stripe.refund(charge)
        await acct.webhooks()
        acct.later()
        await acct.look()
        assert (acct.charges, await acct.why()) == (1, "payment_reversed")
        assert await acct.alerts() == [("top_up_stopped", "payment_reversed")]
        acct.later()
        await acct.look()
        assert acct.charges == 1


async def test_nobody_is_charged_while_he_disputes_a_payment(dated: Dated) -> None:
    async with shop(dated) as acct:
        await acct.look()
        await acct.webhooks()
        await acct.granted()
        (charge,) = acct.server.stripe.kept["charges"]
        opened = acct.server.stripe.dispute(charge)["id"]
        await acct.webhooks()
        acct.later()
        await acct.look()
        assert (acct.charges, await acct.why()) == (1, "payment_disputed")
        acct.server.stripe.close_dispute(opened, "lost")
        await acct.webhooks()
        acct.later()
        await acct.look()
        assert (acct.charges, await acct.why()) == (1, "payment_reversed")


async def test_each_reason_not_to_charge_is_said_and_told_once(dated: Dated) -> None:
    async with shop(dated, card=None, linked=False) as acct:

        async def said(why: str) -> None:
            for _ in range(2):
                await acct.look()
                acct.later()
            assert await acct.why() == why

        await acct.put(threshold=2_000 * 1_000_000)
        await said("pack_too_small")
        await acct.put(pack="none")
        await said("pack_not_sold")
        await acct.put()
        await said("customer_unknown")
        await acct.payments.link(acct.tenant, f"stripe:customer:{acct.customer}", "acct")
        await said("no_payment_method")
        acct.keys.key = None
        await said("provider_key_missing")
        acct.keys.unreadable = True
        await said("provider_key_unreadable")
        assert acct.asked == 0
        assert [detail for _, detail in await acct.alerts()] == [
            "pack_too_small",
            "pack_not_sold",
            "customer_unknown",
            "no_payment_method",
            "provider_key_missing",
            "provider_key_unreadable",
        ]
        acct.keys.unreadable = False
        acct.keys.key = type(acct.keys).key
        acct.use(GOOD)
        await acct.look()
        assert (acct.charges, await acct.states()) == (1, ["paid"])


async def test_credits_that_do_not_come_keep_it_from_charging_and_people_are_told(
    dated: Dated,
) -> None:
    async with shop(dated) as acct:
        await acct.look()
        for _ in range(3):
            acct.later(HOUR)
            await acct.look()
            await acct.top_ups._tell_of_long()
        assert (acct.charges, await acct.states()) == (1, ["paid"])
        assert await acct.alerts() == [("top_up_unsettled", "unsettled")]


async def test_the_part_does_it_all_by_itself(dated: Dated) -> None:
    with projecting(dated):
        async with shop(dated) as acct:
            stop, its = asyncio.Event(), part()
            task = asyncio.create_task(top_up_accounts(acct.top_ups, its, stop, 0.05))
            await until(lambda: acct.charges == 1)
            await acct.webhooks()
            await until(lambda: is_granted(acct))
            await acct.spend(1_050)
            acct.server.stripe.break_down()  # Of whatever is asked first.
            while acct.charges < 2:
                acct.later(timedelta(seconds=20))
                await asyncio.sleep(0.05)
            assert its.state == "running"
            stop.set()
            await task
            assert (await acct.states())[0] == "granted"


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_there_is_one_charge_for_a_shortfall(
    dated: Dated, seed: int
) -> None:
    """Crashes, lost answers, declines, late webhooks, several workers: in any order."""
    chance = random.Random(seed)  # noqa: S311 - a story, and no secret
    with projecting(dated):
        async with shop(dated) as acct:
            await acct.put(monthly_max=1_000 * PRICE)
            stripe = acct.server.stripe
            workers = [
                acct.top_ups,
                acct.top_ups,
                acct.meddled(before=die),
                acct.meddled(after=die),
                acct.meddled(before=stripe.break_down),
                acct.meddled(before=lambda: stripe.break_down(after_work=True)),
                acct.meddled(before=lambda: stripe.slow_down(1, None)),
            ]
            tried = dated.clock.now - 2 * HOUR
            for _ in range(60):
                cards = len(stripe.kept["payment_intents"])
                match chance.randrange(8):
                    case 0 | 1 | 2:
                        some = chance.sample(workers, chance.randint(1, 3))
                        await asyncio.gather(*(one.round(part()) for one in some))
                    case 3:
                        await acct.webhooks()
                    case 4:
                        await acct.spend(min(await acct.available(), chance.randint(1, 900)))
                    case 5:
                        acct.use(chance.choice([GOOD, GOOD, BAD]))
                    case _:
                        acct.later(chance.choice([LOOKS, 10 * LOOKS, HOUR, 5 * HOUR, 30 * HOUR]))
                intents = list(stripe.kept["payment_intents"].values())
                if len(intents) > cards:
                    # What is made is made once for an attempt, and one at a time.
                    assert len(intents) == cards + 1
                    if intents[-2:-1] and intents[-2]["status"] != "succeeded":
                        assert dated.clock.now - tried >= HOUR
                    tried = dated.clock.now
                ours = [intent["metadata"]["scrip_attempt"] for intent in intents]
                assert len(set(ours)) == len(ours)
                states = await acct.states()
                assert sum(state in {"open", "paid"} for state in states) <= 1
                assert await unpaid_for(acct) <= 1
            await mended(acct)
            succeeded = [one for one in stripe.kept["payment_intents"].values() if paid(one)]
            assert (await acct.states()).count("granted") == len(succeeded) == acct.charges


async def is_granted(acct: Shop) -> bool:
    return await acct.states() == ["granted"]


def paid(intent: dict[str, object]) -> bool:
    return intent["status"] == "succeeded"


async def unpaid_for(acct: Shop) -> int:
    """Return how many charges have not brought their credits yet."""
    rows = await acct.payments.rows(
        "SELECT count(*) FROM scrip.payments WHERE tenant = %(t)s AND state = 'applied'",
        t=acct.tenant,
    )
    return acct.charges - int(rows[0][0])


async def mended(acct: Shop) -> None:
    """Let all that was broken be whole, and time pass, until nothing is on the way."""
    acct.server.stripe.faults.clear()
    for _ in range(20):
        acct.later(3 * HOUR)
        await acct.top_ups.round(part())
        await acct.webhooks()
        await acct.granted()
        if not {"open", "paid"} & set(await acct.states()):
            return
    raise AssertionError(await acct.attempts())
