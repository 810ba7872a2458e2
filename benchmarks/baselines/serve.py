"""Serve a baseline by the very server that serves Scrip, tuned as Scrip is.

`python -m benchmarks.baselines.serve naive|no-ledger`. DATABASE_URL and SCRIP_HTTP_PORT say where,
as for `scrip serve api`; BASELINE_TOKEN is what callers of the naive one must know.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from contextlib import closing

import uvloop

from benchmarks.baselines import naive_http
from benchmarks.baselines.no_ledger import Unwritten
from ledger.domain.events import CreditsReserved, ReservationCaptured
from ledger.records import Recorded
from ledger.store import Store
from scrip.logging import configure_logging
from scrip.processes import GARBAGE_THRESHOLDS, application, serve_app, stopping
from scrip.settings import Settings, read_settings

EVENTS_MAX = 100_000
TOKEN = "BASELINE_TOKEN"  # noqa: S105 - the name of a variable


async def naive(settings: Settings) -> None:
    """Serve what a team writes first."""
    token = os.environ[TOKEN]
    app = naive_http.create_app(settings.database_url.get_secret_value(), token)
    async with stopping() as stop:
        await serve_app(app, settings.http_host, settings.http_port, stop, lifespan="on")


async def no_ledger(settings: Settings) -> None:
    """Serve Scrip's API without a ledger. There must be a reservation and a capture to show."""
    with closing(Store.open(settings.database_url.get_secret_value())) as store:
        reserved, captured = (
            first_of(store, kind) for kind in (CreditsReserved, ReservationCaptured)
        )
        async with Unwritten(store, reserved, captured).running() as writer, stopping() as stop:
            app = application(settings, writer)
            await serve_app(app, settings.http_host, settings.http_port, stop, lifespan="on")


def first_of(store: Store, kind: type[CreditsReserved | ReservationCaptured]) -> Recorded:
    """Return the first event of a kind among the newest of a ledger."""
    newest = store.max_position()
    for recorded in store.events_after(max(0, newest - EVENTS_MAX), EVENTS_MAX):
        if isinstance(recorded.event, kind):
            return recorded
    raise LookupError(f"there is no {kind.__name__} in the ledger")


SERVED = {"naive": naive, "no-ledger": no_ledger}

if __name__ == "__main__":
    settings = read_settings()
    configure_logging(settings.log_level, settings.log_format)
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(SERVED[sys.argv[1]](settings))
