"""How a route is answered, and in which order a request is checked: the answer is always one.

The order: path and method (404, 405), key and role (401, 403), names in the path and query
parameters (422), Idempotency-Key (400), encoding, type and size of the body (415, 413), its syntax
(400), its fields (422); then the ledger decides.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from starlette.types import Receive, Scope, Send

from api.auth import NOBODY
from api.decoding import Decoder, decode_query
from api.edge import trace_of
from api.fields import NAME_RULE
from api.problems import (
    BodyTooLarge,
    Forbidden,
    IdempotencyKeyRequired,
    MethodNotAllowed,
    UnsupportedMediaType,
    invalid,
)
from api.receipts import receipt
from api.routes import Ask, Call, Nothing, Read, Reply, Room, Route, Write
from ledger.domain.values import is_name
from ledger.records import Order, Outcome

_KEY = re.compile(rb"[!-~]{1,255}")
NO_STORE: Final = (b"cache-control", b"no-store")
REVALIDATE: Final = (b"cache-control", b"private, no-cache")
REPLAYED: Final = (b"idempotent-replayed", b"true")
JSON_TYPES: Final = frozenset({b"application/json", b"application/json;charset=utf-8"})
_encoder = msgspec.json.Encoder()
Headers = Iterable[tuple[bytes, bytes]]


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
        if tag in _values(scope["headers"], b"if-none-match"):
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
        decode_query(scope["query_string"], Nothing)
        key = idempotency_key(scope["headers"])
        body = await read_body(scope, receive, call.room.deps.body_bytes_max)
        if body is None:
            return None
        asked = self._decoder.decode(body or b"{}")
        order = Order(
            tenant=call.tenant,
            account=call.path.get("account"),
            command=asked.command(call.path.get(self.route.target or "")),
            key=key,
            by=call.by,
            reason=asked.why,
        )
        outcome = await call.room.ledger.command(order)
        trace_of(scope).replayed = outcome.replayed
        return reply_to(outcome)


class AskEndpoint:
    """Answers an `Ask`."""

    def __init__(self, route: Ask) -> None:
        """Answer `route`."""
        self.route = route
        self._decoder: Decoder[Any] = Decoder(route.body, check_texts=route.description is None)

    async def answer(self, call: Call, scope: Scope, receive: Receive) -> Reply | None:
        """Return the answer, or None if the caller went away before the request was complete."""
        decode_query(scope["query_string"], Nothing)
        deps = call.room.deps
        limit = deps.batch_bytes_max if self.route.large else deps.body_bytes_max
        body = await read_body(scope, receive, limit)
        if body is None:
            return None
        answer = await self.route.handle(call, self._decoder.decode(body))
        if isinstance(answer, Reply):
            return answer
        return Reply(body=_encoder.encode(answer), headers=(NO_STORE,))


class Resource:
    """All routes of one path, as an ASGI application."""

    def __init__(self, path: str, routes: Sequence[Route], room: Room) -> None:
        """Answer `routes`, which differ in their methods."""
        self.path = path
        self.room = room
        self._routes = {route.method: (route, _endpoint(route)) for route in routes}
        self._allow = ", ".join(sorted(self._routes))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Refusals are raised: one place makes problems of them."""
        trace = trace_of(scope)
        trace.route = self.path
        if scope["method"] not in self._routes:
            raise MethodNotAllowed(allow=self._allow)
        route, endpoint = self._routes[scope["method"]]
        call = await self._call(route, scope)
        reply = await endpoint.answer(call, scope, receive)
        if reply is not None:
            await send_reply(send, reply)

    async def _call(self, route: Route, scope: Scope) -> Call:
        trace = trace_of(scope)
        path: dict[str, str] = scope["path_params"]
        if route.roles is not None:
            trace.principal = await self.room.keys.principal(scope["headers"])
            if trace.principal.role not in route.roles:
                raise Forbidden(role=trace.principal.role, needed=sorted(route.roles))
            check_names(path)
        principal = trace.principal or NOBODY
        return Call(room=self.room, principal=principal, path=path, request_id=trace.request_id)


def _endpoint(route: Route) -> ReadEndpoint | WriteEndpoint | AskEndpoint:
    match route:
        case Read():
            return ReadEndpoint(route)
        case Write():
            return WriteEndpoint(route)
        case Ask():
            return AskEndpoint(route)
        case _:
            raise AssertionError(f"{route.name} is no kind of route")


def reply_to(outcome: Outcome) -> Reply:
    """Return the answer to a command, from the event it has caused, now or long ago."""
    assert outcome.recorded is not None, "a command that is asked for over HTTP makes an event"
    made = receipt(outcome.recorded)
    headers = [NO_STORE]
    if made.location is not None:
        headers.append((b"location", made.location.encode()))
    if outcome.replayed:
        headers.append(REPLAYED)
    return Reply(status=made.status, body=made.body, headers=tuple(headers))


def check_names(path: dict[str, str]) -> None:
    """Refuse names that no thing can have. A deduction's may end in `~` and a number."""
    for part, name in path.items():
        stem, mark, number = name.partition("~")
        of_capture = part == "deduction" and mark and number.isascii() and number.isdigit()
        if not is_name(stem if of_capture else name):
            raise invalid(part, "invalid", NAME_RULE)


def idempotency_key(headers: Headers) -> str:
    """Return the request's idempotency key: one header of 1 to 255 visible ASCII characters."""
    values = _values(headers, b"idempotency-key")
    if len(values) != 1:
        raise IdempotencyKeyRequired
    key: bytes = values[0]
    if _KEY.fullmatch(key) is None:
        raise IdempotencyKeyRequired
    return key.decode("ascii")


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes | None:
    """Return the whole body, or None if the caller went away.

    Raises UnsupportedMediaType, or BodyTooLarge as soon as that is certain.
    """
    headers = scope["headers"]
    if any(value.lower() != b"identity" for value in _values(headers, b"content-encoding")):
        raise UnsupportedMediaType
    length = b"".join(_values(headers, b"content-length"))
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
    if size and not _is_json(headers):
        raise UnsupportedMediaType
    return b"".join(chunks)


def _is_json(headers: Headers) -> bool:
    values = _values(headers, b"content-type")
    if len(values) != 1:
        return False
    return values[0].lower().replace(b" ", b"").replace(b'"', b"") in JSON_TYPES


def _values(headers: Headers, name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]


async def send_reply(send: Send, reply: Reply) -> None:
    """Send an answer whole."""
    headers = [(b"content-length", str(len(reply.body)).encode()), *reply.headers]
    if reply.body:
        headers.append((b"content-type", reply.content_type))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
