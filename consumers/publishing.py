"""Publish to JetStream without waiting for each answer, in the order of the calls.

The client's own `publish_async` never resolves where JetStream refuses a message (its handler
raises instead), and a task for each `publish` does not promise their order. So: one inbox, and one
future for each answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Self

import msgspec
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import BadSubjectError, MaxPayloadError
from nats.errors import Error as NatsError

from consumers.streams import Connection

ACK_SECONDS_MAX: Final = 5.0
HEADERS_BYTES_MAX: Final = 4_096


class Refused(Exception):
    """JetStream did not store a message; the text says why."""


class AckUnknown(Exception):
    """No answer came in time. The message may have been stored, or may be stored later."""


class _Error(Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class Ack(Struct):
    """JetStream's answer. `duplicate`: it remembers the message's id, and has stored nothing."""

    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: _Error | None = None


_decoder = msgspec.json.Decoder(Ack)


class Message(NamedTuple):
    """What is to be published. `headers` are lines that each end in CR LF."""

    subject: str
    headers: str
    payload: bytes


class Publisher:
    """A way to JetStream on a connection, for one task at a time."""

    def __init__(self, client: Client) -> None:
        """Use `client`; see `start`."""
        self._client = client
        self._inbox = client.new_inbox()
        self._waiting: dict[str, asyncio.Future[Ack]] = {}
        self._sent = 0
        self._subscription: Subscription | None = None

    @property
    def payload_bytes_max(self) -> int:
        """The largest payload that the server takes, with room for headers beside it."""
        return self._client.max_payload - HEADERS_BYTES_MAX

    async def start(self) -> Self:
        """Begin to listen for answers."""
        self._subscription = await self._client.subscribe(f"{self._inbox}.*", cb=self._answered)
        return self

    async def close(self) -> None:
        """Stop listening. What was not answered is unknown."""
        for future in self._waiting.values():
            future.cancel()
        self._waiting.clear()
        if self._subscription is not None and not self._client.is_closed:
            await self._subscription.unsubscribe()

    async def send(
        self, subject: str, payload: bytes, headers: Mapping[str, str]
    ) -> asyncio.Future[Ack]:
        """Send a message after all those before it; the future is its answer (see `wait`)."""
        reply, future = self._expect()
        await self._client.publish(subject, payload, reply=reply, headers=dict(headers))
        return future

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> Ack:
        """Send a message and wait until it is stored. Raises Refused or AckUnknown."""
        return (await wait([await self.send(subject, payload, headers)]))[0]

    async def publish_chain(self, messages: Sequence[Message]) -> Ack:
        """Send messages at once, in order, and return the answer to the last: no other has one.

        For messages each of which names the one that must be before it, so that the last is stored
        only if all are. Where it is not, raises Refused or AckUnknown, and some of the others may
        have been stored: from the first one on, without a gap. Raises NatsError before it sends
        anything if there is no connection, or a message that NATS cannot take.
        """
        assert isinstance(self._client, Connection)
        bytes_max = self._client.max_payload
        reply, future = self._expect()
        *others, last = messages
        try:
            commands = [_command(message, "", bytes_max) for message in others]
            commands.append(_command(last, reply, bytes_max))
            await self._client.send_commands(b"".join(commands), len(messages))
        except NatsError:
            future.cancel()
            raise
        return (await wait([future]))[0]

    def _expect(self) -> tuple[str, asyncio.Future[Ack]]:
        """Return where an answer is to go, and the answer."""
        self._sent += 1
        token = str(self._sent)
        future: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
        self._waiting[token] = future
        future.add_done_callback(lambda _: self._waiting.pop(token, None))
        return f"{self._inbox}.{token}", future

    async def _answered(self, message: Msg) -> None:
        future = self._waiting.get(message.subject.rsplit(".", 1)[1])
        if future is None or future.done():
            return
        if not message.data:
            future.set_exception(Refused("no stream takes this subject"))
            return
        ack = _decoder.decode(message.data)
        if ack.error is not None:
            future.set_exception(Refused(f"{ack.error.description} ({ack.error.err_code})"))
        else:
            future.set_result(ack)


def _command(message: Message, reply: str, bytes_max: int) -> bytes:
    """Return the command that publishes a message. Raises BadSubjectError or MaxPayloadError."""
    subject, headers, payload = message
    if len(subject.split()) != 1:
        raise BadSubjectError
    head = f"NATS/1.0\r\n{headers}\r\n".encode()
    size = len(head) + len(payload)
    if size > bytes_max:
        # The server would close the connection, and all other messages would be lost with it.
        raise MaxPayloadError
    return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (
        subject.encode(),
        reply.encode(),
        len(head),
        size,
        head,
        payload,
    )


async def wait(futures: list[asyncio.Future[Ack]], seconds: float = ACK_SECONDS_MAX) -> list[Ack]:
    """Return all answers, in order. Raises the first refusal, or AckUnknown after `seconds`."""
    _, late = await asyncio.wait(futures, timeout=seconds)
    for future in late:
        future.cancel()
    failures = [
        error
        for future in futures
        if future not in late and (error := future.exception()) is not None
    ]
    if failures:
        raise failures[0]
    if late:
        raise AckUnknown(f"{len(late)} of {len(futures)} messages were not answered in {seconds} s")
    return [future.result() for future in futures]
