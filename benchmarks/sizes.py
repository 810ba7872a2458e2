"""How large everything is: small enough for a test, for a usual run, or as the targets name it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

SizeName = Literal["tiny", "usual", "full"]


class Sizes(Struct, frozen=True, kw_only=True):
    """Numbers of things."""

    accounts: int
    """Accounts that a load is spread over."""
    shared: int
    """Accounts that two processes fight over."""
    aggregates: int
    """Accounts of the baseline in process, which needs long to make one."""
    long: int
    """Events of the account with a long history."""
    wide: int
    """Open reservations, and live grants, of the account that has many."""
    backlog: int
    """Events that the projections have to catch up with, each round."""
    cached: int
    """Accounts that a process holds in memory."""
    history: int
    """Events in the store that nobody asks for."""


SIZES: dict[SizeName, Sizes] = {
    "tiny": Sizes(
        accounts=40, shared=5, aggregates=20, long=300, wide=30, backlog=400, cached=60, history=500
    ),
    "usual": Sizes(
        accounts=10_000,
        shared=100,
        aggregates=1_000,
        long=200_000,
        wide=10_000,
        backlog=100_000,
        cached=100_000,
        history=1_000_000,
    ),
    "full": Sizes(
        accounts=10_000,
        shared=100,
        aggregates=10_000,
        long=1_000_000,
        wide=10_000,
        backlog=300_000,
        cached=100_000,
        history=10_000_000,
    ),
}
