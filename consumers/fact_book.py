"""Facts as they are kept: each once, and found again with all that is connected to it.

Two processes may keep facts of one payment at the same time. Each looks for what is connected after
its own are committed, so at least one of them finds them all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import scalar_row

from ledger.domain.facts import PaymentFact

INSERT_FACTS: Final = """
INSERT INTO scrip.payment_facts (tenant, id, provider, type, delivery, occurred_at, fact)
SELECT * FROM unnest(
    %(tenant)s::text[], %(id)s::text[], %(provider)s::text[], %(type)s::text[],
    %(delivery)s::text[], %(occurred_at)s::timestamptz[], %(fact)s::bytea[])
ON CONFLICT DO NOTHING
"""
INSERT_REFS: Final = """
INSERT INTO scrip.payment_refs (tenant, ref, fact)
SELECT * FROM unnest(%(tenant)s::text[], %(ref)s::text[], %(fact)s::text[])
ON CONFLICT DO NOTHING
"""
SELECT_CONNECTED: Final = """
WITH RECURSIVE connected (ref) AS (
    (SELECT unnest(%(refs)s::text[])
     UNION
     SELECT r.ref FROM scrip.payment_refs r WHERE r.tenant = %(tenant)s AND r.fact = %(fact)s)
    UNION
    SELECT theirs.ref
    FROM connected c
    JOIN scrip.payment_refs ours ON ours.tenant = %(tenant)s AND ours.ref = c.ref
    JOIN scrip.payment_refs theirs ON theirs.tenant = %(tenant)s AND theirs.fact = ours.fact
)
SELECT f.fact
FROM scrip.payment_facts f
WHERE f.tenant = %(tenant)s AND (f.id = %(fact)s OR f.id IN (
    SELECT r.fact FROM connected c
    JOIN scrip.payment_refs r ON r.tenant = %(tenant)s AND r.ref = c.ref))
ORDER BY f.id
"""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(PaymentFact)


class Told(NamedTuple):
    """A fact, and whom it was told to."""

    tenant: str
    fact: PaymentFact


async def keep_facts(connection: AsyncConnection[Any], told: Iterable[Told]) -> None:
    """Keep facts; those that are kept already stay as they are. The caller commits.

    They are written in one order by everybody, so that nobody waits for another in a circle.
    """
    rows = sorted({(tenant, fact.id): fact for tenant, fact in told}.items())
    facts = [fact for _, fact in rows]
    refs = sorted({(tenant, ref, fact.id) for (tenant, _), fact in rows for ref in fact.refs})
    await connection.execute(
        INSERT_FACTS,
        {
            "tenant": [tenant for (tenant, _), _ in rows],
            "id": [fact.id for fact in facts],
            "provider": [fact.provider for fact in facts],
            "type": [fact.type for fact in facts],
            "delivery": [fact.delivery for fact in facts],
            "occurred_at": [fact.occurred_at for fact in facts],
            "fact": [_encoder.encode(fact) for fact in facts],
        },
    )
    await connection.execute(
        INSERT_REFS,
        {
            "tenant": [tenant for tenant, _, _ in refs],
            "ref": [ref for _, ref, _ in refs],
            "fact": [fact for _, _, fact in refs],
        },
    )


async def connected_facts(
    connection: AsyncConnection[Any],
    tenant: str,
    fact: str | None = None,
    refs: Iterable[str] = (),
) -> list[PaymentFact]:
    """Return a fact, and all that are connected to it or to any of `refs`, however far, by id."""
    async with connection.cursor(row_factory=scalar_row, binary=True) as cursor:
        await cursor.execute(SELECT_CONNECTED, {"tenant": tenant, "fact": fact, "refs": list(refs)})
        return [_decoder.decode(row) for row in await cursor.fetchall()]
