"""What `nats micro` finds of this process: `$SRV.PING`, `$SRV.INFO` and `$SRV.STATS`.

Of the client library's services only this is used. Its endpoints take one request after the other,
count as answered what has only been begun, and drop what has arrived when they are stopped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from nats.aio.client import Client
from nats.micro.service import (
    EndpointInfo,
    EndpointStats,
    Service,
    ServiceConfig,
    ServiceInfo,
    ServiceStats,
)

from api.nats_endpoints import Endpoint

NAME: Final = "scrip-ledger"
QUEUE: Final = "scrip"
DESCRIPTION: Final = "Credits: reserve, capture, release and spend, as over HTTP"
_VERSION = re.compile(r"\d+\.\d+\.\d+")


class Discovery(Service):
    """This process as a service of NATS, with endpoints that are answered elsewhere."""

    def __init__(self, client: Client, version: str, endpoints: Sequence[Endpoint]) -> None:
        """Tell of `endpoints`. A version that is none to NATS is told as 0.0.0."""
        found = _VERSION.match(version)
        super().__init__(
            client,
            ServiceConfig(
                name=NAME,
                version=found.group() if found else "0.0.0",
                description=DESCRIPTION,
                queue_group=QUEUE,
            ),
        )
        self._told = endpoints

    def info(self) -> ServiceInfo:
        """Return what can be asked for."""
        info = super().info()
        info.endpoints = [
            EndpointInfo(
                name=endpoint.name,
                subject=endpoint.subject,
                queue_group=QUEUE,
                metadata={
                    "summary": endpoint.route.summary,
                    "http": f"{endpoint.route.method} {endpoint.route.path}",
                },
            )
            for endpoint in self._told
        ]
        return info

    def stats(self) -> ServiceStats:
        """Return what has been asked for. The time of a request ends with its answer."""
        stats = super().stats()
        stats.endpoints = [
            EndpointStats(
                name=endpoint.name,
                subject=endpoint.subject,
                queue_group=QUEUE,
                num_requests=endpoint.counts.requests,
                num_errors=endpoint.counts.errors,
                processing_time=endpoint.counts.nanoseconds,
                average_processing_time=endpoint.counts.nanoseconds
                // max(1, endpoint.counts.requests),
                last_error=endpoint.counts.last_error,
            )
            for endpoint in self._told
        ]
        return stats
