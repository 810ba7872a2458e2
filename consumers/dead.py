"""Dead letters: messages that could not be handled, with the reason, until somebody acts on them.

A dead letter is the message as it came, on a subject of its own, and why, in its headers. Redriving
publishes it again where it first was; only when that is stored is the dead letter removed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Final

from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from consumers.publishing import Publisher
from consumers.streams import DEAD, DEAD_SUBJECTS, jetstream, tenant_of, token_of

REASON: Final = "Scrip-Dead-Reason"
DETAIL: Final = "Scrip-Dead-Detail"
SUBJECT: Final = "Scrip-Dead-Subject"
DELIVERIES: Final = "Scrip-Dead-Deliveries"
PUBLISHED: Final = "Scrip-Dead-Published"
ORIGINAL: Final = "Scrip-Original-"
MSG_ID: Final = "Nats-Msg-Id"

DETAIL_CHARS_MAX: Final = 1_000
PAGE_MAX: Final = 500
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,200}")


class DeadLetterNotFound(Exception):
    """There is no dead letter of this id; it may have been redriven."""


class DeadLetter(Struct, frozen=True, kw_only=True):
    """A message that could not be handled. `id` rises with time; `subject` is its first one."""

    id: int
    tenant: str
    subject: str
    reason: str
    detail: str
    deliveries: int
    published_at: str | None
    dead_at: datetime | None
    message_id: str
    headers: dict[str, str]
    payload: bytes


async def bury(publisher: Publisher, message: Msg, reason: str, detail: str) -> None:
    """Store a message as dead. Raises Refused or AckUnknown; then it must not be given up.

    Safe to repeat: the same delivery of the same message is one dead letter.
    """
    published = message.metadata.timestamp.isoformat()
    identity = f"{message.subject}\n{message.metadata.sequence.stream}\n{published}\n".encode()
    headers = {
        ORIGINAL + name: _clean(value)
        for name, value in (message.headers or {}).items()
        if _HEADER_NAME.fullmatch(name)
    }
    headers |= {
        "Nats-Expected-Stream": DEAD,
        MSG_ID: "dead-" + hashlib.sha256(identity + message.data).hexdigest(),
        REASON: reason,
        DETAIL: _clean(detail)[:DETAIL_CHARS_MAX],
        SUBJECT: message.subject,
        DELIVERIES: str(message.metadata.num_delivered),
        PUBLISHED: published,
    }
    scrip, tenant, rest = message.subject.split(".", 2)
    await publisher.publish(f"{scrip}.{tenant}.dead.{rest}", message.data, headers)


async def list_dead(
    js: JetStreamContext, *, after: int = 0, limit: int = 50, tenant: str | None = None
) -> list[DeadLetter]:
    """Return the dead letters after an id, oldest first; of one tenant, if it is named."""
    found: list[DeadLetter] = []
    async for letter in _letters(js, after, tenant):
        found.append(letter)
        if len(found) >= min(limit, PAGE_MAX):
            break
    return found


async def read_dead(js: JetStreamContext, letter_id: int) -> DeadLetter:
    """Return one dead letter. Raises DeadLetterNotFound."""
    try:
        return _letter(await js.get_msg(DEAD, letter_id))
    except NotFoundError as error:
        raise DeadLetterNotFound(str(letter_id)) from error


async def redrive(client: Client, letter_id: int) -> DeadLetter:
    """Publish a dead letter where it first was, then remove it. Returns what it was.

    Raises DeadLetterNotFound; Refused or AckUnknown, and then the dead letter remains. Harmless to
    repeat: the key of the event inside tells the ledger that it has been handled.
    """
    js = jetstream(client)
    letter = await read_dead(js, letter_id)
    publisher = await Publisher(client).start()
    try:
        await _redrive(js, publisher, letter)
    finally:
        await publisher.close()
    return letter


async def redrive_all(
    client: Client, *, tenant: str | None = None, reason: str | None = None
) -> int:
    """Redrive every dead letter there is now (of a tenant, with a reason); return how many."""
    js = jetstream(client)
    last = (await js.stream_info(DEAD)).state.last_seq
    publisher = await Publisher(client).start()
    count = 0
    try:
        async for letter in _letters(js, 0, tenant):
            if letter.id > last:
                # It died while we were at it; what died again may do so for ever.
                break
            if reason is None or letter.reason == reason:
                await _redrive(js, publisher, letter)
                count += 1
    finally:
        await publisher.close()
    return count


async def _redrive(js: JetStreamContext, publisher: Publisher, letter: DeadLetter) -> None:
    headers = {
        name: value for name, value in letter.headers.items() if not name.startswith("Nats-")
    }
    headers[MSG_ID] = f"redrive-{letter.message_id}"
    await publisher.publish(letter.subject, letter.payload, headers)
    try:
        await js.delete_msg(DEAD, letter.id)
    except NotFoundError:
        return  # Another redrive was first; the ledger takes the message once.


async def _letters(
    js: JetStreamContext, after: int, tenant: str | None
) -> AsyncIterator[DeadLetter]:
    subjects = f"scrip.{token_of(tenant)}.dead.>" if tenant else DEAD_SUBJECTS
    while True:
        try:
            message = await js.get_msg(DEAD, after + 1, subject=subjects, next=True)
        except NotFoundError:
            return
        assert message.seq is not None
        after = message.seq
        yield _letter(message)


def _letter(message: RawStreamMsg) -> DeadLetter:
    headers: Mapping[str, str] = message.headers or {}
    assert message.seq is not None
    assert message.subject is not None
    return DeadLetter(
        id=message.seq,
        tenant=tenant_of(message.subject),
        subject=headers[SUBJECT],
        reason=headers[REASON],
        detail=headers.get(DETAIL, ""),
        deliveries=int(headers.get(DELIVERIES, "0")),
        published_at=headers.get(PUBLISHED),
        dead_at=message.time,
        message_id=headers[MSG_ID],
        headers={
            name.removeprefix(ORIGINAL): value
            for name, value in headers.items()
            if name.startswith(ORIGINAL)
        },
        payload=message.data or b"",
    )


def _clean(text: str) -> str:
    """Return `text` as a header can carry it."""
    flat = " ".join(text.split())
    return flat.encode("utf-8", "replace").decode("utf-8")
