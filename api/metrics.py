"""What Prometheus is told: requests, the writer, how far the projections are behind."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

import msgspec
from msgspec import Struct
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from ledger.writer import Writer

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BOUNDS: Final = (*(str(bound) for bound in SECONDS), "+Inf")
COUNTERS: Final = {
    "batches": "Transactions of the writer.",
    "commands": "Commands answered.",
    "events": "Events appended.",
    "refusals": "Commands refused.",
    "replays": "Commands that had been done before.",
    "conflicts": "Accounts that another process had written first.",
    "failures": "Batches that the store did not take.",
    "snapshots": "Snapshots saved.",
    "overlapped": "Batches that were decided while the one before them committed.",
}


class _WriterCollector(Collector):
    """Reads the writer's counters when asked, so that counting costs it nothing."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def collect(self) -> Iterator[Metric]:
        stats = self._writer.stats
        for name, about in COUNTERS.items():
            yield CounterMetricFamily(f"scrip_writer_{name}", about, value=getattr(stats, name))
        yield GaugeMetricFamily(
            "scrip_writer_queue_length", "Commands that wait.", value=self._writer.queue_length
        )
        yield GaugeMetricFamily(
            "scrip_writer_last_batch_seconds",
            "How long the newest batch took.",
            value=stats.last_batch_ms / 1_000,
        )
        yield GaugeMetricFamily(
            "scrip_writer_cached_streams",
            "Accounts and catalogs held in memory.",
            value=stats.cached_streams,
        )


class _Counted(Struct):
    """What is known of the requests of one route and method: by status, and by how long."""

    statuses: dict[int, int] = {}
    buckets: list[int] = msgspec.field(default_factory=lambda: [0] * (len(SECONDS) + 1))
    seconds: float = 0.0


class Metrics(Collector):
    """The metrics of one process, in a registry of their own. One thread counts."""

    def __init__(self, writer: Writer) -> None:
        """Tell of `writer` and of requests."""
        self.registry = CollectorRegistry()
        self.registry.register(_WriterCollector(writer))
        self.registry.register(self)
        # Plain numbers, made metrics when asked for: counting happens ten thousand times as often.
        self._counted: dict[tuple[str, str], _Counted] = {}

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one request. `route` is the pattern of the path, never the path itself."""
        counted = self._counted.get((route, method))
        if counted is None:
            counted = self._counted[route, method] = _Counted()
        counted.statuses[status] = counted.statuses.get(status, 0) + 1
        counted.buckets[bisect_left(SECONDS, seconds)] += 1
        counted.seconds += seconds

    def collect(self) -> Iterator[Metric]:
        """Yield what was counted, for Prometheus."""
        requests = CounterMetricFamily(
            "scrip_http_requests", "Requests answered.", labels=("route", "method", "status")
        )
        durations = HistogramMetricFamily(
            "scrip_http_request_seconds", "How long requests took.", labels=("route", "method")
        )
        for (route, method), counted in self._counted.items():
            for status, count in counted.statuses.items():
                requests.add_metric((route, method, str(status)), count)
            buckets = list(zip(BOUNDS, accumulate(counted.buckets), strict=True))
            durations.add_metric((route, method), buckets, counted.seconds)
        yield requests
        yield durations

    def text(self) -> bytes:
        """Return all metrics as Prometheus reads them."""
        return generate_latest(self.registry)
