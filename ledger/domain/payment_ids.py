"""What the grants of a payment are called: made of its key, so that everybody calls them the same.

A grant's id is all that makes a payment count once, whoever applies it and however often.
"""

from __future__ import annotations

from typing import Final

from ledger.domain.values import NAME_MAX, derived_id, is_name

_BONUS: Final = "~bonus"
_KEY_MAX: Final = NAME_MAX - len(_BONUS)


def payment_grant_id(payment: str) -> str:
    """Return the id of the grant of a payment: its key, where that can be an id with room to spare.

    Keys hold what providers say, which can be longer or hold other characters: of those it is
    `payment:` and a hash. No key of a provider begins so.
    """
    if len(payment) <= _KEY_MAX and is_name(payment):
        return payment
    return derived_id("payment", payment).replace("_", ":", 1)


def bonus_grant_id(payment: str) -> str:
    """Return the id of the grant of a pack's bonus. No caller can give a grant an id with `~`."""
    return f"{payment_grant_id(payment)}{_BONUS}"
