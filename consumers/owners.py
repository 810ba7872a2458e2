"""Whose a payment is: the account that it names itself, or that its customer is linked to."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from msgspec import Struct
from psycopg import AsyncConnection

from ledger.domain.facts import PaymentFact, User

EXPLICIT: Final = "account:"
SELECT_LINKS: Final = """
SELECT owner, account FROM scrip.account_links
WHERE tenant = %(tenant)s AND owner = ANY(%(owners)s)
"""
INSERT_LINK: Final = """
INSERT INTO scrip.account_links (tenant, owner, account, by)
SELECT %(tenant)s, owner, %(account)s, %(by)s FROM unnest(%(owners)s::text[]) AS owner
ORDER BY owner ON CONFLICT DO NOTHING
"""


class Found(Struct, frozen=True):
    """The account, or why there is none: `account_unknown`, `account_conflict`."""

    account: str | None
    why: str | None = None
    sure: bool = False
    """Whether the payment itself names it; else a link does."""


async def find_account(
    connection: AsyncConnection[Any], tenant: str, owners: Collection[str]
) -> Found:
    """Return whose a payment with these owners is.

    What names an account itself comes first. Where names or links tell of several accounts, it is
    nobody's until a person has said whose.
    """
    named = {owner.removeprefix(EXPLICIT) for owner in owners if owner.startswith(EXPLICIT)}
    if len(named) == 1:
        return Found(named.pop(), sure=True)
    if named:
        return Found(None, "account_conflict")
    cursor = await connection.execute(SELECT_LINKS, {"tenant": tenant, "owners": list(owners)})
    linked = {account for _, account in await cursor.fetchall()}
    if len(linked) == 1:
        return Found(linked.pop())
    return Found(None, "account_conflict" if linked else "account_unknown")


async def learn_links(
    connection: AsyncConnection[Any],
    tenant: str,
    owners: Collection[str],
    account: str,
    fact: PaymentFact,
) -> None:
    """Link the owners beside a named account to it, those that are linked to none yet."""
    others = [owner for owner in owners if not owner.startswith(EXPLICIT)]
    if others:
        await connection.execute(
            INSERT_LINK,
            {"tenant": tenant, "owners": others, "account": account, "by": f"fact:{fact.id}"},
        )


def account_of_user(fact: PaymentFact) -> str:
    """Return the account of a user: the one that is named, else one by the id of the user."""
    assert isinstance(fact.content, User)
    for owner in fact.owners:
        if owner.startswith(EXPLICIT):
            return owner.removeprefix(EXPLICIT)
    return fact.content.user.rsplit(":", 1)[1]
