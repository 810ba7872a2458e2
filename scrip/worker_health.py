"""What a worker tells about itself over HTTP: whether it lives, is ready, its metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

import msgspec
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Receive, Scope, Send

from api.metrics import CONTENT_TYPE, Metrics
from consumers.health import Health
from ledger.writer import Writer
from projections.runner import Runner
from projections.status import ProjectionStatus

OK, NOT_FOUND, NOT_READY = 200, 404, 503
JSON: Final = b"application/json"
TEXT: Final = b"text/plain; charset=utf-8"


class _Collector(Collector):
    """The projections and the parts of a worker, as Prometheus reads them."""

    def __init__(self, runner: Runner, health: Health) -> None:
        self._runner = runner
        self._health = health

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "scrip_projection_up", "Whether a projection is being followed.", labels=["name"]
        )
        events = GaugeMetricFamily(
            "scrip_projection_lag_events", "Positions it is behind.", labels=["name"]
        )
        seconds = GaugeMetricFamily(
            "scrip_projection_lag_seconds", "Age of the oldest event it lacks.", labels=["name"]
        )
        for one in self._runner.status():
            up.add_metric([one.name], float(one.state != "stopped"))
            events.add_metric([one.name], one.lag_events)
            seconds.add_metric([one.name], one.lag_seconds)
        parts = GaugeMetricFamily(
            "scrip_worker_part_up", "Whether a part does its work.", labels=["part"]
        )
        for name, part in self._health.parts.items():
            parts.add_metric([name], float(part.state in {"running", "standby"}))
        return iter((up, events, seconds, parts))


def worker_health(writer: Writer, runner: Runner, health: Health) -> ASGIApp:
    """Return an application that answers /health/live, /health/ready and /metrics."""
    metrics = Metrics(writer)
    metrics.registry.register(_Collector(runner, health))

    async def answer(path: str) -> tuple[int, bytes, bytes]:
        match path:
            case "/health/live":
                return OK, JSON, b'{"status":"live"}'
            case "/health/ready":
                status = await asyncio.to_thread(runner.status)
                ready = health.ok and not any(one.state == "stopped" for one in status)
                body = msgspec.json.encode(
                    {
                        "status": "ready" if ready else "not_ready",
                        "parts": health.report(),
                        "projections": [_projection(one) for one in status],
                    }
                )
                return OK if ready else NOT_READY, JSON, body
            case "/metrics":
                return OK, CONTENT_TYPE, await asyncio.to_thread(metrics.text)
            case _:
                return NOT_FOUND, TEXT, b"Try /health/live, /health/ready or /metrics.\n"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        assert scope["type"] == "http"
        status, kind, body = await answer(scope["path"])
        headers = [
            (b"content-type", kind),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def _projection(one: ProjectionStatus) -> dict[str, object]:
    return {
        "name": one.name,
        "state": one.state,
        "position": str(one.position),
        "lag_events": one.lag_events,
        "lag_seconds": round(one.lag_seconds, 3),
        "error": None if one.error is None else str(one.error),
    }
