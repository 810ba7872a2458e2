"""Payments as they were settled, and the facts that each follows from."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Raw, Struct
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from api.answers import Decimals
from api.fields import Name
from api.paging import bad_cursor
from api.problems import PaymentNotFound
from api.routes import ADMIN, Call, Read
from api.versions import EntriesPage
from ledger.domain.facts import PaymentFact, Provider
from ledger.domain.settled import Delta, Entitlement
from ledger.domain.values import format_decimal
from projections.cursors import InvalidCursor, decode_cursor, page

LIST: Final = "payments"
FACTS_MAX: Final = 500
"""Facts that one answer shows: a subscription of many years has more."""
State = Literal["waiting", "applied", "refused"]

COLUMNS: Final = """
SELECT payment, state, why, account, owners, subscription, offer, amount, starts_at, ends_at,
       revision, first_seen_at, applied_at, told, fact
FROM scrip.payments
WHERE tenant = %(tenant)s
"""
SELECT_ONE: Final = COLUMNS + " AND payment = %(payment)s"
SELECT_PAGE: Final = (
    COLUMNS
    + """
  AND (%(state)s::text IS NULL OR state = %(state)s)
  AND (%(account)s::text IS NULL OR account = %(account)s)
  AND (%(before)s::timestamptz IS NULL OR first_seen_at < %(before)s
       OR (first_seen_at = %(before)s AND payment > %(after)s))
ORDER BY first_seen_at DESC, payment LIMIT %(rows)s
"""
)
# Facts that name the same payment or subscription are of one group, and so on from each of them.
SELECT_FACTS = """
WITH RECURSIVE connected (fact) AS (
    SELECT %(fact)s::text
    UNION
    SELECT other.fact FROM connected
    JOIN scrip.payment_refs AS own ON own.tenant = %(tenant)s AND own.fact = connected.fact
    JOIN scrip.payment_refs AS other ON other.tenant = %(tenant)s AND other.ref = own.ref
)
SELECT f.fact, f.recorded_at FROM connected AS c
JOIN scrip.payment_facts AS f ON f.tenant = %(tenant)s AND f.id = c.fact
ORDER BY f.occurred_at DESC, f.id LIMIT %(rows)s
"""


class PaymentOut(Struct, kw_only=True):
    """One payment, one paid period of a subscription, or one change by a user system."""

    payment: str
    state: State
    why: Annotated[
        str | None,
        Meta(
            description="Why it waits (`account_unknown`, `account_not_found`), or the code of the"
            " refusal."
        ),
    ]
    account: str | None
    owners: list[str]
    subscription: str | None
    offer: Annotated[str | None, Meta(description="The key of the plan or pack.")]
    amount: Annotated[
        Decimals,
        Meta(description="Credits: granted and bonus, less what went back; signed for a change."),
    ]
    starts_at: datetime | None
    ends_at: datetime | None
    revision: Annotated[int, Meta(description="From how many facts it follows.")]
    first_seen_at: datetime
    applied_at: datetime | None


class PaymentFactOut(Struct, kw_only=True):
    """One thing that a provider told: it is kept as it was, whatever follows from it."""

    id: str
    provider: Provider
    type: Annotated[str, Meta(description="The provider's name for what happened.")]
    delivery: str
    occurred_at: datetime
    recorded_at: datetime
    refs: list[str]
    owners: list[str]
    content: Any


class PaymentDetail(PaymentOut, kw_only=True):
    """A payment, what it entitles to, and all facts connected to it, the latest first."""

    credits: Decimals
    bonus: Decimals
    reversed: Annotated[Decimals, Meta(description="How much of `credits` is to go back.")]
    bonus_reversed: Decimals
    frozen: Annotated[bool, Meta(description="Whether a dispute is open.")]
    facts: list[PaymentFactOut]
    more_facts: Annotated[bool, Meta(description=f"Whether there are more than {FACTS_MAX}.")]


class PaymentList(Struct, frozen=True, kw_only=True):
    """Payments, the latest first."""

    data: list[PaymentOut]
    next_cursor: str | None


class PaymentsQuery(EntriesPage, frozen=True, kw_only=True):
    """Which payments to list."""

    state: State | None = None
    account: Name | None = None


async def _list(call: Call, query: PaymentsQuery) -> PaymentList:
    before, after = None, ""
    if query.cursor is not None:
        try:
            before, after = decode_cursor(LIST, tuple[datetime, str], query.cursor)
        except InvalidCursor as error:
            raise bad_cursor(error) from None
    parameters = {
        "tenant": call.tenant,
        "state": query.state,
        "account": query.account,
        "before": before,
        "after": after,
        "rows": query.limit + 1,
    }
    async with call.room.deps.pool.connection() as connection:
        rows = await _rows(connection, SELECT_PAGE, parameters)
    found = page(LIST, rows, query.limit, lambda row: (row["first_seen_at"], row["payment"]))
    data = [PaymentOut(**_members(row)) for row in found.data]
    return PaymentList(data=data, next_cursor=found.next_cursor)


async def _read(call: Call, _: object) -> PaymentDetail:
    asked = {"tenant": call.tenant, "payment": call.path["payment"]}
    async with call.room.deps.pool.connection() as connection:
        rows = await _rows(connection, SELECT_ONE, asked)
        if not rows:
            raise PaymentNotFound(payment=call.path["payment"])
        (row,) = rows
        of = {"tenant": call.tenant, "fact": row["fact"], "rows": FACTS_MAX + 1}
        facts = await _rows(connection, SELECT_FACTS, of)
    return PaymentDetail(
        **_members(row),
        **_told(row["told"]),
        facts=[_fact(**one) for one in facts[:FACTS_MAX]],
        more_facts=len(facts) > FACTS_MAX,
    )


async def _rows(
    connection: AsyncConnection[Any], query: str, parameters: dict[str, Any]
) -> list[dict[str, Any]]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        # Never prepared: the plan for one state or account is not the plan for all.
        return await (await cursor.execute(query.encode(), parameters, prepare=False)).fetchall()


def _members(row: dict[str, Any]) -> dict[str, Any]:
    members = {
        name: value.astimezone(UTC) if isinstance(value, datetime) else value
        for name, value in row.items()
        if name not in {"told", "fact"}
    }
    return members | {"amount": format_decimal(row["amount"])}


def _told(told: bytes) -> dict[str, Any]:
    """Return what a payment entitles to; a change of credits entitles to its amount."""
    if "delta" in msgspec.json.decode(told, type=dict[str, Raw]):
        given = msgspec.json.decode(told, type=Delta).amount
        entitled = {"credits": given, "bonus": 0, "reversed": 0, "bonus_reversed": 0}
        frozen = False
    else:
        whole = msgspec.json.decode(told, type=Entitlement)
        entitled = {
            name: getattr(whole, name)
            for name in ("credits", "bonus", "reversed", "bonus_reversed")
        }
        frozen = whole.frozen
    shown: dict[str, Any] = {name: format_decimal(value) for name, value in entitled.items()}
    return shown | {"frozen": frozen}


def _fact(fact: bytes, recorded_at: datetime) -> PaymentFactOut:
    told = msgspec.json.decode(fact, type=PaymentFact)
    return PaymentFactOut(
        id=told.id,
        provider=told.provider,
        type=told.type,
        delivery=told.delivery,
        occurred_at=told.occurred_at,
        recorded_at=recorded_at.astimezone(UTC),
        refs=list(told.refs),
        owners=list(told.owners),
        content=told.content,
    )


LIST_PAYMENTS = Read(
    method="GET",
    path="/v1/payments",
    name="list_payments",
    tag="payments",
    summary="List payments, the latest first: applied ones, refused ones, and those that wait",
    roles=ADMIN,
    query=PaymentsQuery,
    handle=_list,
    answer=PaymentList,
)
READ_PAYMENT = Read(
    method="GET",
    path="/v1/payments/{payment}",
    name="read_payment",
    tag="payments",
    summary="Read a payment, with all that was told about it",
    roles=ADMIN,
    refusals=(PaymentNotFound,),
    handle=_read,
    answer=PaymentDetail,
)
