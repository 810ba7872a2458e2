"""Rounds, medians and ratios: the one way in which everything here is measured."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Sequence

from msgspec import Struct


class Contestant(Struct, frozen=True):
    """Something that is measured: `run` does one round and returns units of work a second."""

    name: str
    run: Callable[[], float]


class Figure(Struct, frozen=True):
    """What one contestant did in all rounds."""

    name: str
    median: float
    lowest: float
    highest: float
    ratio: float
    """Median of the ratios to the first contestant, round by round."""


class Comparison(Struct, frozen=True):
    """One table: what was compared, in which unit, and the figures; the first one is 1."""

    title: str
    unit: str
    figures: list[Figure]


def compare(
    title: str,
    unit: str,
    contestants: Sequence[Contestant],
    rounds: int,
    tell: Callable[[str], None],
) -> Comparison:
    """Run all in turn, `rounds` times: A B A B …, so that a drifting machine hurts none."""
    results: list[list[float]] = [[] for _ in contestants]
    for turn in range(rounds):
        for contestant, result in zip(contestants, results, strict=True):
            tell(f"{title}: {contestant.name} ({turn + 1}/{rounds})")
            result.append(contestant.run())
    base = results[0]
    figures = [
        Figure(
            name=contestant.name,
            median=statistics.median(result),
            lowest=min(result),
            highest=max(result),
            ratio=statistics.median(mine / first for mine, first in zip(result, base, strict=True)),
        )
        for contestant, result in zip(contestants, results, strict=True)
    ]
    return Comparison(title, unit, figures)


def machine() -> str:
    """Describe the machine in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.release()},"
        f" Python {platform.python_version()}"
    )
