"""Which grants pay for an amount, and where a slice goes that comes back."""

from __future__ import annotations

from collections.abc import Iterable

from ledger.domain.account import Account
from ledger.domain.entities import Bucket, Draw, Grant, Return

BUCKET_OF: dict[str, Bucket] = {
    "active": "available",
    "expired": "expired",
    "revoked": "revoked",
}
"""Where credits lie that come back into a grant of this status."""


def burn_down(payers: Iterable[Grant], amount: int) -> tuple[tuple[Draw, ...], int]:
    """Return what each of `payers` pays towards `amount`, in their order, and what is short.

    Draws and shortfall add up to the amount exactly.
    """
    draws = []
    for grant in payers:
        if amount == 0:
            break
        part = min(amount, grant.available)
        draws.append(Draw(grant.id, part))
        amount -= part
    return tuple(draws), amount


def take(slices: tuple[Draw, ...], amount: int) -> tuple[tuple[Draw, ...], tuple[Draw, ...]]:
    """Split slices, first to last, into those that make up `amount` and the rest."""
    taken, rest = [], []
    for piece in slices:
        part = min(amount, piece.amount)
        amount -= part
        if part:
            taken.append(Draw(piece.grant, part))
        if part < piece.amount:
            rest.append(Draw(piece.grant, piece.amount - part))
    return tuple(taken), tuple(rest)


def joined(slices: tuple[Draw, ...], more: tuple[Draw, ...]) -> tuple[Draw, ...]:
    """Return `slices`, then `more`; a grant that pays on has one slice, not one for each time."""
    if not slices or not more or slices[-1].grant != more[0].grant:
        return slices + more
    meeting = Draw(more[0].grant, slices[-1].amount + more[0].amount)
    return (*slices[:-1], meeting, *more[1:])


def give_back(account: Account, slices: Iterable[Draw]) -> tuple[Return, ...]:
    """Say where each slice goes: into what is available, unless its grant has ended meanwhile."""
    return tuple(
        Return(piece.grant, piece.amount, BUCKET_OF[account.grants[piece.grant].status])
        for piece in slices
    )


def total(slices: Iterable[Draw | Return]) -> int:
    """Return what slices add up to, in micro-credits."""
    return sum(piece.amount for piece in slices)
