"""The outermost layer: what is the same for every request, whatever becomes of it.

Each gets a request id, safe headers, one line in the log, and a place in the metrics. A bug ends
the request with a 500 that tells nothing, and a log line that tells everything.
"""

from __future__ import annotations

import re
import secrets
import time
from typing import Final

import structlog
from msgspec import Struct
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import problems
from api.auth import Principal
from api.metrics import Metrics
from ledger.domain.errors import InternalError

STATE: Final = "scrip"
UNKNOWN_ROUTE: Final = "-"
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:-]{1,128}")
log = structlog.get_logger("scrip.api")


class Trace(Struct):
    """What is known of a request while it is handled, for the log."""

    request_id: str
    started: float
    route: str = UNKNOWN_ROUTE
    principal: Principal | None = None
    status: int = 0
    code: str | None = None
    replayed: bool = False


def trace_of(scope: Scope) -> Trace:
    """Return the trace of the request that `scope` is of."""
    trace = scope[STATE]
    assert isinstance(trace, Trace)
    return trace


class Edge:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Wrap `app`."""
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        trace = Trace(request_id=_request_id(scope), started=time.perf_counter())
        scope[STATE] = trace
        # Plain header lists, once a request: this is on the hot path.
        common = [
            (b"x-request-id", trace.request_id.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
            (b"referrer-policy", b"no-referrer"),
        ]

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                trace.status = message["status"]
                message["headers"] = [*message["headers"], *common]
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except Exception:
            log.exception("request.crashed", request_id=trace.request_id, route=trace.route)
            if not trace.status:
                trace.code = InternalError.code
                await _send_internal_error(trace.request_id, sending)
        finally:
            self._account_for(scope, trace)

    def _account_for(self, scope: Scope, trace: Trace) -> None:
        seconds = time.perf_counter() - trace.started
        # Whatever was not answered had nobody left to answer to.
        status = trace.status or 499
        method = scope["method"] if scope["method"] in METHODS else "OTHER"
        self.metrics.count(trace.route, method, status, seconds)
        principal = trace.principal
        log.info(
            "request.handled",
            method=method,
            route=trace.route,
            status=status,
            code=trace.code,
            replayed=trace.replayed,
            duration_ms=round(seconds * 1_000, 3),
            request_id=trace.request_id,
            tenant=principal and principal.tenant,
            key=principal and principal.key,
        )


async def _send_internal_error(request_id: str, send: Send) -> None:
    body = problems.encode(InternalError(), request_id)
    headers = [
        (b"content-type", problems.CONTENT_TYPE),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _request_id(scope: Scope) -> str:
    """Return the caller's request id if it is harmless, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            given: str = value.decode()
            return given
    return "req_" + secrets.token_hex(12)
