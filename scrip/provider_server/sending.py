"""Sends webhooks, one after the other, from a thread of its own; what is refused is sent again."""

from __future__ import annotations

import hashlib
import hmac
import queue
import threading
import time
from typing import Final, Self

import httpx
import structlog
from msgspec import Struct

ATTEMPTS_MAX: Final = 8
PAUSE_SECONDS: Final = 0.25
TIMEOUT_SECONDS: Final = 10.0

log = structlog.get_logger(__name__)


class Delivery(Struct, frozen=True, kw_only=True):
    """A webhook to be sent. Signed when it is sent, if it is one of Stripe's: `secret` is there."""

    url: str
    body: bytes
    secret: str | None = None
    headers: dict[str, str] = {}
    at: int | None = None
    """When it says it was signed; None: when it is sent."""


class Sender:
    """Sends what it is given, in its order."""

    def __init__(self) -> None:
        """Send nothing before `with`."""
        self._queue: queue.Queue[Delivery | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
        self._closing = threading.Event()
        self.statuses: list[int | None] = []
        """What each attempt was answered with; None: not at all."""

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give up what is not sent yet."""
        self._closing.set()
        self._queue.put(None)
        self._thread.join()

    def send(self, delivery: Delivery) -> None:
        """Send it when its turn comes."""
        self._queue.put(delivery)

    def wait(self) -> None:
        """Return once all is sent, or given up."""
        self._queue.join()

    def _run(self) -> None:
        with httpx.Client(timeout=TIMEOUT_SECONDS, trust_env=False) as client:
            while (delivery := self._queue.get()) is not None:
                self._deliver(client, delivery)
                self._queue.task_done()
        self._queue.task_done()

    def _deliver(self, client: httpx.Client, delivery: Delivery) -> None:
        for attempt in range(ATTEMPTS_MAX):
            if self._closing.wait(0 if attempt == 0 else PAUSE_SECONDS * 2 ** (attempt - 1)):
                return
            status = _post(client, delivery)
            self.statuses.append(status)
            if status is not None and httpx.codes.is_success(status):
                return
        log.warning("webhook.given_up", url=delivery.url, attempts=ATTEMPTS_MAX)


def signature(secret: str, at: int, body: bytes) -> str:
    """Return the value of `Stripe-Signature`."""
    signed = f"{at}.".encode() + body
    return f"t={at},v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"


def _post(client: httpx.Client, delivery: Delivery) -> int | None:
    headers = {"content-type": "application/json; charset=utf-8", **delivery.headers}
    if delivery.secret is not None:
        at = delivery.at or int(time.time())
        headers["stripe-signature"] = signature(delivery.secret, at, delivery.body)
    try:
        return client.post(delivery.url, content=delivery.body, headers=headers).status_code
    except httpx.HTTPError:
        return None
