"""What `scrip demo` shows: a small product with prices, accounts, credits, and a busy hour."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final

from rich.console import Console

from scrip.dev import Running, until_stopped
from scrip.replay.caller import Caller
from scrip.replay.funding import ensure_rate_card
from scrip.replay.plan import FEATURE, make_plan
from scrip.replay.report import Report, show
from scrip.replay.running import Replay, Speed
from scrip.replay.target import Connected, Target
from scrip.replay.terminal import Bars
from scrip.traces import synthetic_trace

CONNECTIONS_MAX: Final = 64
ACCOUNTS: Final = (
    *("ada", "alan", "barbara", "donald", "edsger", "frances", "grace", "hedy", "jean", "joan"),
    *(
        "john",
        "katherine",
        "ken",
        "lynn",
        "margaret",
        "niklaus",
        "radia",
        "shafi",
        "tim",
        "yukihiro",
    ),
)
IMAGE_FEATURE: Final = "ai_image_generation"
FEATURES: Final[Mapping[str, Mapping[str, Any]]] = {
    FEATURE: {"name": "Chat", "unit": "call"},
    IMAGE_FEATURE: {"name": "Images", "unit": "image", "unit_price": "4"},
}


async def demonstrate(running: Running, console: Console, *, requests: int) -> Report:
    """Fill a running Scrip with a demo, replay a busy hour, and check every sum of it."""
    target = Target(
        base_url=running.base_url,
        nats_url=running.nats_url,
        tenant=running.tenant,
        service_key=running.keys.service,
        admin_key=running.keys.admin,
    )
    async with Connected(target, CONNECTIONS_MAX) as to:
        rates = await ensure_rate_card(to.admin, FEATURE)
        await _put_features(to.admin)
        plan = make_plan(
            synthetic_trace(requests), name="demo", models=rates, accounts=ACCOUNTS, prefix=None
        )
        console.print(
            f"{requests:,} requests of {len(ACCOUNTS)} accounts: reserve over HTTP, then the"
            " generation's event over NATS, then the capture"
        )
        with Bars(console, len(plan.jobs)) as bars:
            replay = Replay(
                plan,
                service=to.service,
                admin=to.admin,
                sender=to.sender,
                speed=Speed(),
                progress=bars,
                concurrency=CONNECTIONS_MAX,
            )
            report = await replay.run(rates)
    show(report, console)
    return report


async def _put_features(admin: Caller) -> None:
    for feature, body in FEATURES.items():
        path = f"/v1/catalog/features/{feature}"
        await admin.change("PUT", path, f"demo:feature:{feature}", body)


async def serve_on(running: Running, where_logs_are: str) -> int:
    """Say what to try, and serve until Ctrl-C."""
    sys.stdout.write(f"{what_to_try(running)}\nLogs: {where_logs_are}. Ctrl-C stops.\n")
    sys.stdout.flush()
    return await until_stopped(running)


def what_to_try(running: Running) -> str:
    """Return the address, the keys, and two requests that work when they are pasted."""
    account = f"{running.base_url}/v1/accounts/{ACCOUNTS[0]}"
    bearer = f"-H 'Authorization: Bearer {running.keys.service}'"
    body = '{"feature": "ai_image_generation", "quantity": "1"}'
    return f"""
Scrip serves at {running.base_url}

  service key  {running.keys.service}
  admin key    {running.keys.admin}
  reader key   {running.keys.reader}

The balance of an account, and 4 credits set aside for an image:

curl -s {account}/balance {bearer}

curl -s {account}/reservations {bearer} -H 'Idempotency-Key: try-1' \
-H 'Content-Type: application/json' -d '{body}'
"""
