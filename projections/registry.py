"""All projections there are."""

from __future__ import annotations

from projections.accounts import ACCOUNTS
from projections.audit import AUDIT
from projections.balances import BALANCES
from projections.grants import GRANTS
from projections.projection import Projection
from projections.reservations import RESERVATIONS
from projections.usage import USAGE

PROJECTIONS: tuple[Projection, ...] = (BALANCES, GRANTS, RESERVATIONS, USAGE, ACCOUNTS, AUDIT)


class UnknownProjection(LookupError):
    """There is no projection of this name."""


def find(name: str) -> Projection:
    """Return the projection of this name. Raises UnknownProjection."""
    for projection in PROJECTIONS:
        if projection.name == name:
            return projection
    known = ", ".join(projection.name for projection in PROJECTIONS)
    raise UnknownProjection(f"there is no projection {name!r}; there are {known}")
