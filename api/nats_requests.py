"""Requests over NATS, and their answers: the same bytes as over HTTP, the status in a header.

No message waits for another, and none is waited for: a command goes to the writer with all others
of the same turn of the loop, and what comes back is sent by one task. Only what has to read, or a
key that is not known yet, takes a task of its own.

The order of checks is that of HTTP: key (401), tenant and role (403), Idempotency-Key (400), size
of the body (413), its syntax (400), its fields and names (422); then the ledger decides.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from functools import partial
from typing import Final

import msgspec
import structlog
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from api.edge import RequestIds, Trace, account_for
from api.endpoint import REFUSED, idempotency_key, refusal_of, refused, reply_to
from api.headers import REPLAYED, Headers
from api.items import check_role
from api.nats_endpoints import Command, Query
from api.problems import AnswerTooLarge, BodyTooLarge, WrongTenant
from api.routes import Call, NatsWay, Reply, Room
from ledger.domain.errors import InternalError, LedgerError, Overloaded
from ledger.records import Outcome

BYTES_MAX: Final = 64 << 20
"""How large the bodies of the requests that are worked on may be together."""
HEADERS_BYTES_MAX: Final = 4_096
"""The room that an answer's headers may take: NATS counts them with the body."""
PRIVATE_PREFIXES: Final = ("$", "scrip.")
"""Where no answer goes. Who asks names the subject of the answer, and Scrip may publish where who
asks may not: what was sent for an answer would be stored as an event, or asked of JetStream."""
METHOD: Final = "NATS"
STATUS: Final = "Scrip-Status"
REQUEST_ID: Final = "X-Request-Id"
ERROR: Final = "Nats-Service-Error"
ERROR_CODE: Final = "Nats-Service-Error-Code"
CRASHED: Final = "request.crashed"
RETRY_AFTER: Final = b"retry-after"
_encoder = msgspec.json.Encoder()
log = structlog.get_logger("scrip.api")


class Request(Struct, eq=False):
    """One request that is being answered."""

    endpoint: Command | Query
    tenant: str
    reply_to: str
    body: bytes
    trace: Trace


class Requests:
    """Answers what comes in over one connection."""

    def __init__(self, room: Room, client: Client, way: NatsWay) -> None:
        """Answer over `client`, which is the way's."""
        self._room = room
        self._client = client
        self._way = way
        self._bytes = 0
        self.in_flight = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._outgoing: deque[tuple[Request, Reply]] = deque()
        self._wake = asyncio.Event()
        self._sent = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._ids = RequestIds()

    # -- in ----------------------------------------------------------------------------------------

    async def take(self, endpoint: Command | Query, message: Msg) -> None:
        """Begin to answer a message. Returns at once, unless answers are not being taken."""
        endpoint.counts.requests += 1
        if not message.reply or message.reply.startswith(PRIVATE_PREFIXES):
            # Nobody would learn what has been done, so nothing is.
            log.warning("request.unanswerable", subject=message.subject, reply=message.reply)
            return
        while self.in_flight >= 2 * self._way.requests_max:
            # Not even refusals are sent as fast as requests come in: NATS keeps the next ones.
            self._sent.clear()
            await self._sent.wait()
        request = self._request(endpoint, message)
        self._idle.clear()
        self.in_flight += 1
        self._bytes += len(request.body)
        if self.in_flight > self._way.requests_max or self._bytes > BYTES_MAX:
            self._refuse(request, Overloaded(waiting=self.in_flight))
        elif isinstance(endpoint, Command) and self._room.keys.knows(request.trace.headers):
            await self._answer(request)
        else:
            task = asyncio.create_task(self._answer(request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _request(self, endpoint: Command | Query, message: Msg) -> Request:
        given = message.headers or {}
        headers = Headers([(name.lower().encode(), text.encode()) for name, text in given.items()])
        trace = Trace(self._ids.of(headers), headers, time.perf_counter(), endpoint.label)
        tenant = self._way.tenant_of(message.subject)
        return Request(endpoint, tenant, message.reply, message.data, trace)

    async def _answer(self, request: Request) -> None:
        """Answer a request, or let the ledger do so. Waits neither for it nor for a known key."""
        endpoint = request.endpoint
        try:
            call = await self._call(request)
            if isinstance(endpoint, Command):
                key = idempotency_key(request.trace.headers)
                self._check_size(request)
                asked = self._room.ledger.begin(endpoint.order(call, key, request.body))
                asked.add_done_callback(partial(self._answered, request))
            else:
                self._check_size(request)
                answer = await endpoint.answer(call, request.body)
                made = isinstance(answer, Reply)
                self._send(request, answer if made else Reply(body=_encoder.encode(answer)))
        except REFUSED as error:
            self._refuse(request, refusal_of(error, request.trace))
        except Exception:
            log.exception(CRASHED, request_id=request.trace.request_id, route=endpoint.label)
            self._refuse(request, InternalError())

    async def _call(self, request: Request) -> Call:
        trace = request.trace
        principal = trace.principal = await self._room.keys.principal(trace.headers)
        if principal.tenant != request.tenant:
            raise WrongTenant
        call = Call(room=self._room, principal=principal, path={}, request_id=trace.request_id)
        check_role(call, request.endpoint.route)
        return call

    def _check_size(self, request: Request) -> None:
        limit = request.endpoint.bytes_max(self._room.deps)
        if len(request.body) > limit:
            raise BodyTooLarge(max_bytes=limit)

    # -- out ---------------------------------------------------------------------------------------

    def _answered(self, request: Request, asked: asyncio.Future[Outcome | LedgerError]) -> None:
        answer = asked.result()
        if isinstance(answer, LedgerError):
            self._refuse(request, answer)
            return
        try:
            reply = reply_to(answer)
        except Exception:
            trace = request.trace
            log.exception(CRASHED, request_id=trace.request_id, route=trace.route)
            self._refuse(request, InternalError())
        else:
            self._send(request, reply)

    def _refuse(self, request: Request, refusal: LedgerError) -> None:
        self._send(request, refused(refusal, request.trace))

    def _send(self, request: Request, reply: Reply) -> None:
        """Answer a request, once."""
        trace = request.trace
        if len(reply.body) > self._client.max_payload - HEADERS_BYTES_MAX:
            limit = self._client.max_payload - HEADERS_BYTES_MAX
            reply = refused(AnswerTooLarge(max_bytes=limit), trace)
        trace.status = reply.status
        trace.replayed = REPLAYED in reply.headers
        seconds = account_for(METHOD, trace, self._room.metrics)
        counts = request.endpoint.counts
        counts.nanoseconds += int(seconds * 1e9)
        if trace.code is not None:
            counts.errors += 1
            counts.last_error = f"{trace.status}:{trace.code}"
        self._outgoing.append((request, reply))
        self._wake.set()

    async def send_answers(self) -> None:
        """Send answers as they come, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._outgoing:
                request, reply = self._outgoing.popleft()
                try:
                    await self._client.publish(
                        request.reply_to, reply.body, headers=_headers(request.trace, reply)
                    )
                except NatsError as error:
                    # Its key finds the answer again.
                    log.warning(
                        "answer.lost", request_id=request.trace.request_id, error=str(error)
                    )
                self._bytes -= len(request.body)
                self.in_flight -= 1
                self._sent.set()
            if self.in_flight == 0:
                self._idle.set()

    async def finish(self) -> None:
        """Wait until all that was begun has been answered."""
        await self._idle.wait()


def _headers(trace: Trace, reply: Reply) -> dict[str, str]:
    headers = {STATUS: str(reply.status), REQUEST_ID: trace.request_id}
    if trace.replayed:
        headers["Idempotent-Replayed"] = "true"
    if trace.code is not None:
        headers["Content-Type"] = reply.content_type.decode()
        headers[ERROR] = trace.code
        headers[ERROR_CODE] = str(reply.status)
        for name, value in reply.headers:
            if name == RETRY_AFTER:
                headers["Retry-After"] = value.decode()
    return headers
