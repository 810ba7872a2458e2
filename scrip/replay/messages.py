"""The generation events of a replay, sent over JetStream until they are stored."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from typing import Any, Final, Self

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError

from consumers.publishing import AckUnknown, Publisher, Refused
from consumers.streams import DURABLE, GENERATION, connect, jetstream, token_of
from scrip.replay.caller import PATIENCE_SECONDS, GaveUp
from scrip.replay.plan import Job

SUCCEEDED: Final = "scrip.generation.succeeded"
ACK_SECONDS: Final = 15.0
PAUSE_SECONDS: Final = 0.5


def succeeded(job: Job, prefix: str, feature: str) -> tuple[str, bytes]:
    """Return the id and the bytes of the event that tells what a job used: always the same."""
    event_id = f"{job.id}-succeeded"
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": event_id,
        "source": f"/scrip/replay/{prefix}",
        "type": SUCCEEDED,
        "datacontenttype": "application/json",
        "data": {
            "account": job.account,
            "job": job.id,
            "feature": feature,
            "model": job.model,
            "usage": {
                "input_tokens": job.row.context_tokens,
                "output_tokens": job.row.generated_tokens,
            },
        },
    }
    return event_id, msgspec.json.encode(event)


class Sender:
    """Sends events of one tenant. Waits out an outage of NATS, and may then send an event twice."""

    def __init__(self, client: Client, tenant: str) -> None:
        """Send over `client`."""
        self._client = client
        self._publisher = Publisher(client)
        self._subject = f"scrip.{token_of(tenant)}.generation.succeeded"
        self.retries: Counter[str] = Counter()

    @classmethod
    async def connect(cls, url: str, tenant: str) -> Self:
        """Connect, however long that takes, within reason. Raises GaveUp."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                client = await connect(url, "scrip-replay")
        except TimeoutError:
            raise GaveUp(f"NATS did not answer in {PATIENCE_SECONDS:g} s") from None
        return cls(client, tenant)

    async def __aenter__(self) -> Self:
        """Begin to listen for answers."""
        await self._publisher.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection."""
        await self._publisher.close()
        await self._client.close()

    async def send(self, event_id: str, payload: bytes) -> None:
        """Send an event until JetStream has it. Raises GaveUp."""
        began = time.monotonic()
        while True:
            try:
                async with asyncio.timeout(ACK_SECONDS):
                    await self._publisher.publish(self._subject, payload, {"Nats-Msg-Id": event_id})
            except (NatsError, OSError, TimeoutError, Refused, AckUnknown) as error:
                self.retries[type(error).__name__] += 1
                if time.monotonic() - began > PATIENCE_SECONDS:
                    raise GaveUp(f"NATS did not take {event_id}: {error}") from error
                await asyncio.sleep(PAUSE_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            else:
                return

    async def unhandled(self) -> int | None:
        """Return how many generation events nobody has handled yet, of any tenant.

        None where that cannot be told just now.
        """
        try:
            info = await jetstream(self._client).consumer_info(GENERATION, DURABLE)
        except (NatsError, OSError, TimeoutError):
            return None
        return (info.num_pending or 0) + (info.num_ack_pending or 0)
