"""The outermost layer: what is the same for every request, whatever becomes of it.

Each gets a request id, safe headers, one line in the log, and a place in the metrics. A bug ends
the request with a 500 that tells nothing, and a log line that tells everything.
"""

from __future__ import annotations

import itertools
import re
import secrets
import time
from typing import Final

import structlog
from msgspec import Struct
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import problems
from api.auth import Principal
from api.headers import SAFE, Headers
from api.metrics import Metrics
from api.paths import Paths
from ledger.domain.errors import InternalError

STATE: Final = "scrip"
UNKNOWN_ROUTE: Final = "-"
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:-]{1,128}")
log = structlog.get_logger("scrip.api")


class Trace(Struct):
    """What is known of a request while it is handled, for the answer and for the log."""

    request_id: str
    headers: Headers
    started: float
    route: str = UNKNOWN_ROUTE
    principal: Principal | None = None
    status: int = 0
    code: str | None = None
    replayed: bool = False


class RequestIds:
    """Ids for requests that bring none, or none that is harmless."""

    def __init__(self) -> None:
        """Begin a series: as unique as chance alone, and without asking the kernel for each."""
        self._prefix = "req_" + secrets.token_hex(6)
        self._numbers = itertools.count(1)

    def of(self, headers: Headers) -> str:
        """Return the caller's request id if it is harmless, else a new one."""
        for value in headers.values(b"x-request-id"):
            if _REQUEST_ID.fullmatch(value):
                return value.decode()
        return f"{self._prefix}{next(self._numbers):012x}"


def trace_of(scope: Scope) -> Trace:
    """Return the trace of the request that `scope` is of."""
    trace: Trace = scope[STATE]
    return trace


class Edge:
    """Wraps the application, and calls its routes directly."""

    def __init__(self, app: ASGIApp, paths: Paths, metrics: Metrics) -> None:
        """Call what stands in `paths`; `app` answers wherever nothing of ours stands."""
        self.app = app
        self.paths = paths
        self.metrics = metrics
        self._ids = RequestIds()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope["headers"])
        trace = Trace(self._ids.of(headers), headers, time.perf_counter())
        scope[STATE] = trace
        found = self.paths.find(scope["path"])
        try:
            if found is None:
                await self.app(scope, receive, _completing(trace, send))
            else:
                app, scope["path_params"] = found
                await app(scope, receive, send)
        except Exception:
            log.exception("request.crashed", request_id=trace.request_id, route=trace.route)
            if not trace.status:
                await _send_internal_error(trace, send)
        finally:
            method = scope["method"]
            account_for(method if method in METHODS else "OTHER", trace, self.metrics)


def account_for(method: str, trace: Trace, metrics: Metrics) -> float:
    """Count a request that is over, and log its line; return how many seconds it took."""
    seconds = time.perf_counter() - trace.started
    # Whatever was not answered had nobody left to answer to.
    status = trace.status or 499
    metrics.count(trace.route, method, status, seconds)
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
    return seconds


def common_headers(trace: Trace) -> tuple[tuple[bytes, bytes], ...]:
    """Return what every answer has."""
    return ((b"x-request-id", trace.request_id.encode()), *SAFE)


def _completing(trace: Trace, send: Send) -> Send:
    """Return a `send` that adds the common headers to an answer that is not made here."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            trace.status = message["status"]
            message["headers"] = [*message["headers"], *common_headers(trace)]
        await send(message)

    return sending


async def _send_internal_error(trace: Trace, send: Send) -> None:
    trace.code = InternalError.code
    trace.status = InternalError.status
    body = problems.encode(InternalError(), trace.request_id)
    headers = [
        (b"content-type", problems.CONTENT_TYPE),
        (b"content-length", str(len(body)).encode()),
        *common_headers(trace),
    ]
    await send({"type": "http.response.start", "status": trace.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
