"""What both pretended providers have: objects in memory, faults on demand, webhooks to be sent."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import Struct

from scrip.provider_server.sending import Sender

Object = dict[str, Any]
PAGE_MAX: Final = 100
encode: Final = msgspec.json.Encoder(decimal_format="number").encode
decode: Final = msgspec.json.Decoder(float_hook=Decimal).decode


class Reply(Struct, frozen=True, kw_only=True):
    """An answer to a request."""

    status: int = 200
    body: Object
    headers: dict[str, str] = {}


class Fault(Struct, frozen=True, kw_only=True):
    """What the next request gets instead of an answer. 429: it came too soon."""

    status: int
    headers: dict[str, str] = {}
    after_work: bool = False
    """Whether the work is done all the same, and only its answer is lost."""


class ProviderError(Exception):
    """A request that the provider refuses."""

    def __init__(self, reply: Reply) -> None:
        """Answer with `reply`."""
        super().__init__(reply)
        self.reply = reply


class Book:
    """The books of one provider. Take `lock` to look at several things at once."""

    def __init__(self, key: str, sender: Sender, clock: Callable[[], float] = time.time) -> None:
        """Answer whoever has `key`; times are `clock`'s."""
        self.key = key
        self.sender = sender
        self.clock = clock
        self.lock = threading.RLock()
        self.base_url = ""
        """Where the pages of this server are; known once it listens."""
        self.faults: deque[Fault] = deque()
        self.requests: list[tuple[str, str]] = []
        """Method and path of all that was asked for, refused or not."""
        self.deliveries: list[Object] = []
        """All events that were sent, or would have been if anybody had wanted them."""
        self._numbers = itertools.count(1)

    def slow_down(self, times: int = 1, retry_after: str | None = "0") -> None:
        """Answer the next requests with 429."""
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        self.faults.extend([Fault(status=429, headers=headers)] * times)

    def break_down(self, times: int = 1, *, after_work: bool = False) -> None:
        """Answer the next requests with 500, and perhaps do what they ask for all the same."""
        self.faults.extend([Fault(status=500, after_work=after_work)] * times)

    def now(self) -> int:
        """Return the time in seconds."""
        return int(self.clock())

    def new_id(self, prefix: str) -> str:
        """Return an id that no other object has."""
        return f"{prefix}_{next(self._numbers):014d}"
