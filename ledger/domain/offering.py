"""Versions in time: which is in force when, and what no two offers may be at the same moment.

A version is in force from its `effective_at` (included) until that of the next (excluded), the last
one for ever. Where several are of the same moment, the last of them alone ever is.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from ledger.domain.catalog_events import PackSet, PlanSet, ReferralRewardSet
from ledger.domain.errors import InvalidCommand
from ledger.domain.offers import PROVIDERS

Offer = PlanSet | PackSet
Dated = TypeVar("Dated", PlanSet, PackSet, ReferralRewardSet)


def in_force(versions: Sequence[Dated], when: datetime) -> Dated | None:
    """Return the version that is in force at `when`; None before the first is."""
    count = bisect_right(versions, when, key=lambda version: version.effective_at)
    return versions[count - 1] if count else None


def from_then_on(versions: Sequence[Dated], start: datetime) -> list[Dated]:
    """Return the versions that are in force at `start` or at any time after it."""
    count = bisect_right(versions, start, key=lambda version: version.effective_at)
    first = max(0, count - 1)
    last = len(versions) - 1
    return [
        versions[place]
        for place in range(first, len(versions))
        if place == last or versions[place + 1].effective_at > versions[place].effective_at
    ]


def check_only_fallback(plan: PlanSet, plans: Mapping[str, Sequence[PlanSet]]) -> None:
    """Refuse a second plan to fall back to, at any time from when `plan` is in force."""
    if not plan.terms.fallback:
        return
    for key, versions in plans.items():
        if key == plan.plan:
            continue
        if any(one.terms.fallback for one in from_then_on(versions, plan.effective_at)):
            raise InvalidCommand(
                field="fallback", rule=f"must be true on one plan only, and is on plan {key}"
            )


def check_only_seller(
    offer: Offer, plans: Mapping[str, Sequence[PlanSet]], packs: Mapping[str, Sequence[PackSet]]
) -> None:
    """Refuse a provider's id under which another offer is sold, from when `offer` is in force."""
    own = _name(offer)
    for other in _from_then_on_all(plans, packs, offer.effective_at):
        if _name(other) == own:
            continue
        for provider in PROVIDERS:
            taken = set(other.terms.providers.of(provider))
            for one in offer.terms.providers.of(provider):
                if one in taken:
                    raise InvalidCommand(
                        field=f"providers.{provider}",
                        rule=f"must not hold {one}, which is of {_name(other)}",
                    )


def _from_then_on_all(
    plans: Mapping[str, Sequence[PlanSet]],
    packs: Mapping[str, Sequence[PackSet]],
    start: datetime,
) -> Iterator[Offer]:
    for of_plan in plans.values():
        yield from from_then_on(of_plan, start)
    for of_pack in packs.values():
        yield from from_then_on(of_pack, start)


def _name(offer: Offer) -> str:
    return f"plan {offer.plan}" if isinstance(offer, PlanSet) else f"pack {offer.pack}"
