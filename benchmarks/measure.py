"""What is kept of a run: every figure of every round; medians, spread and ratios follow from them.

A part of the run measures a few contestants in turn, round by round: A B A B …, so that a machine
that drifts hurts none of them. Ratios are taken within a round, then their median.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from msgspec import Struct

TIMES = "\N{MULTIPLICATION SIGN}"
Kind = Literal["at least", "at most"]
Values = dict[str, list[float]]
"""By the name of a measure: one figure a round."""


class Contestant(Struct, frozen=True):
    """Something that is measured: `run` does one round and returns its figures by name."""

    name: str
    run: Callable[[], Mapping[str, float]]


class Column(Struct, frozen=True, kw_only=True):
    """One measure of a table. With `spread`, lowest and highest stand beside the median."""

    name: str
    decimals: int = 0
    spread: bool = False


class Row(Struct, frozen=True):
    """One contestant's figures, of all rounds."""

    name: str
    values: Values


class Table(Struct, frozen=True, kw_only=True):
    """What was measured together. `ratio` names a column, `bases` the rows it is compared with."""

    title: str
    columns: list[Column]
    rows: list[Row]
    ratio: str | None = None
    bases: list[str] = []

    def row(self, name: str) -> Row:
        """Return the row of this name."""
        return next(row for row in self.rows if row.name == name)

    def ratios(self, name: str, base: str, column: str | None = None) -> list[float]:
        """Return how many times `base` a row is, round by round."""
        of = column or self.ratio
        assert of is not None
        return quotients(self.row(name).values[of], self.row(base).values[of])


class Goal(Struct, frozen=True, kw_only=True):
    """A target of the specification, by its number there, and what was reached, round by round."""

    number: str
    what: str
    kind: Kind
    bound: float
    unit: str
    values: list[float]
    decimals: int = 1

    @property
    def reached(self) -> float:
        """The median."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool:
        """Whether the median reaches the bound."""
        return self.reached >= self.bound if self.kind == "at least" else self.reached <= self.bound

    @property
    def verdict(self) -> str:
        """`met`, or how far from it."""
        if self.met:
            return "met"
        share = abs(self.reached - self.bound) / self.bound
        return f"not met: {share:.0%} {'below' if self.kind == 'at least' else 'above'}"


class Measured(Struct, frozen=True, kw_only=True):
    """What a part brings home. `how` says what was done, `checks` what was asserted at the end.

    `rounds` is given where it is not that of the run.
    """

    how: str
    tables: list[Table]
    goals: list[Goal] = []
    checks: list[str] = []
    rounds: int | None = None


class Part(Struct, frozen=True, kw_only=True):
    """A part of the run as it is kept: its figures, or why there are none."""

    name: str
    title: str
    at: str
    seconds: float
    size: str
    rounds: int
    measured: Measured | None = None
    failed: str | None = None


class Report(Struct, frozen=True, kw_only=True):
    """Everything that is kept of a run: the machine, and the parts in their order."""

    machine: dict[str, str]
    parts: list[Part] = []

    def part(self, name: str) -> Part | None:
        """Return the part of this name, if it was run."""
        return next((part for part in self.parts if part.name == name), None)

    def with_part(self, part: Part, order: Sequence[str]) -> Report:
        """Return the report with a part in the place of one of the same name."""
        parts = [one for one in self.parts if one.name != part.name] + [part]
        parts.sort(key=lambda one: order.index(one.name))
        return Report(machine=self.machine, parts=parts)


def in_turn(
    contestants: Sequence[Contestant], rounds: int, tell: Callable[[str], None]
) -> list[Row]:
    """Run each contestant once a round, and return a row for each. `tell` hears who is next."""
    rows = [Row(contestant.name, {}) for contestant in contestants]
    for turn in range(rounds):
        for contestant, row in zip(contestants, rows, strict=True):
            tell(f"{contestant.name} ({turn + 1}/{rounds})")
            for measure, value in contestant.run().items():
                row.values.setdefault(measure, []).append(value)
    return rows


def quotients(values: Sequence[float], bases: Sequence[float]) -> list[float]:
    """Return the ratio of each round; 0 where a turn was too short for anything to be counted."""
    return [value / base if base else 0.0 for value, base in zip(values, bases, strict=True)]


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the ordered values lie, 0 if there are none."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
