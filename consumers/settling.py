"""From the facts that are kept to the ledger: what follows from all facts about one payment.

Safe to repeat and to do at once in several processes. The ledger takes a payment by the number of
facts it follows from, and so do the rows beside it: fewer than are known change nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from msgspec import Struct
from psycopg_pool import AsyncConnectionPool

from consumers import settled_rows
from consumers.fact_book import connected_facts
from consumers.owners import Found, account_of_user, find_account, learn_links, names_of
from consumers.settled_rows import Group, Result
from consumers.writing import Answer, submit_all
from ledger.domain.catalog import Catalog, fallback_at, first_offer_of, offer_of
from ledger.domain.catalog_events import PlanSet
from ledger.domain.commands import Adjust, ApplyPayment, PutAccount, RaiseAlert
from ledger.domain.errors import AccountNotFound, LedgerError
from ledger.domain.facts import PaymentFact, Provider, User
from ledger.domain.payment_ids import bonus_grant_id, payment_grant_id
from ledger.domain.settled import PRICE_CODES, Alert, Delta, Entitlement, Offer
from ledger.domain.settlement import settle
from ledger.domain.values import derived_id, is_name
from ledger.records import Order
from ledger.writer import Writer

log = structlog.get_logger(__name__)

BY: Final = "service:payments"
KEY_MAX: Final = 255

DAY: Final = timedelta(days=1)


class NotYet(Exception):
    """The ledger cannot take it now, for a passing reason: the text is the code of the refusal."""


class CatalogOffers:
    """A tenant's catalog, as far as payments ask it."""

    def __init__(self, catalog: Catalog) -> None:
        """Ask `catalog`, which nobody changes any more."""
        self._catalog = catalog

    def find(self, provider: Provider, price: str, when: datetime) -> Offer | None:
        """Return what a provider's price was for at that time."""
        if provider == "users":
            return None  # A user system sells nothing.
        found = offer_of(self._catalog, provider, price, when)
        if found is None and provider == "asaas":
            # Asaas tells the day of a payment, which may be that on which the price was put.
            found = offer_of(self._catalog, provider, price, when + DAY)
        if found is None:
            found = first_offer_of(self._catalog, provider, price)
            if found is None or found.effective_at <= when:
                return None  # Nothing is sold under it, or nothing any more.
        key = found.plan if isinstance(found, PlanSet) else found.pack
        return Offer(key, found.terms)

    def fallback(self, when: datetime) -> str | None:
        """Return the key of the plan of those who pay for none, at that time."""
        found = fallback_at(self._catalog, when)
        return None if found is None else found.plan


class Settler(Struct, frozen=True):
    """Settles groups of facts."""

    pool: AsyncConnectionPool[Any]
    writer: Writer

    async def settle(self, tenant: str, fact: str) -> None:
        """Bring to the ledger what follows from a kept fact and all that are connected to it.

        Raises NotYet, and PostgreSQL's errors; then it must be done again.
        """
        async with self.pool.connection() as connection:
            facts = await connected_facts(connection, tenant, fact)
        for one in facts:
            if isinstance(one.content, User) and one.content.change != "deleted":
                await self._open(tenant, one)
        catalog = await self._catalog(tenant)
        settlement = settle(facts, CatalogOffers(catalog))
        names = names_of(facts)
        async with self.pool.connection() as connection:
            found = await find_account(connection, tenant, names, settlement.owners)
            held = await settled_rows.accounts_of(connection, tenant, settlement)
        group = Group(tenant=tenant, facts=facts, names=names, settlement=settlement, found=found)
        results = await self._apply(group, held)
        alerts = {*settlement.alerts, *_alerts(found, results)}
        await self._raise(tenant, alerts)
        async with self.pool.connection() as connection:
            await settled_rows.write(connection, group, results)
            await settled_rows.write_alerts(connection, tenant, facts, alerts)
            if found.account is not None and found.sure and _is_there(results):
                await learn_links(connection, tenant, settlement.owners, found.account, facts[0])

    async def alert_unreadable(self, tenant: str, endpoint: str, why: str) -> None:
        """Tell people that deliveries to an endpoint could not be read. Raises NotYet."""
        alert = Alert(code="unreadable_delivery", subject=endpoint, price=why)
        await self._raise(tenant, {alert})
        async with self.pool.connection() as connection:
            await settled_rows.write_alerts(connection, tenant, (), {alert})

    async def _open(self, tenant: str, fact: PaymentFact) -> None:
        """Open the account of a user, if it is not open, and link him to it."""
        account = account_of_user(fact)
        if not is_name(account):
            log.warning("user.not_opened", tenant=tenant, fact=fact.id, why="no name of an account")
            return
        command = PutAccount(only_new=True)
        await self._ask([Order(tenant=tenant, account=account, command=command, key=None, by=BY)])
        async with self.pool.connection() as connection:
            await learn_links(connection, tenant, fact.owners, account, fact)

    async def _apply(self, group: Group, held: dict[str, str]) -> list[Result]:
        """Tell the ledger; where there is no account, it waits."""
        results: list[Result] = []
        orders: list[Order] = []
        owned: list[tuple[Result, int]] = []
        revision, found = len(group.facts), group.found
        following: list[Entitlement | Delta] = [*group.settlement.entitlements]
        following += group.settlement.deltas
        for told in following:
            key = told.payment if isinstance(told, Entitlement) else told.delta
            account = held.get(key, found.account)
            result = Result(key, told, revision, account, why=found.why)
            results.append(result)
            if account is not None:
                asked = _orders(group.tenant, account, told, revision)
                orders += asked
                owned.append((result, len(asked)))
        answers = await self._ask(orders)
        place = 0
        for result, count in owned:
            refusals = [
                answer
                for answer in answers[place : place + count]
                if isinstance(answer, LedgerError)
            ]
            result.take(refusals)
            place += count
        return results

    async def _raise(self, tenant: str, alerts: set[Alert]) -> None:
        """Put alerts into the ledger, each once for ever."""
        # One wrong price is one event, however many payments are of it: the rows name them all.
        told = {(one.code, _about(one), one.price[:KEY_MAX]) for one in alerts}
        orders = [
            Order(
                tenant=tenant,
                account=None,
                command=RaiseAlert(code=code, subject=subject, price=price),
                key=derived_id("alert", f"{code}\0{subject}\0{price}"),
                by=BY,
            )
            for code, subject, price in sorted(told)
        ]
        for answer in await self._ask(orders):
            if isinstance(answer, LedgerError):
                log.warning("alert.refused", tenant=tenant, code=answer.code)

    async def _catalog(self, tenant: str) -> Catalog:
        try:
            return await asyncio.wrap_future(self.writer.catalog(tenant))
        except LedgerError as refusal:
            if refusal.retryable:
                raise NotYet(refusal.code) from refusal
            raise

    async def _ask(self, orders: Sequence[Order]) -> list[Answer]:
        """Return the ledger's answers. Raises NotYet if any would be another later."""
        answers = await submit_all(self.writer, orders)
        for answer in answers:
            if isinstance(answer, LedgerError) and answer.retryable:
                raise NotYet(answer.code)
        return answers


def _orders(tenant: str, account: str, told: Entitlement | Delta, revision: int) -> list[Order]:
    if isinstance(told, Delta):
        command = Adjust(amount=told.amount, overage="debt")
        key = told.delta if len(told.delta) <= KEY_MAX else derived_id("delta", told.delta)
        return [Order(tenant=tenant, account=account, command=command, key=key, by=BY)]
    own = ApplyPayment(
        grant=payment_grant_id(told.payment),
        revision=revision,
        amount=told.credits,
        reversed=told.reversed,
        frozen=told.frozen,
        kind=told.kind,
        priority=told.priority,
        expires_at=told.expires_at,
        source=told.source,
    )
    commands = [own]
    if told.bonus:
        commands.append(
            ApplyPayment(
                grant=bonus_grant_id(told.payment),
                revision=revision,
                amount=told.bonus,
                reversed=told.bonus_reversed,
                frozen=told.frozen,
                kind="promotional",
                priority=told.priority,
                expires_at=told.expires_at,
                source=told.source,
            )
        )
    # The ledger knows by the revision what it has: no key is needed.
    return [
        Order(tenant=tenant, account=account, command=command, key=None, by=BY)
        for command in commands
    ]


def _about(alert: Alert) -> str:
    about = alert.price if alert.code in PRICE_CODES else alert.subject
    return (about or alert.subject)[:KEY_MAX]


def _alerts(found: Found, results: Sequence[Result]) -> list[Alert]:
    alerts = [
        Alert(code="refused", subject=result.payment, price=result.why or "")
        for result in results
        if result.state == "refused"
    ]
    if found.why == "account_conflict" and results:
        alerts.append(Alert(code="account_conflict", subject=results[0].payment))
    return alerts


def _is_there(results: Sequence[Result]) -> bool:
    """Tell whether the account exists, as far as that was asked."""
    return any(result.state == "applied" for result in results)


assert AccountNotFound.code == "account_not_found"
