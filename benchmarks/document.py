"""The report as text: Markdown tables, put between the marks of a page that people write.

A page holds pairs of lines `<!-- figures: NAME -->` and `<!-- end of figures -->`. What is between
them is made here from the JSON and from nothing else; what is around them is never touched.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence

from benchmarks.measure import TIMES, Column, Goal, Part, Report, Table

MARK = "<!-- figures: {} -->"
END = "<!-- end of figures -->"
TO = "\N{EN DASH}"
NOT_MEASURED = "Not measured yet."
_PLACE = re.compile(r"<!-- figures: ([a-z-]+) -->\n.*?<!-- end of figures -->", re.DOTALL)


class UnknownFigures(Exception):
    """A page asks for figures that no part of the benchmark makes."""


def fill(page: str, report: Report, names: Sequence[str]) -> str:
    """Return `page` with the figures of `report` in their places. Raises UnknownFigures."""

    def between(match: re.Match[str]) -> str:
        name = match[1]
        match name:
            case "machine":
                text = _machine(report)
            case "goals":
                text = _goals([goal for part in report.parts for goal in goals_of(part)])
            case _ if name in names:
                text = _part(report.part(name))
            case _:
                raise UnknownFigures(name)
        return f"{MARK.format(name)}\n{text}\n{END}"

    return _PLACE.sub(between, page)


def places(page: str) -> list[str]:
    """Return the names of the figures that a page asks for."""
    return _PLACE.findall(page)


def goals_of(part: Part) -> list[Goal]:
    """Return the goals of a part, none if it failed."""
    return part.measured.goals if part.measured else []


def number(value: float, decimals: int) -> str:
    """Write a figure: 12 345.6, with spaces that do not break."""
    return f"{value:,.{decimals}f}".replace(",", "\N{NO-BREAK SPACE}")


def cell(values: Sequence[float], column: Column) -> str:
    """Write the median of the rounds and, if the column asks for it, their spread."""
    if not values:
        return ""
    median = number(statistics.median(values), column.decimals)
    if not column.spread or len(values) == 1:
        return median
    lowest, highest = (number(pick(values), column.decimals) for pick in (min, max))
    return f"{median} ({lowest}{TO}{highest})"


def lines_of(table: Table) -> list[list[str]]:
    """Return a table's cells: its headings, then its rows, with a ratio for each base."""
    heads = ["", *(column.name for column in table.columns)]
    heads += [f"{TIMES} {base}" if len(table.bases) > 1 else "ratio" for base in table.bases]
    lines = [heads]
    for row in table.rows:
        line = [row.name]
        line += [cell(row.values.get(column.name, []), column) for column in table.columns]
        line += [number(statistics.median(table.ratios(row.name, base)), 2) for base in table.bases]
        lines.append(line)
    return lines


def goal_cells(goal: Goal) -> list[str]:
    """Return what is told of a goal: number, what, target, reached, verdict."""
    sign = "≥" if goal.kind == "at least" else "≤"
    decimals = next(n for n in range(4) if round(goal.bound, n) == goal.bound)
    return [
        goal.number,
        goal.what,
        f"{sign} {number(goal.bound, decimals)}{goal.unit}",
        number(goal.reached, goal.decimals) + goal.unit,
        goal.verdict,
    ]


GOAL_HEADS = ("#", "measure", "target", "reached", "")


def _markdown(lines: Sequence[Sequence[str]], left: Sequence[int]) -> str:
    heads, *rows = lines
    rule = ["---" if place in left else "---:" for place in range(len(heads))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (heads, rule, *rows))


def _machine(report: Report) -> str:
    lines = [["", ""], *([name, text] for name, text in report.machine.items())]
    days = sorted({part.at[:10] for part in report.parts})
    if days:
        lines.append(["Measured on", days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"])
    return _markdown(lines, (0, 1))


def _goals(goals: Sequence[Goal]) -> str:
    if not goals:
        return NOT_MEASURED
    ordered = sorted(goals, key=lambda goal: (int(goal.number.rstrip("abc")), goal.number))
    return _markdown([GOAL_HEADS, *(goal_cells(goal) for goal in ordered)], (0, 1, 4))


def _part(part: Part | None) -> str:
    if part is None or part.measured is None:
        return NOT_MEASURED if part is None else f"Not measured: {part.failed}"
    measured = part.measured
    count = measured.rounds or part.rounds
    rounds = "one round" if count == 1 else f"medians of {count} rounds in turn"
    blocks = [f"{measured.how} ({rounds}; sizes: {part.size}.)"]
    blocks += [
        f"**{table.title}**\n\n" + _markdown(lines_of(table), (0,)) for table in measured.tables
    ]
    if measured.goals:
        cells = [GOAL_HEADS, *(goal_cells(goal) for goal in measured.goals)]
        blocks.append(_markdown(cells, (0, 1, 4)))
    if measured.checks:
        blocks.append("Checked at the end: " + "; ".join(measured.checks) + ".")
    return "\n\n".join(blocks)
