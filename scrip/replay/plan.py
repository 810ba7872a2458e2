"""What a replay will do: which account asks for which job, what it will be charged, what it needs.

A plan is a function of the trace, the rate card and the options, so that the same command always
makes the same ids: a second run repeats the first, and changes nothing.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_CEILING, Decimal
from itertools import accumulate
from typing import Final

from msgspec import Struct

from scrip.traces import Row

FEATURE: Final = "ai_text_chat"
ESTIMATED_OUTPUT_TOKENS: Final = 512
"""What a job reserves for its output, which nobody knows yet. Some make more: drawn later."""

ZIPF_EXPONENT: Final = 1.1
STEM_MAX: Final = 48
PLACES: Final = Decimal("0.000001")
MILLION: Final = Decimal(1_000_000)


class Rates(Struct, frozen=True):
    """What one model costs: credits for a million tokens of each kind, and at least `minimum`."""

    input_per_million: Decimal
    output_per_million: Decimal
    minimum: Decimal

    def cost(self, context_tokens: int, generated_tokens: int) -> Decimal:
        """Return the credits for so many tokens, rounded up at the sixth place."""
        exact = (
            context_tokens * self.input_per_million + generated_tokens * self.output_per_million
        ) / MILLION
        return max(self.minimum, exact.quantize(PLACES, ROUND_CEILING))


class Job(Struct, frozen=True):
    """One request of the trace, of an account. Its id is also that of its reservation."""

    id: str
    account: str
    model: str
    row: Row


class Plan(Struct, frozen=True):
    """All jobs of a replay, by time, and the accounts that ask for them."""

    prefix: str
    feature: str
    jobs: tuple[Job, ...]
    accounts: tuple[str, ...]

    def needs(self, rates: Mapping[str, Rates]) -> dict[str, Decimal]:
        """Return what each account needs, if every job holds its estimate, or more, at once."""
        needs: defaultdict[str, Decimal] = defaultdict(Decimal)
        for job in self.jobs:
            of = rates[job.model]
            context, generated = job.row.context_tokens, job.row.generated_tokens
            needs[job.account] += max(
                of.cost(context, ESTIMATED_OUTPUT_TOKENS), of.cost(context, generated)
            )
        return {name: needs[name] for name in self.accounts}


def make_plan(
    rows: Sequence[Row],
    *,
    name: str,
    models: Iterable[str],
    accounts: int | Sequence[str],
    seed: int = 1,
    prefix: str | None = None,
    feature: str = FEATURE,
) -> Plan:
    """Give every row to an account by a Zipf law: a few ask for much, many for little.

    Without a prefix, one is made of the trace's name and of all that decides the plan.
    """
    choices = sorted(models)
    prefix = prefix or _prefix(name, rows, choices, accounts, seed, feature)
    names = (
        tuple(f"{prefix}-{number:04d}" for number in range(1, accounts + 1))
        if isinstance(accounts, int)
        else tuple(accounts)
    )
    weights = [1 / rank**ZIPF_EXPONENT for rank in range(1, len(names) + 1)]
    chance = random.Random(seed)  # noqa: S311 - not a secret
    owners = chance.choices(names, cum_weights=list(accumulate(weights)), k=len(rows))
    jobs = [
        Job(f"{prefix}-job-{number:06d}", owner, chance.choice(choices), row)
        for number, (owner, row) in enumerate(zip(owners, rows, strict=True), start=1)
    ]
    jobs.sort(key=lambda job: job.row.seconds)
    return Plan(prefix, feature, tuple(jobs), names)


def _prefix(name: str, rows: Sequence[Row], *decided: object) -> str:
    stem = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()[:STEM_MAX] or "trace"
    digest = hashlib.sha256(repr(decided).encode())
    for row in rows:
        digest.update(b"%d,%d;" % (row.context_tokens, row.generated_tokens))
    return f"{stem}-{digest.hexdigest()[:8]}"


def stem_of(file_name: str) -> str:
    """Return a trace's name without the endings of its file."""
    return re.sub(r"(\.csv)?(\.gz)?$", "", file_name, flags=re.IGNORECASE)
