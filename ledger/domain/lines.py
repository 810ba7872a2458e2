"""The burn-down order, and the grants that can pay now standing in it."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from datetime import UTC, datetime
from heapq import merge
from itertools import groupby

from ledger.domain.entities import Grant

FOREVER = datetime.max.replace(tzinfo=UTC)
UNSCOPED = 1 << 30

BurnKey = tuple[int, int, datetime, bool, int, datetime, int, str]


def burn_key(grant: Grant) -> BurnKey:
    """Place a grant in the burn-down order, which is total: it ends in the id.

    Priority, narrower scope, earlier expiry, promotional before paid, lower cost, effect, age.
    """
    return (
        grant.priority,
        len(grant.scope) or UNSCOPED,
        grant.expires_at or FOREVER,
        grant.kind == "paid",
        grant.cost_basis or 0,
        grant.effective_at,
        grant.sequence,
        grant.id,
    )


class Lines:
    """Who can pay now, in burn-down order: a line for each feature, and one of who pays for all.

    A grant stands in the line of every feature of its scope, or in the common one if it has none.
    So whoever pays for a feature is in one of two lines, and no other grant is looked at.
    """

    __slots__ = ("by_feature", "common")

    def __init__(self, grants: Iterable[Grant] = ()) -> None:
        """Line up `grants`."""
        self.common: list[BurnKey] = []
        self.by_feature: dict[str, list[BurnKey]] = {}
        for grant in grants:
            for line in self._lines(grant):
                line.append(burn_key(grant))
        for line in (self.common, *self.by_feature.values()):
            line.sort()

    def join(self, grant: Grant) -> None:
        """Put a grant in line."""
        key = burn_key(grant)
        for line in self._lines(grant):
            insort(line, key)

    def leave(self, grant: Grant) -> None:
        """Take a grant out of line."""
        key = burn_key(grant)
        for line in self._lines(grant):
            place = bisect_left(line, key)
            assert line[place] == key
            del line[place]

    def of(self, feature: str | None) -> Iterable[BurnKey]:
        """Return who pays for `feature`, in order; for None, who pays for everything."""
        own = self.by_feature.get(feature) if feature else None
        return merge(own, self.common) if own else self.common

    def everyone(self) -> Iterable[BurnKey]:
        """Return all who stand in any line, in order, each once."""
        return (key for key, _ in groupby(merge(self.common, *self.by_feature.values())))

    def copy(self) -> Lines:
        """Return the same lines, to be changed apart from these."""
        other = Lines()
        other.common = self.common.copy()
        other.by_feature = {feature: line.copy() for feature, line in self.by_feature.items()}
        return other

    def _lines(self, grant: Grant) -> list[list[BurnKey]]:
        if not grant.scope:
            return [self.common]
        return [self.by_feature.setdefault(feature, []) for feature in set(grant.scope)]
