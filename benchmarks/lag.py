"""How long after a command's answer its effect is seen in the balance, at a steady rate."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.bench import Asked, Bench
from benchmarks.invariants import check_ledger
from benchmarks.ledger_load import account, open_accounts, writing
from benchmarks.measure import Column, Contestant, Goal, Kind, Measured, Table
from benchmarks.paced_load import Outcome, Plan
from benchmarks.services import Services

RATE = 1_000
SAMPLE_EVERY = 10
CONNECTIONS = 128
WARM_SECONDS = 1.0
AT_RATE = f"{RATE} commands/s"
COLUMNS = {
    "commands/s": ("rate", 0),
    "visible p50 ms": ("lag_p50", 1),
    "visible p99 ms": ("lag_p99", 1),
    "command p50 ms": ("command_p50", 1),
    "command p99 ms": ("command_p99", 1),
    "client late p99 ms": ("late_p99", 1),
    "samples": ("samples", 0),
}


def measure(bench: Bench) -> Measured:
    """Measure target 10."""
    accounts, answered = bench.sizes.accounts, 0
    with bench.database() as urls, Services(bench, urls) as services:
        bench.tell("opening accounts")
        with writing(urls.app_url) as writer:
            opened = open_accounts(writer, map(account, range(accounts)))
        port = services.start_api()
        services.start_worker()
        services.settle()

        def paced() -> Mapping[str, float]:
            nonlocal answered
            plan = Plan(
                url=f"http://127.0.0.1:{port}",
                token=services.token,
                run=bench.fresh("run"),
                accounts=accounts,
                rate=RATE,
                # Long enough for a 99th percentile of the samples to mean something.
                seconds=2 * bench.seconds,
                warm_seconds=min(WARM_SECONDS, bench.seconds),
                connections=CONNECTIONS,
                sample_every=SAMPLE_EVERY,
            )
            outcome = bench.ask("benchmarks.paced_load", plan, Outcome)
            answered += outcome.commands
            services.settle()
            return {name: getattr(outcome, field) for name, (field, _) in COLUMNS.items()}

        rows = bench.in_turn([Contestant(AT_RATE, paced)])
        bench.tell("checking")
        checks = check_ledger(urls.app_url, events=opened + answered)
    table = Table(
        title=f"From the answer to the balance, {RATE} commands/s over HTTP",
        columns=[
            Column(name=name, decimals=decimals, spread=name.startswith("visible"))
            for name, (_, decimals) in COLUMNS.items()
        ],
        rows=rows,
    )
    values = table.row(AT_RATE).values
    most: Kind = "at most"
    goals = [
        Goal(
            number=number,
            what=f"commit to visible in GET balance at {RATE} commands/s, {share}",
            kind=most,
            bound=bound,
            unit=" ms",
            values=values[f"visible {share} ms"],
        )
        for number, share, bound in (("10a", "p50", 15), ("10b", "p99", 100))
    ]
    return Measured(how=HOW, tables=[table], goals=goals, checks=checks)


HOW = (
    "Reservations begin at fixed times, whether or not answers have come, and each is captured once"
    f" it is answered; of every {SAMPLE_EVERY}th command the client asks"
    " `GET …/balance?position=…` as soon as it has the answer. What is told is the time from that"
    " answer to the balance that includes it, the reading request and all its waiting included."
)
PART = Asked(name="lag", title="Lag of the balances", turns=1, measure=measure)
