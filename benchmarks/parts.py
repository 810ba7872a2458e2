"""All parts of a run, in their order."""

from __future__ import annotations

from benchmarks import (
    following,
    in_process,
    lag,
    latency,
    long_account,
    memory,
    over_http,
    over_nats,
    two_processes,
    wide_account,
)
from benchmarks.bench import Asked

PARTS: tuple[Asked, ...] = (
    in_process.PART,
    over_http.PART,
    over_nats.PART,
    latency.PART,
    lag.PART,
    two_processes.PART,
    long_account.PART,
    wide_account.PART,
    following.PART,
    memory.PART,
)
