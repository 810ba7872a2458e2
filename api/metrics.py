"""What Prometheus is told: requests, the writer, how far the projections are behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ledger.writer import Writer

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
COUNTERS: Final = {
    "batches": "Transactions of the writer.",
    "commands": "Commands answered.",
    "events": "Events appended.",
    "refusals": "Commands refused.",
    "replays": "Commands that had been done before.",
    "conflicts": "Accounts that another process had written first.",
    "failures": "Batches that the store did not take.",
    "snapshots": "Snapshots saved.",
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


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self, writer: Writer) -> None:
        """Tell of `writer` and of requests."""
        self.registry = CollectorRegistry()
        self.registry.register(_WriterCollector(writer))
        self._requests = Counter(
            "scrip_http_requests",
            "Requests answered.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "scrip_http_request_seconds",
            "How long requests took.",
            ("route", "method"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one request. `route` is the pattern of the path, never the path itself."""
        known = self._known.get((route, method, status))
        if known is None:
            # Finding them by their labels costs more than counting; there are only so many.
            known = (
                self._requests.labels(route, method, str(status)),
                self._seconds.labels(route, method),
            )
            self._known[route, method, status] = known
        requests, histogram = known
        requests.inc()
        histogram.observe(seconds)

    def text(self) -> bytes:
        """Return all metrics as Prometheus reads them."""
        return generate_latest(self.registry)
