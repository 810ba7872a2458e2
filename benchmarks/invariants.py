"""What must be so in the ledger whatever was measured. A figure from a wrong ledger is none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
from psycopg.rows import tuple_row

from benchmarks.document import number
from benchmarks.ledger_load import TENANT
from ledger.codec import decode
from ledger.domain.events import CreditsDeducted, ReservationCaptured
from ledger.verify import verify

ROWS_AT_ONCE = 10_000
COUNT = "SELECT count(*) FROM scrip.ledger_events WHERE tenant = %(tenant)s"
LAST_OF_EACH = """
SELECT DISTINCT ON (originator_id) topic, state FROM scrip.ledger_events
WHERE tenant = %(tenant)s AND account IS NOT NULL ORDER BY originator_id, originator_version DESC
"""
SPENDINGS = """
SELECT topic, state FROM scrip.ledger_events WHERE tenant = %(tenant)s
AND (topic LIKE 'reservation.captured.%%' OR topic LIKE 'credits.deducted.%%')
"""


def check_ledger(url: str, *, events: int, reserved: int = 0) -> list[str]:
    """Assert that the benchmark's tenant has a ledger that is right; return what was asserted.

    `events` is how many there must be; `reserved` is what may be left reserved, in millionths.
    """
    with psycopg.connect(url, row_factory=tuple_row) as connection:
        row = connection.execute(COUNT, {"tenant": TENANT}).fetchone()
        assert row is not None
        assert row[0] == events, f"{row[0]} events where {events} were answered"
        accounts = held = consumed = 0
        for name, state in _rows(connection, LAST_OF_EACH):
            balance = decode(name, state).balance
            assert balance is not None
            assert balance.holds(), balance
            accounts += 1
            held += balance.reserved
            consumed += balance.consumed
        assert held == reserved, f"{held} reserved where it should be {reserved}"
        spent = 0
        for name, state in _rows(connection, SPENDINGS):
            event = decode(name, state).event
            assert isinstance(event, ReservationCaptured | CreditsDeducted)
            spent += event.amount
        assert spent == consumed, f"deductions add up to {spent}, consumed is {consumed}"
    wrong = list(verify(url, tenant=TENANT))
    assert not wrong, wrong[:3]
    return [
        f"one event for each of {number(events, 0)} answered commands",
        f"the balance identity, the hash chain and the books of {number(accounts, 0)} accounts",
        "nothing is left reserved" if not reserved else "what is reserved is what was left open",
        "all deductions add up to what is consumed",
    ]


def _rows(connection: psycopg.Connection[Any], query: LiteralString) -> Iterator[tuple[Any, ...]]:
    with connection.cursor(name="invariants", row_factory=tuple_row) as cursor:
        cursor.itersize = ROWS_AT_ONCE
        cursor.execute(query, {"tenant": TENANT})
        yield from cursor
