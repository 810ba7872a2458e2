"""What becomes of generation events: once each, whatever happens to NATS, workers and accounts."""

import asyncio
from typing import Any

import msgspec
import pytest

from consumers.dead import DeadLetterNotFound, list_dead, read_dead, redrive, redrive_all
from consumers.publishing import Publisher
from consumers.streams import DURABLE, GENERATION, jetstream, trim
from ledger.domain.commands import PutAccount, Reserve
from ledger.domain.entities import Charge
from ledger.domain.values import MICRO
from scrip.embedded import EmbeddedNats
from tests.consumers.room import (
    FEATURE,
    MODEL,
    TENANT,
    Message,
    Room,
    again,
    generation,
    tokens,
    until,
)


def jobs(count: int, accounts: int) -> list[Message]:
    """Return the events of `count` jobs: each is charged 1 credit in the end."""
    messages = []
    for number in range(count // 2):
        account, job = f"account-{number % accounts}", f"job-{number}"
        estimate = {"estimate": {"amount": "1.5"}, "feature": FEATURE, "model": MODEL}
        messages.append(generation("started", job, account, event_id=f"s{number}", **estimate))
        messages.append(
            generation("succeeded", job, account, event_id=f"e{number}", **tokens(500_000))
        )
    return messages


def assert_every_job_was_charged_once(room: Room, count: int, accounts: int) -> None:
    for number in range(accounts):
        view = room.view(f"account-{number}")
        assert view.balance.consumed == count // 2 // accounts * MICRO
        assert view.balance.debt == 0
        assert view.operations == ()
        # Opened, granted, and two for each job: nothing was written twice.
        assert view.version == 2 + 2 * (count // 2 // accounts)


async def test_nats_killed_in_a_stream_of_messages_costs_no_effect_and_doubles_none(
    own_room: Room, own_nats: EmbeddedNats
) -> None:
    room, count, accounts = own_room, 2_000, 10
    room.set_prices()
    for number in range(accounts):
        room.open_account(f"account-{number}")
    messages = jobs(count, accounts)

    async with room.capturing() as client:
        await room.publish(client, messages[: count // 2])
        await room.publish(client, messages[count // 2 :])
        await until(lambda: room.store.max_position() > count // 4)
        await asyncio.to_thread(own_nats.kill)
        await asyncio.to_thread(own_nats.start)
        await room.handled(client)
        # What was published twice while nobody knew whether it had arrived.
        await room.publish(client, [again(message) for message in messages[::7]])
        await room.handled(client)

    assert_every_job_was_charged_once(room, count, accounts)


async def test_workers_that_compete_share_the_work_and_double_nothing(room: Room) -> None:
    count, accounts = 1_000, 5
    room.set_prices()
    for number in range(accounts):
        room.open_account(f"account-{number}")
    messages = jobs(count, accounts)

    async with room.capturing(workers=2) as client:
        await room.publish(client, [*messages, *map(again, messages)])
        await room.handled(client)

    assert_every_job_was_charged_once(room, count, accounts)


async def test_what_was_handled_before_a_consumer_was_lost_is_not_done_again(room: Room) -> None:
    count, accounts = 200, 2
    room.set_prices()
    for number in range(accounts):
        room.open_account(f"account-{number}")
    messages = jobs(count, accounts)
    async with room.capturing() as client:
        await room.publish(client, messages)
        await room.handled(client)

    async with room.client() as client:
        await jetstream(client).delete_consumer(GENERATION, DURABLE)

    async with room.capturing() as client:
        # All of them come again, from the beginning.
        await room.handled(client)
        info = await jetstream(client).consumer_info(GENERATION, DURABLE)
        assert info.delivered is not None
        assert info.delivered.consumer_seq == count

    assert_every_job_was_charged_once(room, count, accounts)


async def test_what_is_handled_is_removed_and_what_is_not_stays(room: Room) -> None:
    room.open_account("account-1")
    async with room.capturing() as client:
        js = jetstream(client)
        await room.publish(
            client, [generation("cancelled", f"job-{n}", "account-1") for n in range(10)]
        )
        await room.handled(client)
        await room.publish(client, [generation("cancelled", "job-1", "unknown")])
        await room.publish(client, [generation("cancelled", "job-11", "account-1")])
        await trim(js, GENERATION, DURABLE)
        state = (await js.stream_info(GENERATION)).state
        assert (state.first_seq, state.messages) == (11, 2)


async def test_a_job_without_an_estimate_is_open_from_its_start_and_charged_at_its_end(
    room: Room,
) -> None:
    room.set_prices()
    room.open_account("account-1")
    async with room.capturing() as client:
        await room.publish(client, [generation("started", "job-1", "account-1")])
        await room.handled(client)
        assert [one.id for one in room.view("account-1").operations] == ["job-1"]
        await room.publish(
            client, [generation("succeeded", "job-1", "account-1", **tokens(500_000))]
        )
        await room.handled(client)

    assert room.view("account-1").balance.consumed == MICRO
    assert room.view("account-1").operations == ()


async def test_captures_use_the_price_that_the_reservation_was_made_at(room: Room) -> None:
    room.set_prices()
    room.open_account("account-1")
    start: dict[str, Any] = {
        "feature": FEATURE,
        "model": MODEL,
        "estimate": {"usage": {"input_tokens": 500_000}},
    }
    async with room.capturing() as client:
        await room.publish(client, [generation("started", "job-1", "account-1", **start)])
        await room.handled(client)
        room.set_prices()
        await room.publish(
            client, [generation("succeeded", "job-1", "account-1", **tokens(500_000))]
        )
        await room.handled(client)

    event = room.events("account-1")[-1].event
    assert event.price.version == 1  # type: ignore[union-attr]


async def test_a_message_for_an_account_that_is_about_to_be_opened_waits_for_it(room: Room) -> None:
    room.set_prices()
    async with room.capturing() as client:
        await room.publish(client, [generation("succeeded", "job-1", "late", **tokens(500_000))])
        await asyncio.sleep(0.3)
        room.do("late", PutAccount())
        await room.handled(client)
        assert await list_dead(jetstream(client)) == []

    assert room.view("late").balance.debt == MICRO


async def test_work_done_beyond_the_credits_there_are_is_charged_and_its_start_is_dead(
    room: Room,
) -> None:
    room.set_prices()
    room.open_account("account-1", credits_=1)
    start: dict[str, Any] = {"estimate": {"amount": 5}}
    async with room.capturing() as client:
        await room.publish(client, [generation("started", "job-1", "account-1", **start)])
        await room.handled(client)
        await room.publish(
            client, [generation("succeeded", "job-1", "account-1", **tokens(1_000_000))]
        )
        await room.handled(client)
        dead = await list_dead(jetstream(client))

    assert [letter.reason for letter in dead] == ["insufficient_credits"]
    assert "required=5, shortfall=4" in dead[0].detail
    balance = room.view("account-1").balance
    assert (balance.consumed, balance.debt, balance.available) == (MICRO, MICRO, 0)


POISON = {
    b"": "truncated",
    b"\xff\xfe": "malformed",
    b"[]": "Expected `object`",
    b'{"specversion":"1.0"}': "missing required field",
    b'{"a":"\\ud800"}': "truncated",
    b"[" * 50_000: "",
}


def altered(**changes: object) -> bytes:
    """Return a good message's payload with some of its data changed, or added."""
    _, payload, _ = generation("succeeded", "job-1", "account-1", **tokens(1))
    event = msgspec.json.decode(payload)
    event["data"] |= changes
    return msgspec.json.encode(event)


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        *POISON.items(),
        (altered(usage={"input_tokens": -1}), "$.data.usage.input_tokens"),
        (altered(usage={"input_token": 1}), "unknown field `input_token`"),
        (altered(usage={"input_tokens": 10**13}), "$.data.usage.input_tokens"),
        (altered(account="../../etc"), "$.data.account"),
        (altered(job="line\nbreak"), "$.data.job"),
        (altered(job="j\n"), "$.data.job"),
        (altered(model="nul\0"), "$.data.model"),
        (altered(usage=None), "must state data.usage"),
        (altered(amount="1"), "only one"),
        (altered(usage=None, amount="0.1234567"), "6 decimal places - at `$.data.amount`"),
        (altered(usage=None, amount=" 1"), "$.data.amount"),
        (altered(usage=None, amount="-1"), "must not be negative"),
        (altered(usage=None, amount="1e30"), "$.data.amount"),
        (altered(usage=None, amount=True), "$.data.amount"),
        (altered(usage=None, amount=float(10**30)), "must be at most"),
        (altered(estimate={"amount": "1"}), "belongs to started"),
        (altered(ttl_seconds=0), "$.data.ttl_seconds"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_message_that_cannot_be_read_is_dead_with_its_reason_and_bytes(
    room: Room, payload: bytes, why: str
) -> None:
    subject = f"scrip.{TENANT}.generation.succeeded"
    async with room.capturing() as client:
        await room.publish(client, [(subject, payload, "poison-1")])
        await room.handled(client)
        [letter] = await list_dead(jetstream(client))

    assert letter.reason == "invalid_message"
    assert why in letter.detail
    assert letter.payload == payload
    assert letter.subject == subject
    assert letter.headers == {"Nats-Msg-Id": "poison-1"}


async def test_a_message_on_the_wrong_subject_is_dead(room: Room) -> None:
    _, payload, message_id = generation("failed", "job-1", "account-1")
    async with room.capturing() as client:
        await room.publish(client, [(f"scrip.{TENANT}.generation.started", payload, message_id)])
        await room.handled(client)
        [letter] = await list_dead(jetstream(client))

    assert "does not belong to the subject" in letter.detail


async def test_a_message_that_poses_as_one_of_jetstream_is_handled_as_a_message(room: Room) -> None:
    room.set_prices()
    room.open_account("account-1")
    subject, payload, _ = generation("succeeded", "job-1", "account-1", **tokens(500_000))
    async with room.capturing() as client:
        publisher = await Publisher(client).start()
        await publisher.publish(subject, payload, {"Status": "408", "Odd": "café\t✓"})
        await publisher.publish(subject, b"{}", {"Status": "100", "Odd": "café ✓"})
        await room.handled(client)
        [letter] = await list_dead(jetstream(client))

    assert room.view("account-1").balance.consumed == MICRO
    assert letter.headers["Status"] == "100"


async def test_dead_letters_are_redriven_once_their_cause_is_gone(room: Room) -> None:
    room.open_account("account-1")
    room.open_account("account-2")
    async with room.capturing() as client:
        js = jetstream(client)
        await room.publish(
            client,
            [
                generation("succeeded", "job-1", f"account-{number}", **tokens(500_000))
                for number in (1, 2)
            ],
        )
        await room.handled(client)
        first, second = await list_dead(js)
        assert {first.reason, second.reason} == {"price_not_found"}
        assert await list_dead(js, after=first.id) == [second]
        assert await list_dead(js, limit=1) == [first]
        assert await list_dead(js, tenant="other") == []
        assert await read_dead(js, second.id) == second

        room.set_prices()
        await redrive(client, first.id)
        await room.handled(client)
        assert await list_dead(js) == [second]
        with pytest.raises(DeadLetterNotFound):
            await redrive(client, first.id)
        assert await redrive_all(client, reason="invalid_message") == 0
        assert await redrive_all(client) == 1
        await room.handled(client)
        assert await list_dead(js) == []

    for number in (1, 2):
        assert room.view(f"account-{number}").balance.consumed == MICRO


async def test_a_redriven_message_that_fails_again_is_dead_again(room: Room) -> None:
    room.open_account("account-1")
    async with room.capturing() as client:
        js = jetstream(client)
        await room.publish(client, [generation("succeeded", "job-1", "account-1", **tokens(1))])
        await room.handled(client)
        for _ in range(3):
            [letter] = await list_dead(js)
            assert await redrive_all(client) == 1
            await room.handled(client)
            [again_dead] = await list_dead(js)
            assert again_dead.id > letter.id
            assert again_dead.payload == letter.payload


async def test_the_same_event_with_other_content_is_dead(room: Room) -> None:
    room.set_prices()
    room.open_account("account-1")
    async with room.capturing() as client:
        for amount in (100_000, 200_000):
            message = generation(
                "succeeded", "job-1", "account-1", event_id="same", **tokens(amount)
            )
            await room.publish(client, [message])
            await room.handled(client)
        [letter] = await list_dead(jetstream(client))

    assert letter.reason == "idempotency_mismatch"
    assert room.used("account-1").usage.input_tokens == 100_000


async def test_a_reservation_over_http_is_found_by_the_jobs_events(room: Room) -> None:
    room.set_prices()
    room.open_account("account-1")
    room.do("account-1", Reserve(id="job-1", charge=Charge(amount=5 * MICRO)))
    async with room.capturing() as client:
        await room.publish(
            client, [generation("progressed", "job-1", "account-1", **tokens(500_000))]
        )
        await room.handled(client)
        balance = room.view("account-1").balance
        assert (balance.consumed, balance.reserved) == (MICRO, 4 * MICRO)
        await room.publish(client, [generation("cancelled", "job-1", "account-1")])
        await room.handled(client)

    balance = room.view("account-1").balance
    assert (balance.consumed, balance.reserved) == (MICRO, 0)
