"""The bounds of what a command may state. The edges check them as well, with the caller's words.

Here they make sure that whatever asks, and by whichever way, no negative amount makes credits.
"""

from __future__ import annotations

from ledger.domain.account import Account
from ledger.domain.entities import Balance
from ledger.domain.errors import InvalidCommand, LimitReached
from ledger.domain.values import (
    CHANGES_MAX,
    CREDITS_MAX,
    GRANTS_MAX,
    METADATA_CHARACTERS_MAX,
    NAME_MAX,
    SLICES_MAX,
    TEXT_MAX,
    TOTAL_MAX,
    format_decimal,
    is_name,
)


def check_amount(field: str, amount: int | None, lowest: int = 0) -> None:
    """Refuse millionths below `lowest` or above the largest single amount; None was not stated."""
    if amount is not None and not lowest <= amount <= CREDITS_MAX:
        raise InvalidCommand(
            field=field,
            rule=f"must be from {format_decimal(lowest)} to {format_decimal(CREDITS_MAX)}",
        )


def check_count(field: str, count: int | None, lowest: int, highest: int) -> None:
    """Refuse a whole number that is out of bounds; None was not stated."""
    if count is not None and not lowest <= count <= highest:
        raise InvalidCommand(field=field, rule=f"must be from {lowest} to {highest}")


def check_name(field: str, name: str) -> None:
    """Refuse what cannot be the key of an entry."""
    if not is_name(name):
        raise InvalidCommand(
            field=field,
            rule=f"must be 1 to {NAME_MAX} letters, digits and _ . : @ | + -"
            " and begin with a letter or digit",
        )


def check_text(field: str, text: str) -> None:
    """Refuse a text for people that is empty or too long."""
    if not 1 <= len(text) <= TEXT_MAX:
        raise InvalidCommand(field=field, rule=f"must be 1 to {TEXT_MAX} characters")


def check_debt(balance: Balance, more: int) -> None:
    """Refuse a debt that sums could not hold: not even finished work is charged beyond that."""
    if more and balance.debt + more > TOTAL_MAX:
        raise LimitReached(limit="debt", max=TOTAL_MAX)


def check_growth(account: Account, amount: int, grants: int = 1) -> None:
    """Refuse more credits, in so many more grants, than an account may be given in all its life."""
    if len(account.grants) + grants > GRANTS_MAX:
        raise LimitReached(limit="grants", max=GRANTS_MAX)
    if account.balance.granted + amount > TOTAL_MAX:
        raise LimitReached(limit="granted", max=TOTAL_MAX)


def check_changes(changes: int) -> None:
    """Refuse another change of an operation whose story would take too long to recall.

    What closes a reservation is not asked: it can always be closed.
    """
    if changes >= CHANGES_MAX:
        raise LimitReached(limit="changes", max=CHANGES_MAX)


def check_slices(slices: int) -> None:
    """Refuse to pin more slices than every partial capture can state again."""
    if slices > SLICES_MAX:
        raise LimitReached(limit="slices", max=SLICES_MAX)


def check_metadata(metadata: dict[str, str]) -> None:
    """Refuse metadata that would make events too large to be read in batches."""
    characters = sum([len(name) + len(text) for name, text in metadata.items()]) if metadata else 0
    if characters > METADATA_CHARACTERS_MAX:
        raise InvalidCommand(
            field="metadata", rule=f"must be at most {METADATA_CHARACTERS_MAX} characters in all"
        )
