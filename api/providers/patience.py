"""How long to go on asking a provider that has too much to do, or does not answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from msgspec import Struct

from api.provider_problems import ProviderUnavailable

T = TypeVar("T")
PAUSE_SECONDS_FIRST: Final = 0.25
PAUSE_SECONDS_MAX: Final = 30.0


class Patience(Struct, frozen=True, kw_only=True):
    """How often to ask at most, and how many seconds to pause in all."""

    attempts_max: int
    seconds_max: float


SHORT: Final = Patience(attempts_max=3, seconds_max=3.0)
"""For whoever has somebody waiting."""
LONG: Final = Patience(attempts_max=12, seconds_max=600.0)
"""For whoever goes through thousands of pages."""


async def patiently(patience: Patience, ask: Callable[[], Awaitable[T]]) -> T:
    """Return what `ask` returns, asking again as long as the provider is merely unavailable.

    Where it says how long to pause, that is done. Raises what `ask` raises; asking twice must be
    as good as asking once.
    """
    paused = 0.0
    for attempt in range(1, patience.attempts_max + 1):
        try:
            return await ask()
        except ProviderUnavailable as refusal:
            pause = _pause(attempt, refusal.facts.get("retry_after_seconds"))
            if attempt == patience.attempts_max or paused + pause > patience.seconds_max:
                raise
        await asyncio.sleep(pause)
        paused += pause
    raise AssertionError("attempts_max must be at least 1")


def retry_after(value: str | None) -> int | None:
    """Return the seconds that a Retry-After names; None if it names none."""
    if value is None or not (value.isascii() and value.isdigit()):
        return None
    return int(value[:9])


def _pause(attempt: int, asked: object) -> float:
    if isinstance(asked, int):
        return float(asked)
    longest = min(PAUSE_SECONDS_FIRST * 2.0 ** (attempt - 1), PAUSE_SECONDS_MAX)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
