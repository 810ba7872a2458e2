"""Which grants pay for an amount, and where a slice goes that comes back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ledger.domain.account import Account
from ledger.domain.entities import Bucket, Draw, Grant, Return

BUCKET_OF: dict[str, Bucket] = {
    "active": "available",
    "frozen": "pending",
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


def give_back(
    account: Account, slices: Sequence[Draw], spent: Sequence[Draw] = ()
) -> tuple[Return, ...]:
    """Say where each slice goes: into what is available, unless its grant has ended meanwhile.

    What is `owing` of it goes first: it has been taken back while it was set aside. `spent` are
    slices that are captured just before these come back.
    """
    grants = account.grants
    if any([grants[one.grant].owing for one in slices]):  # noqa: C419 - a list is faster
        return tuple(_give_back_owing(account, slices, spent))
    return tuple(
        [Return(one.grant, one.amount, BUCKET_OF[grants[one.grant].status]) for one in slices]
    )


def _give_back_owing(
    account: Account, slices: Sequence[Draw], spent: Sequence[Draw]
) -> Iterator[Return]:
    gone = _by_grant(spent)
    owing: dict[str, int] = {}
    for one in slices:
        grant = account.grants[one.grant]
        left = grant.reserved - gone.get(one.grant, 0)
        taken = min(one.amount, owing.get(one.grant, min(grant.owing, left)))
        owing[one.grant] = owing.get(one.grant, min(grant.owing, left)) - taken
        if taken:
            yield Return(one.grant, taken, "revoked")
        if one.amount > taken:
            yield Return(one.grant, one.amount - taken, BUCKET_OF[grant.status])


def owed_if_spent(account: Account, slices: Sequence[Draw]) -> int:
    """Return how much debt is made by spending slices of which a part was owing.

    Only what the rest of what is set aside of the same grant cannot make good.
    """
    grants = account.grants
    if not any([grants[one.grant].owing for one in slices]):  # noqa: C419 - a list is faster
        return 0
    return sum(
        max(0, grants[name].owing - (grants[name].reserved - amount))
        for name, amount in _by_grant(slices).items()
    )


def _by_grant(slices: Iterable[Draw]) -> dict[str, int]:
    amounts: dict[str, int] = {}
    for one in slices:
        amounts[one.grant] = amounts.get(one.grant, 0) + one.amount
    return amounts


def total(slices: Iterable[Draw | Return]) -> int:
    """Return what slices add up to, in micro-credits."""
    return sum([piece.amount for piece in slices])
