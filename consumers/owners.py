"""Whose a payment is: the account that it names itself, or that its customer is linked to."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
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


def names_of(facts: Iterable[PaymentFact]) -> list[str]:
    """Return all names under which what these facts tell may be linked to an account."""
    return sorted({name for fact in facts for name in (*fact.owners, *fact.refs)})


async def find_account(
    connection: AsyncConnection[Any], tenant: str, names: Sequence[str], owners: Sequence[str]
) -> Found:
    """Return whose a payment is: it has these names, its `owners` among them.

    A link of the payment or the subscription itself comes first: a person has said so. Then what
    names an account, then the links of its owners. Where two accounts are told of, it is nobody's.
    """
    cursor = await connection.execute(SELECT_LINKS, {"tenant": tenant, "owners": list(names)})
    links = dict(await cursor.fetchall())
    own = {account for name, account in links.items() if name not in owners}
    if own:
        return _only(own, sure=False)
    named = {name.removeprefix(EXPLICIT) for name in owners if name.startswith(EXPLICIT)}
    if named:
        return _only(named, sure=True)
    return _only(set(links.values()), sure=False)


def _only(accounts: set[str], *, sure: bool) -> Found:
    if len(accounts) == 1:
        return Found(accounts.pop(), sure=sure)
    return Found(None, "account_conflict" if accounts else "account_unknown")


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
