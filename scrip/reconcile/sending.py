"""Facts that mend what differs, sent as those of webhooks are: workers bring them to the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from msgspec import Raw
from nats.aio.client import Client

from consumers.publishing import Publisher, wait
from consumers.streams import ensure_streams, jetstream, payment_subject
from ledger.domain.facts import PaymentFact
from ledger.domain.values import derived_id
from ledger.payment_messages import PaymentMessage, encode_message

ENDPOINT: Final = "reconcile"
AT_ONCE: Final = 100
MSG_ID: Final = "Nats-Msg-Id"
_NOTHING: Final = Raw(b"{}")


async def send_facts(client: Client, tenant: str, facts: Sequence[PaymentFact]) -> None:
    """Return once JetStream has stored all of these facts.

    To send them again is harmless. Raises Refused, AckUnknown and NATS's errors: then some may be.
    """
    await ensure_streams(jetstream(client))
    publisher = await Publisher(client).start()
    try:
        for begin in range(0, len(facts), AT_ONCE):
            some = [message_of(fact) for fact in facts[begin : begin + AT_ONCE]]
            await wait(
                [
                    await publisher.send(
                        payment_subject(tenant, message.provider),
                        encode_message(message),
                        {MSG_ID: message.id},
                    )
                    for message in some
                ]
            )
    finally:
        await publisher.close()


def message_of(fact: PaymentFact) -> PaymentMessage:
    """Return the message that tells one fact."""
    return PaymentMessage(
        id=derived_id("dlv", f"{ENDPOINT}\0{fact.id}"),
        endpoint=ENDPOINT,
        provider=fact.provider,
        delivery=fact.delivery,
        type=fact.type,
        occurred_at=fact.occurred_at,
        received_at=datetime.now(UTC),
        payload=_NOTHING,
        facts=(fact,),
    )
