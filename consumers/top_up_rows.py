"""What is kept of auto top-up: how each account is to be topped up, and every attempt at it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from msgspec import Struct
from psycopg import AsyncConnection
from psycopg.rows import class_row, scalar_row, tuple_row

from ledger.domain.offers import Money
from ledger.domain.top_ups import Attempt, AttemptState, AutoTopUp, Charged, TopUp, Why

RECENT_MAX: Final = 20
"""How many attempts the back-off is worked out from: it no longer grows after so many."""
STRIPE_CUSTOMER: Final = "stripe:customer:"
STRIPE_INTENT: Final = "stripe:pi:"

SELECT_SHORT: Final = """
SELECT a.tenant, a.account FROM scrip.auto_top_ups a
JOIN projections.balances_v2 b
  ON b.tenant = a.tenant COLLATE "C" AND b.account = a.account COLLATE "C"
WHERE a.enabled AND a.look_at <= %(now)s AND (a.tenant, a.account) > (%(tenant)s, %(account)s)
  AND (b.available < a.threshold OR b.due_at <= %(now)s OR a.why IS NOT NULL)
ORDER BY a.tenant, a.account LIMIT %(limit)s
"""
SELECT_SETTINGS: Final = """
SELECT a.version, a.threshold, a.pack, a.monthly_max, a.currency, a.reversed_known, a.why,
       a.put_at, coalesce((
           SELECT sum(t.amount) FROM scrip.top_up_attempts t
           WHERE t.tenant = a.tenant AND t.account = a.account AND t.currency = a.currency
             AND t.started_at >= %(month)s AND t.state IN ('open', 'paid', 'granted')
       ), 0)::bigint AS spent
FROM scrip.auto_top_ups a
WHERE a.tenant = %(tenant)s AND a.account = %(account)s AND a.enabled
"""
SELECT_RECENT: Final = """
SELECT number, state, ended_at FROM scrip.top_up_attempts
WHERE tenant = %(tenant)s AND account = %(account)s ORDER BY number DESC LIMIT %(limit)s
"""
SELECT_CUSTOMER: Final = """
SELECT owner FROM scrip.account_links
WHERE tenant = %(tenant)s AND account = %(account)s AND starts_with(owner, %(kind)s)
ORDER BY linked_at DESC, owner LIMIT 1
"""
INSERT_ATTEMPT: Final = """
INSERT INTO scrip.top_up_attempts (
    tenant, account, number, id, state, customer, card, pack, price, amount, currency, tries,
    asked_at, try_at, started_at)
SELECT tenant, account, %(number)s, %(id)s, 'open', %(customer)s, %(card)s, pack, %(price)s,
       %(amount)s, %(currency)s, 1, %(now)s, %(try_at)s, %(now)s
FROM scrip.auto_top_ups
WHERE tenant = %(tenant)s AND account = %(account)s AND enabled AND version = %(version)s
FOR UPDATE
ON CONFLICT DO NOTHING RETURNING id
"""
NOTE: Final = """
UPDATE scrip.auto_top_ups SET look_at = %(look_at)s,
    why_since = CASE WHEN why IS NOT DISTINCT FROM %(why)s THEN why_since
        WHEN %(why)s::text IS NULL THEN NULL ELSE %(now)s END,
    why = %(why)s
WHERE tenant = %(tenant)s AND account = %(account)s AND version = %(version)s
"""
SWITCH_OFF: Final = """
UPDATE scrip.auto_top_ups
SET enabled = false, version = version + 1, why = %(why)s, why_since = %(now)s
WHERE tenant = %(tenant)s AND account = %(account)s AND version = %(version)s
"""
TAKE_UP: Final = """
UPDATE scrip.top_up_attempts t SET tries = tries + 1, try_at = %(try_at)s
FROM scrip.auto_top_ups a
WHERE t.id = %(id)s AND t.state = 'open' AND t.tries = %(tries)s
  AND a.tenant = t.tenant AND a.account = t.account
RETURNING a.enabled
"""
ASK_AGAIN: Final = """
UPDATE scrip.top_up_attempts SET asked_at = %(now)s
WHERE id = %(id)s AND state = 'open' AND tries = %(tries)s AND ask_again RETURNING id
"""
PAID: Final = """
UPDATE scrip.top_up_attempts
SET state = 'paid', payment = %(payment)s, code = '', message = ''
WHERE id = %(id)s AND state = 'open'
"""
END: Final = """
UPDATE scrip.top_up_attempts
SET state = %(state)s, payment = coalesce(%(payment)s, payment), code = %(code)s,
    message = %(message)s, ended_at = %(now)s
WHERE id = %(id)s AND state = 'open' AND tries = %(tries)s
"""
WAIT: Final = """
UPDATE scrip.top_up_attempts
SET payment = coalesce(%(payment)s, payment), code = %(code)s, message = %(message)s,
    ask_again = ask_again AND %(ask_again)s
WHERE id = %(id)s AND state = 'open' AND tries = %(tries)s
"""
SELECT_TO_TRY: Final = """
SELECT id, tenant, account, customer, card, price, amount, currency, started_at, payment, tries,
       asked_at
FROM scrip.top_up_attempts WHERE state = 'open' AND try_at <= %(now)s
ORDER BY try_at, id LIMIT %(limit)s
"""
GRANTED: Final = """
WITH granted AS (
    UPDATE scrip.top_up_attempts t SET state = 'granted', ended_at = %(now)s
    FROM scrip.payments p
    WHERE t.state IN ('open', 'paid') AND p.tenant = t.tenant AND p.payment = t.payment
      AND p.state = 'applied'
    RETURNING t.tenant, t.account),
resolved AS (
    UPDATE scrip.payment_alerts x SET resolved_at = now() FROM granted g
    WHERE x.tenant = g.tenant AND x.subject = g.account AND x.code = ANY(%(codes)s)
      AND x.resolved_at IS NULL)
UPDATE scrip.auto_top_ups a SET look_at = least(look_at, %(now)s) FROM granted g
WHERE a.tenant = g.tenant AND a.account = g.account RETURNING 1
"""
UPSERT_ALERT: Final = """
INSERT INTO scrip.payment_alerts AS a (tenant, code, subject)
VALUES (%(tenant)s, %(code)s, %(subject)s)
ON CONFLICT (tenant, code, subject, price) DO UPDATE SET raised_at = now(), resolved_at = NULL
WHERE a.resolved_at IS NOT NULL
"""
"""What comes up anew is open again, whoever has seen to it before: it is another attempt."""
SELECT_LONG: Final = """
SELECT id, tenant, account FROM scrip.top_up_attempts
WHERE state IN ('open', 'paid') AND started_at <= %(before)s AND told_at IS NULL
ORDER BY started_at, id LIMIT %(limit)s
"""
TOLD: Final = "UPDATE scrip.top_up_attempts SET told_at = %(now)s WHERE id = %(id)s"


class Settings(Struct, frozen=True, kw_only=True):
    """How an account is to be topped up, and what has been tried so far, the newest first."""

    version: int
    threshold: int
    pack: str
    monthly_max: int
    currency: str
    reversed_known: int
    why: Why | None
    put_at: datetime
    spent: int

    @property
    def asked(self) -> AutoTopUp:
        """What was put."""
        return AutoTopUp(
            threshold=self.threshold,
            pack=self.pack,
            monthly_max=Money(self.monthly_max, self.currency),
            reversed_known=self.reversed_known,
        )


class ToTry(Struct, frozen=True, kw_only=True):
    """An attempt whose end is not known, to be taken up again."""

    id: str
    tenant: str
    account: str
    customer: str
    card: str
    price: str
    amount: int
    currency: str
    started_at: datetime
    payment: str | None
    tries: int
    asked_at: datetime

    @property
    def top_up(self) -> TopUp:
        """What was asked for."""
        return TopUp(
            id=self.id,
            tenant=self.tenant,
            account=self.account,
            customer=self.customer,
            card=self.card,
            price=self.price,
            money=Money(self.amount, self.currency),
            started_at=self.started_at,
        )

    @property
    def intent(self) -> str | None:
        """The provider's id of the payment, where that is known."""
        return None if self.payment is None else self.payment.removeprefix(STRIPE_INTENT)


async def settings_of(
    connection: AsyncConnection[Any], tenant: str, account: str, month: datetime
) -> Settings | None:
    """Return how an account is to be topped up; None if it is not."""
    asked = {"tenant": tenant, "account": account, "month": month}
    async with connection.cursor(row_factory=class_row(Settings)) as cursor:
        return await (await cursor.execute(SELECT_SETTINGS, asked)).fetchone()


async def recent(connection: AsyncConnection[Any], tenant: str, account: str) -> list[Attempt]:
    """Return the latest attempts, the newest first."""
    asked = {"tenant": tenant, "account": account, "limit": RECENT_MAX}
    async with connection.cursor(row_factory=class_row(Attempt)) as cursor:
        return await (await cursor.execute(SELECT_RECENT, asked)).fetchall()


async def customer_of(connection: AsyncConnection[Any], tenant: str, account: str) -> str | None:
    """Return the account's customer at Stripe: the one that was linked last."""
    asked = {"tenant": tenant, "account": account, "kind": STRIPE_CUSTOMER}
    async with connection.cursor(row_factory=scalar_row) as cursor:
        owner = await (await cursor.execute(SELECT_CUSTOMER, asked)).fetchone()
    return None if owner is None else str(owner).removeprefix(STRIPE_CUSTOMER)


async def begin(
    connection: AsyncConnection[Any],
    top_up: TopUp,
    *,
    number: int,
    version: int,
    pause: timedelta,
) -> bool:
    """Write an attempt down, and tell whether it is ours to make.

    It is not if another has begun, or if what was put has changed meanwhile.
    """
    row = {
        "tenant": top_up.tenant,
        "account": top_up.account,
        "number": number,
        "id": top_up.id,
        "customer": top_up.customer,
        "card": top_up.card,
        "price": top_up.price,
        "amount": top_up.money.amount,
        "currency": top_up.money.currency,
        "now": top_up.started_at,
        "try_at": top_up.started_at + pause,
        "version": version,
    }
    return await (await connection.execute(INSERT_ATTEMPT, row)).fetchone() is not None


async def take_up(
    connection: AsyncConnection[Any], attempt: ToTry, try_at: datetime
) -> tuple[int, bool] | None:
    """Take an attempt up again: return its new count of tries, and whether more are wanted.

    None if another has, or if it has ended.
    """
    asked = {"id": attempt.id, "tries": attempt.tries, "try_at": try_at}
    async with connection.cursor(row_factory=tuple_row) as cursor:
        row = await (await cursor.execute(TAKE_UP, asked)).fetchone()
    return None if row is None else (attempt.tries + 1, row[0])


async def ask_again(
    connection: AsyncConnection[Any], attempt: str, tries: int, now: datetime
) -> bool:
    """Note that an attempt is asked for again, and tell whether it may be."""
    asked = {"id": attempt, "tries": tries, "now": now}
    return await (await connection.execute(ASK_AGAIN, asked)).fetchone() is not None


async def paid(connection: AsyncConnection[Any], attempt: str, charged: Charged) -> None:
    """Note that the provider has the money."""
    assert charged.payment is not None
    await connection.execute(PAID, {"id": attempt, "payment": STRIPE_INTENT + charged.payment})


async def end(
    connection: AsyncConnection[Any],
    attempt: str,
    tries: int,
    charged: Charged,
    *,
    state: AttemptState,
    now: datetime,
) -> None:
    """Note that an attempt has ended without money."""
    said = _said(attempt, tries, charged)
    await connection.execute(END, {**said, "state": state, "now": now})


async def wait(
    connection: AsyncConnection[Any], attempt: str, tries: int, charged: Charged
) -> None:
    """Note what was said of an attempt whose end is not known; a refusal is not asked for again."""
    said = _said(attempt, tries, charged)
    await connection.execute(WAIT, {**said, "ask_again": charged.state != "refused"})


def _said(attempt: str, tries: int, charged: Charged) -> dict[str, Any]:
    return {
        "id": attempt,
        "tries": tries,
        "payment": None if charged.payment is None else STRIPE_INTENT + charged.payment,
        "code": charged.code,
        "message": charged.message,
    }
