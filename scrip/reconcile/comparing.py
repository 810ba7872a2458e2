"""What a provider tells, held against what is known here and what the ledger was told of it.

Not fact by fact: a webhook and a list tell the same in different words. What counts is what follows
from all of them together, and whether that is what the ledger has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct
from psycopg import AsyncConnection

from api.providers.telling import redated
from consumers.fact_book import connected_facts
from ledger.domain.facts import PaymentFact, Purchase
from ledger.domain.settled import Alert, Entitlement, Offers, Settlement
from ledger.domain.settlement import settle
from ledger.domain.values import Credits
from scrip.reconcile.reading import Progress

What = Literal["missing", "different", "waiting", "refused", "alert", "unreadable"]
SELECT_PAYMENTS: Final = """
SELECT payment, account, state, why, told FROM scrip.payments
WHERE tenant = %(tenant)s AND payment = ANY(%(payments)s)
"""
_entitlement = msgspec.json.Decoder(Entitlement)


class Side(Struct, frozen=True, kw_only=True):
    """What a payment entitles to, or was given: `credits` with its bonus, and what went back."""

    credits: Credits
    back: Credits
    frozen: bool


class Difference(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A payment whose credits are not what the provider's payments, refunds and disputes say.

    `missing`: nothing is known here of its being paid. `different`: other credits, or others taken
    back. `waiting`, `refused`: known, and not in the ledger. `alert`: it was paid and grants
    nothing, for the reason that `why` names. `unreadable`: an object that cannot be understood.
    """

    what: What
    payment: str
    owner: str | None = None
    """The account, or what would name it."""
    offer: str | None = None
    due: Side | None = None
    held: Side | None = None
    why: str | None = None


class Group(Struct, frozen=True):
    """Facts that are connected: what is known here, and what the provider tells beside it."""

    known: tuple[PaymentFact, ...]
    told: tuple[PaymentFact, ...]


class Comparison(Struct, frozen=True, kw_only=True):
    """How provider and ledger differ, and the facts that would mend it."""

    payments: int
    """How many payments there are by the provider's facts."""
    differences: tuple[Difference, ...]
    repairs: tuple[PaymentFact, ...]


class _Row(Struct, frozen=True):
    account: str | None
    state: str
    why: str | None
    told: Entitlement | None


async def compare(
    connection: AsyncConnection[Any],
    tenant: str,
    facts: Sequence[PaymentFact],
    offers: Offers,
    progress: Progress,
) -> Comparison:
    """Hold a provider's facts against what is here. Reads, and changes nothing."""
    groups = await _groups(connection, tenant, facts, progress)
    found: list[Difference] = []
    repairs: list[PaymentFact] = []
    payments = 0
    for group in groups:
        before = settle(group.known, offers)
        new = _new(group, before)
        after = settle((*group.known, *new), offers)
        rows = await _rows(connection, tenant, after)
        differences = [*_differing(after, rows), *_alerts(before, after)]
        payments += len(after.entitlements)
        found += differences
        if differences:
            # Where all is known, to tell one fact again is to have all of them settled again.
            repairs += new or group.known[:1]
    return Comparison(
        payments=payments,
        differences=tuple(sorted(found, key=lambda one: (one.payment, one.what))),
        repairs=tuple(repairs),
    )


async def _groups(
    connection: AsyncConnection[Any],
    tenant: str,
    facts: Sequence[PaymentFact],
    progress: Progress,
) -> list[Group]:
    """Return the facts by what connects them, with all that is known here and connected too."""
    told = {fact.id: fact for fact in facts}
    apart = list(_connected(list(told.values())))
    known: dict[str, PaymentFact] = {}
    for number, group in enumerate(apart, start=1):
        refs = {ref for fact in group for ref in fact.refs}
        known |= {fact.id: fact for fact in await connected_facts(connection, tenant, refs=refs)}
        progress.compared(number, len(apart))
    return [
        Group(
            known=tuple([fact for fact in group if fact.id in known]),
            told=tuple([fact for fact in group if fact.id not in known]),
        )
        for group in _connected(list((told | known).values()))
    ]


def _connected(facts: Sequence[PaymentFact]) -> Iterator[list[PaymentFact]]:
    """Yield facts in groups: two that share a ref are in one."""
    leader: dict[str, str] = {}

    def find(ref: str) -> str:
        while leader[ref] != ref:
            leader[ref] = leader[leader[ref]]
            ref = leader[ref]
        return ref

    for fact in facts:
        for ref in fact.refs:
            leader.setdefault(ref, ref)
            leader[find(ref)] = find(fact.refs[0])
    groups: defaultdict[str, list[PaymentFact]] = defaultdict(list)
    for fact in facts:
        groups[find(fact.refs[0])].append(fact)
    yield from groups.values()


def _new(group: Group, before: Settlement) -> tuple[PaymentFact, ...]:
    """Return what the provider tells and is not known.

    A list does not know when something was paid. So what is granted already keeps the time that it
    was told with, and only what was bought is compared.
    """
    granted = {one.payment for one in before.entitlements}
    new = []
    for one in group.told:
        bought = one.content
        if not isinstance(bought, Purchase) or bought.payment not in granted:
            new.append(one)
            continue
        known = list(_paid(group, bought.payment))
        if bought.paid and bought.sure and _what(bought) not in {_what(each) for _, each in known}:
            new.append(redated(one, min(at for at, _ in known)))
    return tuple(new)


def _paid(group: Group, payment: str) -> Iterator[tuple[datetime, Purchase]]:
    for one in group.known:
        bought = one.content
        if isinstance(bought, Purchase) and bought.payment == payment and bought.paid:
            yield one.occurred_at, bought


def _what(bought: Purchase) -> tuple[str | None, int]:
    return bought.price, bought.quantity


async def _rows(
    connection: AsyncConnection[Any], tenant: str, after: Settlement
) -> dict[str, _Row]:
    payments = [one.payment for one in after.entitlements]
    cursor = await connection.execute(SELECT_PAYMENTS, {"tenant": tenant, "payments": payments})
    return {
        payment: _Row(account, state, why, _entitlement.decode(told))
        for payment, account, state, why, told in await cursor.fetchall()
    }


def _differing(after: Settlement, rows: dict[str, _Row]) -> Iterator[Difference]:
    for one in after.entitlements:
        row, due = rows.get(one.payment), _side(one)
        what: What
        held = why = None
        if row is None:
            what = "missing"
        elif row.state == "applied":
            assert row.told is not None
            held = _side(row.told)
            if held == due and row.told.expires_at == one.expires_at:
                continue
            what = "different"
            why = None if held != due else "expires_at"
        else:
            what = "waiting" if row.state == "waiting" else "refused"
            why = row.why
        owner = None if row is None else row.account
        yield Difference(
            what=what,
            payment=one.payment,
            owner=owner or _owner(after.owners),
            offer=one.offer,
            due=due,
            held=held,
            why=why,
        )


def _alerts(before: Settlement, after: Settlement) -> Iterator[Difference]:
    """Yield what people will be told once these facts are known; what they know is no news."""
    alerts: set[Alert] = set(after.alerts) - set(before.alerts)
    for alert in sorted(alerts):
        why = f"{alert.code} {alert.price}".strip()
        owner = _owner(after.owners)
        yield Difference(what="alert", payment=alert.subject, owner=owner, why=why)


def _side(told: Entitlement) -> Side:
    return Side(
        credits=told.credits + told.bonus,
        back=told.reversed + told.bonus_reversed,
        frozen=told.frozen,
    )


def _owner(owners: Sequence[str]) -> str | None:
    """Return what names the account best: itself comes first by its spelling."""
    return owners[0].removeprefix("account:") if owners else None
