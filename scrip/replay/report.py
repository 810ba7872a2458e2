"""What a replay found: its speed, its sums, and whether they agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from msgspec import Struct, field
from rich.console import Console
from rich.table import Table

SHOWN_MAX: Final = 20
"""Differences that are shown one by one; the report's file holds all of them."""


class Percentiles(Struct, frozen=True):
    """Times in milliseconds: half of all were faster than `p50`, and so on."""

    count: int
    p50: float
    p90: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Percentiles | None:
        """Return the percentiles of some durations, None where there is none."""
        if not seconds:
            return None
        ordered = sorted(seconds)

        def at(share: float) -> float:
            return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)] * 1_000, 3)

        return cls(len(ordered), at(0.5), at(0.9), at(0.99), at(1))


class Check(Struct, frozen=True):
    """One thing that must be so, and each case in which it is not."""

    name: str
    differences: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it is so everywhere."""
        return not self.differences


class Sums(Struct, kw_only=True):
    """Credits of all jobs of a replay together."""

    reserved: Decimal = Decimal(0)
    captured: Decimal = Decimal(0)
    expected: Decimal = Decimal(0)
    released: Decimal = Decimal(0)
    drawn_beyond: Decimal = Decimal(0)


class Report(Struct, kw_only=True):
    """All of it. Times are in seconds, but for the percentiles."""

    prefix: str
    speed: str
    requests: int
    accounts: int
    replayed: int = 0
    seconds: float = 0.0
    reserve_seconds: float = 0.0
    requests_per_second: float = 0.0
    captures_per_second: float = 0.0
    reserve_ms: Percentiles | None = None
    captured_ms: Percentiles | None = None
    events: int = 0
    events_before: int = 0
    retries: dict[str, int] = {}
    client_cpu_seconds: float = 0.0
    sums: Sums = field(default_factory=Sums)
    checks: tuple[Check, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything agrees."""
        return bool(self.checks) and all(check.ok for check in self.checks)


def show(report: Report, console: Console) -> None:
    """Print a report for people."""
    table = Table(title=f"Replay {report.prefix}", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right", no_wrap=True)
    for name, value in _lines(report):
        table.add_row(name, value)
    console.print(table)
    for check in report.checks:
        mark = "[green]✓[/green]" if check.ok else "[bold red]✗[/bold red]"
        console.print(f"{mark} {check.name}")
        for difference in check.differences[:SHOWN_MAX]:
            console.print(f"    {difference}", style="red", markup=False)
        if len(check.differences) > SHOWN_MAX:
            console.print(f"    … and {len(check.differences) - SHOWN_MAX} more", style="red")


def _lines(report: Report) -> list[tuple[str, str]]:
    sums = report.sums
    lines = [
        ("requests", f"{report.requests:,}"),
        ("accounts", f"{report.accounts:,}"),
        ("credits reserved", f"{sums.reserved:,f}"),
        ("credits captured", f"{sums.captured:,f}"),
        ("credits released", f"{sums.released:,f}"),
        ("credits drawn beyond a reservation", f"{sums.drawn_beyond:,f}"),
        ("events before → after", f"{report.events_before:,} → {report.events:,}"),
        ("reservations repeated, not made again", f"{report.replayed:,}"),
        ("seconds", f"{report.seconds:,.1f}"),
        ("requests/s (reserved, event sent)", f"{report.requests_per_second:,.0f}"),
        ("requests/s to the last capture", f"{report.captures_per_second:,.0f}"),
    ]
    for name, of in (("reserve", report.reserve_ms), ("captured after", report.captured_ms)):
        if of is not None:
            value = f"{of.p50:,.1f} / {of.p90:,.1f} / {of.p99:,.1f} / {of.max:,.1f}"
            lines.append((f"{name}, ms p50/p90/p99/max", value))
    lines.append(("CPU of this client, seconds", f"{report.client_cpu_seconds:,.1f}"))
    lines += [(f"repeated after {why}", f"{n:,}") for why, n in sorted(report.retries.items())]
    return lines
