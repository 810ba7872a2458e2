"""What the tests of plans share: a ledger under a clock set by hand, and rows as of facts."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Self

import msgspec
import psycopg
from psycopg import AsyncConnection

from consumers.plans import grant_due
from ledger.domain.commands import (
    ApplyPayment,
    Deduct,
    PutAccount,
    SetPlan,
    SetReferralReward,
)
from ledger.domain.entities import Charge, Grant, Source
from ledger.domain.offers import Plan
from ledger.domain.payment_ids import payment_grant_id
from ledger.domain.settled import Entitlement
from ledger.records import Order, Outcome, Recorded, stream_id
from ledger.store import Store
from ledger.writer import Writer
from tests.consumers.room import ANSWER_SECONDS_MAX, Room
from tests.ledger.room import Clock

_numbers = itertools.count(1)

INSERT_TENANT = """
INSERT INTO scrip.tenants (tenant, mode) VALUES (%(tenant)s, 'test')
"""
INSERT_FACT = """
INSERT INTO scrip.payment_facts (tenant, id, provider, type, delivery, occurred_at, fact)
VALUES (%(tenant)s, 'f', 'stripe', 't', 'd', now(), '{}')
"""
UPSERT_SUBSCRIPTION = """
INSERT INTO scrip.subscriptions (tenant, subscription, fact, revision, owners, account, provider,
    status, plan, starts_at, ends_at, cancel_at, ended_at, since)
VALUES (%(tenant)s, %(subscription)s, 'f', 1, '{}', %(account)s, 'stripe', %(status)s, %(plan)s,
    %(starts_at)s, %(ends_at)s, %(cancel_at)s, %(ended_at)s, %(since)s)
ON CONFLICT (tenant, subscription) DO UPDATE SET status = excluded.status, plan = excluded.plan,
    cancel_at = excluded.cancel_at, ended_at = excluded.ended_at, since = excluded.since,
    revision = scrip.subscriptions.revision + 1
"""
UPSERT_PAYMENT = """
INSERT INTO scrip.payments (tenant, payment, fact, revision, owners, account, state, told,
    subscription, offer, amount, starts_at, ends_at)
VALUES (%(tenant)s, %(payment)s, 'f', %(revision)s, '{}', %(account)s, 'applied', %(told)s,
    %(subscription)s, %(offer)s, %(amount)s, %(starts_at)s, %(ends_at)s)
ON CONFLICT (tenant, payment) DO UPDATE SET revision = excluded.revision, told = excluded.told
"""


class World:
    """One account of one tenant, and all that the clock does to it."""

    def __init__(self, room: Room, now: datetime, *, writer: Writer | None = None) -> None:
        """Begin at `now`; nothing is there yet."""
        self.room, self.clock = room, Clock(now)
        self.store: Store = room.store
        self.writer = writer or Writer(room.store, clock=self.clock)
        self.tenant = f"t{next(_numbers)}"
        self.account = "ann"
        self.revisions = itertools.count(1)
        self.sql(INSERT_TENANT)
        self.sql(INSERT_FACT)

    def __enter__(self) -> Self:
        """Start the writer."""
        self.writer.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop it."""
        self.writer.close()

    @property
    def now(self) -> datetime:
        """The time by the clock that is set by hand."""
        return self.clock.now

    def sql(self, query: Any, **parameters: Any) -> list[Any]:
        """Do some SQL as the services' role."""
        with psycopg.connect(self.room.urls.app_url, autocommit=True) as connection:
            cursor = connection.execute(query, {"tenant": self.tenant, **parameters})
            return cursor.fetchall() if cursor.description else []

    def do(self, command: Any, account: str | None = "") -> Outcome:
        """Give the ledger a command."""
        order = Order(
            tenant=self.tenant,
            account=self.account if account == "" else account,
            command=command,
            key=f"test-{next(_numbers)}",
            by="service:test",
        )
        return self.writer.submit(order).result(ANSWER_SECONDS_MAX)

    def put_plan(self, key: str, terms: Plan, effective_at: datetime | None = None) -> None:
        """Put a plan."""
        self.do(SetPlan(plan=key, terms=terms, effective_at=effective_at), account=None)

    def put_reward(self, referrer: int, referred: int, days: int | None = None) -> None:
        """Put what referrals give."""
        self.do(
            SetReferralReward(referrer=referrer, referred=referred, expires_days=days),
            account=None,
        )

    def open(self, zone: str = "UTC", account: str = "") -> None:
        """Open the account, or put its zone."""
        self.do(PutAccount(zone=zone), account=account)

    def spend(self, amount: int) -> None:
        """Spend so much."""
        self.do(Deduct(charge=Charge(amount=amount)))

    def at(self, now: datetime) -> None:
        """Move the clock, and let the worker look."""
        self.clock.now = now
        self.tick()

    def tick(self) -> None:
        """Let the worker look once."""

        async def once() -> None:
            url = self.room.urls.app_url
            async with await AsyncConnection.connect(url, autocommit=True) as connection:
                await grant_due(connection, self.writer, self.clock())

        asyncio.run(once())

    def subscribe(self, status: str, plan: str | None = "pro", **more: Any) -> None:
        """Write how a subscription stands, as facts would have it written."""
        row = dict.fromkeys(("starts_at", "ends_at", "cancel_at", "ended_at"))
        self.sql(
            UPSERT_SUBSCRIPTION,
            **row
            | {"subscription": "sub", "account": self.account, "status": status, "plan": plan}
            | {"since": self.now}
            | more,
        )

    def pay(
        self,
        starts_at: datetime,
        ends_at: datetime,
        terms: Plan,
        *,
        reversed_: int = 0,
        frozen: bool = False,
        subscription: str = "sub",
        quantity: int = 1,
    ) -> str:
        """Have a period of a plan paid, refunded or disputed; return the id of its grant."""
        key = f"stripe:subscription:{subscription}:{int(ends_at.timestamp())}"
        told = Entitlement(
            payment=key,
            offer="pro",
            kind=terms.kind,
            priority=terms.priority,
            credits=terms.credits * quantity,
            quantity=quantity,
            reversed=reversed_,
            frozen=frozen,
            effective_at=starts_at,
            expires_at=None if terms.rollover == "all" else ends_at,
            ends_at=ends_at,
            source=Source("subscription", subscription),
        )
        revision, grant = next(self.revisions), payment_grant_id(key)
        self.do(
            ApplyPayment(
                grant=grant,
                revision=revision,
                amount=told.credits,
                reversed=reversed_,
                frozen=frozen,
                kind=told.kind,
                priority=told.priority,
                expires_at=told.expires_at,
                source=told.source,
            )
        )
        self.sql(
            UPSERT_PAYMENT,
            payment=key,
            revision=revision,
            account=self.account,
            told=msgspec.json.encode(told),
            subscription=subscription,
            offer="pro",
            amount=told.credits - reversed_,
            starts_at=starts_at,
            ends_at=ends_at,
        )
        return grant

    def grants(self, account: str = "") -> dict[str, Grant]:
        """Return the account's grants as the ledger has them, the oldest first."""
        view = self.writer.view(self.tenant, account or self.account).result(ANSWER_SECONDS_MAX)
        assert view.balance.holds()
        return {grant.id: grant for grant in view.grants}

    def events(self) -> list[Recorded]:
        """Return what happened to the account."""
        return self.store.events_of(stream_id(self.tenant, self.account))

    def amounts(self, account: str = "") -> dict[str, int]:
        """Return the amounts of the account's grants."""
        return {name: grant.amount for name, grant in self.grants(account).items()}


@contextmanager
def world(room: Room, now: datetime) -> Iterator[World]:
    """Run a ledger under a clock set by hand, and give a tenant of its own."""
    with World(room, now) as made:
        yield made
