"""How a route is answered, and in which order a request is checked: the answer is always one.

The order: path and method (404, 405), key and role (401, 403), names in the path and query
parameters (422), Idempotency-Key (400), encoding, type and size of the body (415, 413), its syntax
(400), its fields (422); then the ledger decides.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog
from psycopg import OperationalError
from psycopg.errors import UndefinedTable
from psycopg_pool import PoolTimeout
from starlette.types import Receive, Scope, Send

from api import problems
from api.auth import NOBODY
from api.changes import answer_once
from api.decoding import Decoder, decode_query
from api.edge import Trace, common_headers, trace_of
from api.fields import NAME_RULE
from api.headers import NO_STORE, REPLAYED, REVALIDATE, Headers
from api.problems import (
    BodyTooLarge,
    Forbidden,
    IdempotencyKeyRequired,
    MethodNotAllowed,
    ProjectionBehind,
    UnsupportedMediaType,
    invalid,
)
from api.receipts import receipt
from api.routes import Ask, Call, Change, Hook, Nothing, Read, Reply, Room, Route, Write
from ledger.domain.errors import LedgerError, StoreUnavailable
from ledger.domain.values import is_name
from ledger.records import Order, Outcome

MADE: Final = {
    "deduction": re.compile(r"[^~]+~[0-9]+"),
    "grant": re.compile(r"[^~]+(~[a-z0-9]{1,12}){1,2}"),
}
"""How names go on that Scrip makes of others: the deductions of a capture, the clock's grants."""
_KEY = re.compile(rb"[!-~]{1,255}")
JSON_TYPES: Final = frozenset({b"application/json", b"application/json;charset=utf-8"})
REFUSED: Final = (LedgerError, OperationalError, PoolTimeout, UndefinedTable)
"""What a request may fail of without there being a bug."""
_encoder = msgspec.json.Encoder()
log = structlog.get_logger("scrip.api")


class ReadEndpoint:
    """Answers a `Read`."""

    def __init__(self, route: Read) -> None:
        """Answer `route`."""
        self.route = route

    async def answer(self, call: Call, scope: Scope, receive: Receive) -> Reply | None:
        """Return the answer. Raises the LedgerError that refuses it."""
        del receive
        query = decode_query(scope["query_string"], self.route.query)
        answer = await self.route.handle(call, query)
        if isinstance(answer, Reply):
            return answer
        body = _encoder.encode(answer)
        if self.route.money:
            return Reply(body=body, headers=(NO_STORE,))
        tag = b'"' + hashlib.sha256(body).hexdigest()[:32].encode() + b'"'
        headers = ((b"etag", tag), REVALIDATE)
        if tag in trace_of(scope).headers.values(b"if-none-match"):
            return Reply(status=304, headers=headers)
        return Reply(body=body, headers=headers)


class WriteEndpoint:
    """Answers a `Write`."""

    def __init__(self, route: Write) -> None:
        """Answer `route`."""
        self.route = route
        self._decoder: Decoder[Any] = Decoder(route.body)

    async def answer(self, call: Call, scope: Scope, receive: Receive) -> Reply | None:
        """Return the answer, or None if the caller went away before the request was complete."""
        check_no_query(scope)
        trace = trace_of(scope)
        key = idempotency_key(trace.headers)
        body = await read_body(trace.headers, receive, call.room.deps.body_bytes_max)
        if body is None:
            return None
        if self.route.load is not None:
            await asyncio.to_thread(self.route.load, body)
        order = self.order(call.tenant, call.by, call.path, key, body)
        outcome = await call.room.ledger.command(order)
        trace.replayed = outcome.replayed
        return reply_to(outcome)

    def order(self, tenant: str, by: str, path: Mapping[str, str], key: str, body: bytes) -> Order:
        """Return what the ledger is asked, whichever way the request came.

        `path` holds the names that the path of the route would. Raises the LedgerError that refuses
        the body.
        """
        asked = self._decoder.decode(body or b"{}")
        target = self.route.target
        return Order(
            tenant=tenant,
            account=path.get("account"),
            command=asked.command(None if target is None else path[target]),
            key=key,
            by=by,
            reason=asked.why,
        )


class AskEndpoint:
    """Answers an `Ask`."""

    def __init__(self, route: Ask) -> None:
        """Answer `route`."""
        self.route = route
        self._decoder: Decoder[Any] = Decoder(route.body, check_texts=route.description is None)

    async def answer(self, call: Call, scope: Scope, receive: Receive) -> Reply | None:
        """Return the answer, or None if the caller went away before the request was complete."""
        check_no_query(scope)
        deps = call.room.deps
        limit = deps.batch_bytes_max if self.route.large else deps.body_bytes_max
        body = await read_body(trace_of(scope).headers, receive, limit)
        if body is None:
            return None
        answer = await self.route.handle(call, self._decoder.decode(body))
        if isinstance(answer, Reply):
            return answer
        return Reply(body=_encoder.encode(answer), headers=(NO_STORE,))


class ChangeEndpoint:
    """Answers a `Change`."""

    def __init__(self, route: Change) -> None:
        """Answer `route`."""
        self.route = route
        self._decoder: Decoder[Any] = Decoder(route.body)

    async def answer(self, call: Call, scope: Scope, receive: Receive) -> Reply | None:
        """Return the answer, or None if the caller went away before the request was complete."""
        check_no_query(scope)
        trace = trace_of(scope)
        key = idempotency_key(trace.headers)
        body = await read_body(trace.headers, receive, call.room.deps.body_bytes_max)
        if body is None:
            return None
        asked = self._decoder.decode(body or b"{}")
        reply, trace.replayed = await answer_once(self.route, call, key, body or b"{}", asked)
        return reply


class HookEndpoint:
    """Answers a `Hook`."""

    def __init__(self, route: Hook) -> None:
        """Answer `route`."""
        self.route = route

    async def answer(self, call: Call, scope: Scope, receive: Receive) -> Reply | None:
        """Return the answer, or None if the caller went away before the request was complete."""
        check_no_query(scope)
        headers = trace_of(scope).headers
        answer = await self.route.handle(
            call, scope["headers"], lambda limit: read_bytes(headers, receive, limit)
        )
        return None if answer is None else Reply(body=_encoder.encode(answer), headers=(NO_STORE,))


class Resource:
    """All routes of one path, as an ASGI application."""

    def __init__(self, path: str, routes: Sequence[Route], room: Room) -> None:
        """Answer `routes`, which differ in their methods."""
        self.path = path
        self.room = room
        self._endpoints = {route.method: _endpoint(route) for route in routes}
        self._allow = ", ".join(sorted(self._endpoints))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; a refusal is an answer. Any other error is a bug and goes on."""
        trace = trace_of(scope)
        trace.route = self.path
        try:
            reply = await self._answer(trace, scope, receive)
        except REFUSED as error:
            reply = refused(refusal_of(error, trace), trace)
        if reply is not None:
            await send_reply(send, reply, trace)

    async def _answer(self, trace: Trace, scope: Scope, receive: Receive) -> Reply | None:
        endpoint = self._endpoints.get(scope["method"])
        if endpoint is None:
            raise MethodNotAllowed(allow=self._allow)
        path: dict[str, str] = scope["path_params"]
        principal, roles = NOBODY, endpoint.route.roles
        if roles is not None:
            principal = trace.principal = await self.room.keys.principal(trace.headers)
            if principal.role not in roles:
                raise Forbidden(role=principal.role, needed=sorted(roles))
            check_names(path)
        call = Call(room=self.room, principal=principal, path=path, request_id=trace.request_id)
        return await endpoint.answer(call, scope, receive)


def _endpoint(
    route: Route,
) -> ReadEndpoint | WriteEndpoint | ChangeEndpoint | AskEndpoint | HookEndpoint:
    match route:
        case Read():
            return ReadEndpoint(route)
        case Write():
            return WriteEndpoint(route)
        case Change():
            return ChangeEndpoint(route)
        case Ask():
            return AskEndpoint(route)
        case Hook():
            return HookEndpoint(route)
        case _:
            raise AssertionError(f"{route.name} is no kind of route")


def reply_to(outcome: Outcome) -> Reply:
    """Return the answer to a command, from the event it has caused, now or long ago."""
    assert outcome.recorded is not None, "a command that is asked for over HTTP makes an event"
    made = receipt(outcome.recorded)
    headers = [NO_STORE]
    if (location := made.location) is not None:
        headers.append((b"location", location.encode()))
    if outcome.replayed:
        headers.append(REPLAYED)
    return Reply(status=made.status, body=made.body, headers=tuple(headers))


def check_names(path: dict[str, str]) -> None:
    """Refuse names that no thing can have. What Scrip names itself may go on with a `~`."""
    for part, name in path.items():
        stem, _, _ = name.partition("~")
        made = MADE.get(part)
        if not is_name(stem if made is not None and made.fullmatch(name) else name):
            raise invalid(part, "invalid", NAME_RULE)


def check_no_query(scope: Scope) -> None:
    """Refuse query parameters, by name."""
    if scope["query_string"]:
        decode_query(scope["query_string"], Nothing)


def idempotency_key(headers: Headers) -> str:
    """Return the request's idempotency key: one header of 1 to 255 visible ASCII characters."""
    key = headers.only(b"idempotency-key")
    if key is None or _KEY.fullmatch(key) is None:
        raise IdempotencyKeyRequired
    return key.decode("ascii")


async def read_body(headers: Headers, receive: Receive, limit: int) -> bytes | None:
    """Return the whole body, or None if the caller went away.

    Raises UnsupportedMediaType, or BodyTooLarge as soon as that is certain.
    """
    if any(value.lower() != b"identity" for value in headers.values(b"content-encoding")):
        raise UnsupportedMediaType
    body = await read_bytes(headers, receive, limit)
    if body and not _is_json(headers):
        raise UnsupportedMediaType
    return body


async def read_bytes(headers: Headers, receive: Receive, limit: int) -> bytes | None:
    """Return the whole body as it is, or None if the caller went away.

    Raises BodyTooLarge as soon as that is certain.
    """
    length = b"".join(headers.values(b"content-length"))
    if length.isdigit() and int(length) > limit:
        raise BodyTooLarge(max_bytes=limit)
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunk = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(chunk)
        if size > limit:
            raise BodyTooLarge(max_bytes=limit)
        chunks.append(chunk)
    return b"".join(chunks)


def _is_json(headers: Headers) -> bool:
    kind = headers.only(b"content-type")
    if kind is None:
        return False
    return kind in JSON_TYPES or kind.lower().replace(b" ", b"").replace(b'"', b"") in JSON_TYPES


def refusal_of(error: Exception, trace: Trace) -> LedgerError:
    """Return how one of `REFUSED` is told."""
    if isinstance(error, LedgerError):
        return error
    if isinstance(error, UndefinedTable):
        # The worker has not begun, which makes the tables that are read.
        return ProjectionBehind()
    log.warning("store.unavailable", error=str(error), request_id=trace.request_id)
    return StoreUnavailable()


def refused(error: LedgerError, trace: Trace) -> Reply:
    """Return a refusal as an answer, and note its code for the log."""
    trace.code = error.code
    return Reply(
        status=error.status,
        body=problems.encode(error, trace.request_id),
        content_type=problems.CONTENT_TYPE,
        headers=(NO_STORE, *problems.headers(error)),
    )


async def send_reply(send: Send, reply: Reply, trace: Trace) -> None:
    """Send an answer whole."""
    body = reply.body
    headers = [
        (b"content-length", b"%d" % len(body)),
        *reply.headers,
        *common_headers(trace),
    ]
    if body:
        headers.append((b"content-type", reply.content_type))
    trace.status = reply.status
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
