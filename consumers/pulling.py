"""Pull messages of a durable consumer, with the next ones always on their way.

A batch is what has arrived: a lone message is not kept waiting, and a flood comes in large batches.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Final, Self

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext

log = structlog.get_logger(__name__)

REQUEST_SECONDS: Final = 30.0
HEARTBEAT_SECONDS: Final = 2.0
SILENCE_SECONDS_MAX: Final = 3 * HEARTBEAT_SECONDS
NANOSECONDS: Final = 1_000_000_000
IDLE_HEARTBEAT: Final = "100"
REQUEST_OVER: Final = frozenset({"404", "408"})


class ConsumerGone(Exception):
    """The stream or its consumer is no more, or JetStream no longer answers for it."""


class Pull:
    """One process's share of a durable consumer's messages."""

    def __init__(
        self, client: Client, js: JetStreamContext, stream: str, durable: str, *, ahead: int
    ) -> None:
        """Keep at most `ahead` messages on their way or waiting here."""
        self._client = client
        self._js = js
        self._stream, self._durable = stream, durable
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._inbox = client.new_inbox()
        self._ahead = ahead
        self._asked = 0
        self._arrived: deque[Msg] = deque()
        self._wake = asyncio.Event()
        self._heard_at = 0.0
        self._reconnects = client.stats["reconnects"]
        self._gone: str | None = None
        self._subscription: Subscription | None = None

    async def start(self) -> Self:
        """Begin to listen. Messages come with `batch`."""
        self._subscription = await self._client.subscribe(self._inbox, cb=self._received)
        self._heard_at = asyncio.get_running_loop().time()
        return self

    async def close(self) -> None:
        """Stop listening and hand back what waits here, so that another process has it at once."""
        subscription, self._subscription = self._subscription, None
        if self._client.is_closed or subscription is None:
            return
        await subscription.unsubscribe()
        for message in self._arrived:
            await message.nak()
        self._arrived.clear()

    async def batch(self, most: int, seconds: float) -> list[Msg]:
        """Return what has arrived, up to `most`; wait for a first message up to `seconds`.

        Raises ConsumerGone.
        """
        await self._ask()
        if not self._arrived:
            self._wake.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                await self._watch()
        if self._gone is not None:
            raise ConsumerGone(self._gone)
        return [self._arrived.popleft() for _ in range(min(most, len(self._arrived)))]

    def interrupt(self) -> None:
        """Let `batch` return at once if it waits."""
        self._wake.set()

    async def _ask(self) -> None:
        """Ask for more where fewer than half of the messages wanted are here or on their way."""
        if self._client.stats["reconnects"] != self._reconnects:
            # What was asked before the connection broke has been forgotten by the server.
            self._reconnects = self._client.stats["reconnects"]
            self._asked = 0
        room = self._ahead - self._asked - len(self._arrived)
        if room < self._ahead // 2 or not self._client.is_connected:
            return
        request = {
            "batch": room,
            "expires": int(REQUEST_SECONDS * NANOSECONDS),
            "idle_heartbeat": int(HEARTBEAT_SECONDS * NANOSECONDS),
        }
        self._asked += room
        self._heard_at = asyncio.get_running_loop().time()
        await self._client.publish(self._subject, json.dumps(request).encode(), self._inbox)

    async def _watch(self) -> None:
        """Notice a server that says nothing, not even its heartbeats: ask it, and ask again."""
        silent = asyncio.get_running_loop().time() - self._heard_at
        if silent > SILENCE_SECONDS_MAX and self._client.is_connected:
            log.warning("pull.silent", stream=self._stream, seconds=round(silent, 1))
            await self._js.consumer_info(self._stream, self._durable)  # Raises where it is stuck.
            self._asked = 0

    async def _received(self, message: Msg) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        # A message has the subject it was published on; JetStream's own words have the inbox's.
        status = (message.headers or {}).get("Status", "")
        if message.subject != self._inbox:
            self._asked = max(0, self._asked - 1)
            self._arrived.append(message)
        elif status == IDLE_HEARTBEAT:
            return
        elif status in REQUEST_OVER:
            headers = message.headers or {}
            left = headers.get("Nats-Pending-Messages", str(self._ahead))
            self._asked = max(0, self._asked - int(left))
        else:
            self._explain(status, (message.headers or {}).get("Description", ""))
        self._wake.set()

    def _explain(self, status: str, description: str) -> None:
        """Take in that a request ended otherwise: for a passing reason, or for good."""
        self._asked = 0
        if status == "503" or "Deleted" in description:
            self._gone = f"{self._stream}/{self._durable}: {status} {description}".strip()
        else:
            log.info("pull.interrupted", stream=self._stream, status=status, why=description)
