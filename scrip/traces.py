"""Traces of LLM requests: when each came, how many tokens it had as context, how many it made.

The columns are those of the Azure LLM inference traces: TIMESTAMP, ContextTokens, GeneratedTokens.
"""

from __future__ import annotations

import csv
import gzip
import io
import random
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

from msgspec import Struct

COLUMNS: Final = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
ROWS_MAX: Final = 5_000_000
TOKENS_MAX: Final = 10**9

# The synthetic workload: log-normal token counts, and gaps between arrivals that are mostly short
# and sometimes long (a gamma distribution with a shape below 1), as requests of people are.
CONTEXT_MU, CONTEXT_SIGMA, CONTEXT_RANGE = 6.8, 1.0, (2, 14_000)
GENERATED_MU, GENERATED_SIGMA, GENERATED_RANGE = 4.9, 0.8, (7, 1_000)
GAP_SECONDS_MEAN, GAP_SHAPE = 0.18, 0.5


class InvalidTrace(Exception):
    """A file that is not a trace; the text says in which line, and why."""


class Row(Struct, frozen=True):
    """One request. `seconds` is when it came, counted from the first one."""

    seconds: float
    context_tokens: int
    generated_tokens: int


def read_trace(path: Path, limit: int | None = None) -> list[Row]:
    """Return the rows of a CSV file, plain or compressed. Raises InvalidTrace, OSError."""
    rows: list[Row] = []
    first: datetime | None = None
    for number, (when, context, generated) in enumerate(_lines(path), start=2):
        if limit is not None and len(rows) >= limit:
            break
        if len(rows) >= ROWS_MAX:
            raise InvalidTrace(f"{path.name} has more than {ROWS_MAX} rows; use --limit")
        try:
            moment = datetime.fromisoformat(when.strip())
            first = moment if first is None else first
            tokens = _count(context), _count(generated)
            seconds = max(0.0, (moment - first).total_seconds())
        except (ValueError, TypeError) as error:
            raise InvalidTrace(f"{path.name}, line {number}: {error}") from error
        rows.append(Row(seconds, *tokens))
    if not rows:
        raise InvalidTrace(f"{path.name} has no rows")
    return rows


def _lines(path: Path) -> Iterator[tuple[str, str, str]]:
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        source = gzip.GzipFile(fileobj=raw) if packed else raw
        text = io.TextIOWrapper(source, "utf-8-sig", newline="")
        try:
            lines = csv.DictReader(text)
            missing = [name for name in COLUMNS if name not in (lines.fieldnames or ())]
            if missing:
                raise InvalidTrace(f"{path.name} has no column {', '.join(missing)}")
            for line in lines:
                if any(line[name] is None for name in COLUMNS):
                    raise InvalidTrace(f"{path.name}, line {lines.line_num}: a column is missing")
                yield line["TIMESTAMP"], line["ContextTokens"], line["GeneratedTokens"]
        except (csv.Error, UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
            raise InvalidTrace(f"{path.name} cannot be read: {error}") from error


def _count(text: str) -> int:
    count = int(text)
    if not 0 <= count <= TOKENS_MAX:
        raise ValueError(f"{count} is not a number of tokens")
    return count


def synthetic_trace(requests: int, seed: int = 1) -> list[Row]:
    """Make up a trace that is shaped like a real one; the same seed always gives the same."""
    chance = random.Random(seed)  # noqa: S311 - not a secret
    rows = []
    seconds = 0.0
    for _ in range(requests):
        rows.append(
            Row(
                round(seconds, 6),
                _within(CONTEXT_RANGE, chance.lognormvariate(CONTEXT_MU, CONTEXT_SIGMA)),
                _within(GENERATED_RANGE, chance.lognormvariate(GENERATED_MU, GENERATED_SIGMA)),
            )
        )
        seconds += chance.gammavariate(GAP_SHAPE, GAP_SECONDS_MEAN / GAP_SHAPE)
    return rows


def _within(bounds: tuple[int, int], value: float) -> int:
    least, most = bounds
    return min(max(round(value), least), most)
