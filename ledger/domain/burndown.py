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
    if not amount:
        return (), 0
    draws: list[Draw] = []
    for grant in payers:
        available = grant.available
        if amount <= available:
            return (*draws, Draw(grant.id, amount)), 0
        draws.append(Draw(grant.id, available))
        amount -= available
    return tuple(draws), amount


def take(slices: tuple[Draw, ...], amount: int) -> tuple[tuple[Draw, ...], tuple[Draw, ...], int]:
    """Split slices, first to last, into those that make up `amount` and the rest.

    Also return how much of the amount they are short of.
    """
    for place, piece in enumerate(slices):
        if amount < piece.amount:
            taken, rest = slices[:place], slices[place:]
            if amount:
                taken = (*taken, Draw(piece.grant, amount))
                rest = (Draw(piece.grant, piece.amount - amount), *rest[1:])
            return taken, rest, 0
        amount -= piece.amount
    return slices, (), amount


def joined(slices: tuple[Draw, ...], more: tuple[Draw, ...]) -> tuple[Draw, ...]:
    """Return `slices`, then `more`; a grant that pays on has one slice, not one for each time."""
    if not slices or not more or slices[-1].grant != more[0].grant:
        return slices + more
    meeting = Draw(more[0].grant, slices[-1].amount + more[0].amount)
    return (*slices[:-1], meeting, *more[1:])


def give_back(account: Account, slices: Iterable[Draw]) -> tuple[Return, ...]:
    """Say where each slice goes: into what is available, unless its grant has ended meanwhile."""
    grants = account.grants
    return tuple(
        [Return(one.grant, one.amount, BUCKET_OF[grants[one.grant].status]) for one in slices]
    )


def total(slices: Iterable[Draw | Return]) -> int:
    """Return what slices add up to, in micro-credits."""
    return sum([piece.amount for piece in slices])
