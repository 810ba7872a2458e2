"""What an API process holds in memory: with many accounts, and after a long history."""

from __future__ import annotations

import http.client
import json
from http import HTTPStatus

import psycopg

from benchmarks.bench import Asked, Bench, Failed
from benchmarks.invariants import check_ledger
from benchmarks.ledger_load import account, batched, open_accounts, writing
from benchmarks.measure import TIMES, Column, Goal, Measured, Row, Table
from benchmarks.services import Services, metric, resident_megabytes
from scrip.embedded import DatabaseUrls
from scrip.spawn import HOST

IDLE, CACHED = "MB after its start", "MB with the accounts in memory"
AT_ONCE = 500
ROWS_AT_ONCE = 200_000
REQUEST_SECONDS_MAX = 60.0
PLAIN, LATER = "a store of such accounts", "the same with {} other events"
STREAMS_CACHED = "scrip_writer_cached_streams"
# Random identifiers would go to random pages of three indexes, which soon outgrow PostgreSQL's
# memory: a million of them took nearly twice as long. Those of version 7 rise.
COPY = """
INSERT INTO scrip.ledger_events (originator_id, originator_version, topic, state, tenant, account,
    subject, key, content, recorded_at, hash)
SELECT uuidv7(), 1, e.topic, e.state, 'history', 'account-' || n, 'job-' || n,
    'key-' || n, sha256(n::text::bytea), e.recorded_at, sha256(('hash-' || n)::bytea)
FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n CROSS JOIN (
    SELECT * FROM scrip.ledger_events WHERE topic LIKE 'credits.deducted.%%' LIMIT 1) AS e
"""


def touch(port: int, token: str, names: list[str], run: str) -> None:
    """Spend something on every account, so that the process has it in memory."""
    connection = http.client.HTTPConnection(HOST, port, timeout=REQUEST_SECONDS_MAX)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    for some in batched(names, AT_ONCE):
        commands = [
            {"op": "deduct", "account": name, "amount": "1", "key": f"{run}-{name}"}
            for name in some
        ]
        body = json.dumps({"commands": commands})
        headers["Idempotency-Key"] = f"{run}-{some[0]}"
        connection.request("POST", "/v1/batch", body, headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        if response.status != HTTPStatus.OK or any(
            result["status"] >= HTTPStatus.BAD_REQUEST for result in answer["results"]
        ):
            raise Failed(str(answer)[:500])
    connection.close()


def resident(bench: Bench, urls: DatabaseUrls, names: list[str], name: str) -> Row:
    """Return the memory of a process of its own, before and after it has touched all accounts."""
    bench.tell(name)
    with Services(bench, urls) as services:
        port = services.start_api()
        idle = resident_megabytes(services.children["api"])
        touch(port, services.token, names, bench.fresh("run"))
        held = metric(port, STREAMS_CACHED)
        assert held >= len(names), f"{held:g} of {len(names)} accounts are in memory"
        return Row(name, {IDLE: [idle], CACHED: [resident_megabytes(services.children["api"])]})


def lengthen(bench: Bench, urls: DatabaseUrls) -> None:
    """Put a long history of other accounts into the store: rows as others, made by the database."""
    wanted = bench.sizes.history
    with psycopg.connect(urls.owner_url, autocommit=True) as connection:
        for first in range(1, wanted + 1, ROWS_AT_ONCE):
            bench.tell(f"a long history: {first - 1} of {wanted} events")
            last = min(wanted, first + ROWS_AT_ONCE - 1)
            made = connection.execute(COPY, {"first": first, "last": last}).rowcount
            assert made == last - first + 1, f"{made} events were made from {first} to {last}"
        # Whoever reads next must not depend on whether the autovacuum has come by already.
        connection.execute("ANALYZE scrip.ledger_events")


def measure(bench: Bench) -> Measured:
    """Measure target 12."""
    count, history = bench.sizes.cached, bench.sizes.history
    # Accounts that nobody has touched before, for either process: what it holds of each is alike.
    first, second = (
        [account(number) for number in range(start, start + count)] for start in (0, count)
    )
    later = LATER.format(history)
    with bench.database() as urls:
        bench.tell("opening accounts")
        with writing(urls.app_url) as writer:
            events = open_accounts(writer, first + second)
        rows = [resident(bench, urls, first, PLAIN)]
        lengthen(bench, urls)
        rows.append(resident(bench, urls, second, later))
        bench.tell("checking")
        checks = check_ledger(urls.app_url, events=events + 2 * count)
    table = Table(
        title=f"Resident memory of an API process, {count} accounts",
        columns=[Column(name=IDLE), Column(name=CACHED)],
        rows=rows,
        ratio=CACHED,
        bases=[PLAIN],
    )
    goals = [
        Goal(
            number="12a",
            what=f"memory of an API process with {count} accounts in memory",
            kind="at most",
            bound=500,
            unit=" MB",
            values=table.row(PLAIN).values[CACHED],
            decimals=0,
        ),
        Goal(
            number="12b",
            what=f"the same with {history} other events in the store: unchanged",
            kind="at most",
            bound=1.05,
            unit=TIMES,
            values=table.ratios(later, PLAIN),
            decimals=2,
        ),
    ]
    return Measured(how=HOW, tables=[table], goals=goals, checks=checks, rounds=1)


HOW = (
    "`scrip serve api`, which spends once on each account; /metrics says that it holds them all."
    " The long history are rows of streams that nobody asks for, made inside the database in the"
    " likeness of a deduction: for these, and only for these, there is no hash chain to prove."
)
PART = Asked(name="memory", title="Memory", turns=1, measure=measure)
