"""The rows that say what became of payments: for people to see, and for the clock to follow."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct
from psycopg import AsyncConnection

from consumers.owners import Found
from ledger.domain.errors import LedgerError
from ledger.domain.facts import PaymentFact
from ledger.domain.settled import Alert, Delta, Entitlement, Settlement

ACCOUNT_NOT_FOUND: Final = "account_not_found"

SELECT_ACCOUNTS: Final = """
SELECT payment, account FROM scrip.payments
WHERE tenant = %(tenant)s AND payment = ANY(%(payments)s) AND state <> 'waiting'
"""
UPSERT_PAYMENT: Final = """
INSERT INTO scrip.payments AS p (
    tenant, payment, fact, revision, owners, account, state, why, told, subscription, offer,
    amount, starts_at, ends_at, applied_at)
VALUES (
    %(tenant)s, %(payment)s, %(fact)s, %(revision)s, %(owners)s, %(account)s, %(state)s, %(why)s,
    %(told)s, %(subscription)s, %(offer)s, %(amount)s, %(starts_at)s, %(ends_at)s,
    CASE WHEN %(state)s = 'applied' THEN now() END)
ON CONFLICT (tenant, payment) DO UPDATE SET
    fact = excluded.fact, revision = excluded.revision, owners = excluded.owners,
    account = excluded.account, state = excluded.state, why = excluded.why, told = excluded.told,
    subscription = excluded.subscription, offer = excluded.offer, amount = excluded.amount,
    starts_at = excluded.starts_at, ends_at = excluded.ends_at, updated_at = now(),
    applied_at = coalesce(p.applied_at, excluded.applied_at)
WHERE p.revision <= excluded.revision
"""
UPSERT_SUBSCRIPTION: Final = """
INSERT INTO scrip.subscriptions AS s (
    tenant, subscription, fact, revision, owners, account, provider, status, plan, starts_at,
    ends_at, cancel_at, ended_at, since)
VALUES (
    %(tenant)s, %(subscription)s, %(fact)s, %(revision)s, %(owners)s, %(account)s, %(provider)s,
    %(status)s, %(plan)s, %(starts_at)s, %(ends_at)s, %(cancel_at)s, %(ended_at)s, %(since)s)
ON CONFLICT (tenant, subscription) DO UPDATE SET
    fact = excluded.fact, revision = excluded.revision, owners = excluded.owners,
    account = coalesce(s.account, excluded.account), status = excluded.status,
    plan = excluded.plan, starts_at = excluded.starts_at, ends_at = excluded.ends_at,
    cancel_at = excluded.cancel_at, ended_at = excluded.ended_at, since = excluded.since,
    updated_at = now()
WHERE s.revision <= excluded.revision
"""
UPSERT_ALERT: Final = """
INSERT INTO scrip.payment_alerts AS a (tenant, code, subject, price, fact, revision)
VALUES (%(tenant)s, %(code)s, %(subject)s, %(price)s, %(fact)s, %(revision)s)
ON CONFLICT (tenant, code, subject, price) DO UPDATE SET revision = excluded.revision
WHERE a.revision < excluded.revision
"""
RESOLVE_ALERTS: Final = """
UPDATE scrip.payment_alerts SET resolved_at = now()
WHERE tenant = %(tenant)s AND fact = ANY(%(facts)s) AND resolved_at IS NULL
  AND revision <= %(revision)s AND (code, subject, price) NOT IN (
    SELECT * FROM unnest(%(codes)s::text[], %(subjects)s::text[], %(prices)s::text[]))
"""
_encoder = msgspec.json.Encoder()


class Result(Struct):
    """What follows for one payment, and what became of it."""

    payment: str
    told: Entitlement | Delta
    revision: int
    account: str | None
    state: Literal["waiting", "applied", "refused"] = "waiting"
    why: str | None = None

    def take(self, refusals: Sequence[LedgerError]) -> None:
        """Note what the ledger answered: nothing but these refusals."""
        self.why = refusals[0].code if refusals else None
        if not refusals:
            self.state = "applied"
        elif self.why != ACCOUNT_NOT_FOUND:
            self.state = "refused"


async def accounts_of(
    connection: AsyncConnection[Any], tenant: str, settlement: Settlement
) -> dict[str, str]:
    """Return whose payments are that the ledger has been told of: they stay there for good."""
    payments = [one.payment for one in settlement.entitlements]
    payments += [one.delta for one in settlement.deltas]
    cursor = await connection.execute(SELECT_ACCOUNTS, {"tenant": tenant, "payments": payments})
    return dict(await cursor.fetchall())


class Group(Struct, frozen=True, kw_only=True):
    """Facts that are connected, what follows from them, and whose it is."""

    tenant: str
    facts: Sequence[PaymentFact]
    names: Sequence[str]
    settlement: Settlement
    found: Found


async def write(connection: AsyncConnection[Any], group: Group, results: Sequence[Result]) -> None:
    """Write the rows of payments and subscriptions; those that know of more facts stay."""
    about = {
        "tenant": group.tenant,
        "fact": group.facts[0].id,
        "revision": len(group.facts),
        "owners": list(group.names),
    }
    for result in results:
        await connection.execute(UPSERT_PAYMENT, {**about, **_row(result)})
    for standing in group.settlement.standings:
        row = {name: getattr(standing, name) for name in standing.__struct_fields__}
        row["account"], row["provider"] = group.found.account, group.facts[0].provider
        await connection.execute(UPSERT_SUBSCRIPTION, {**about, **row})


def _row(result: Result) -> dict[str, Any]:
    told = result.told
    subscription: str | None = None
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    offer = None
    if isinstance(told, Entitlement):
        amount = told.credits + told.bonus - told.reversed - told.bonus_reversed
        subscription, offer = told.subscription, told.offer
        starts_at, ends_at = told.starts_at, told.ends_at
    else:
        amount = told.amount
    return {
        "payment": result.payment,
        "account": result.account,
        "state": result.state,
        "why": result.why,
        "told": _encoder.encode(told),
        "subscription": subscription,
        "offer": offer,
        "amount": amount,
        "starts_at": starts_at,
        "ends_at": ends_at,
    }


async def write_alerts(
    connection: AsyncConnection[Any],
    tenant: str,
    facts: Sequence[PaymentFact],
    alerts: Collection[Alert],
) -> None:
    """Write alerts down, and note of those of these facts that are no longer so that they are not.

    One that a person has called resolved stays so.
    """
    for alert in sorted(alerts):
        await connection.execute(
            UPSERT_ALERT,
            {
                "tenant": tenant,
                "code": alert.code,
                "subject": alert.subject,
                "price": alert.price,
                "fact": facts[0].id if facts else None,
                "revision": len(facts),
            },
        )
    await connection.execute(
        RESOLVE_ALERTS,
        {
            "tenant": tenant,
            "facts": [fact.id for fact in facts],
            "revision": len(facts),
            "codes": [alert.code for alert in alerts],
            "subjects": [alert.subject for alert in alerts],
            "prices": [alert.price for alert in alerts],
        },
    )
