"""Periods of a plan: where each begins and ends, counted from an anchor on the clock of a zone.

Period k begins k months (or years) after the anchor: on the anchor's day, or on the last of a month
that has no such day, at the anchor's time of day in the account's zone. It is always counted from
the anchor, never from the period before, so that a 31st comes back after February. A period holds
its start and not its end, which is the start of the next.

Where the clock of the zone skips a time of day, the period begins when the clock goes on; where it
shows it twice, at the first.
"""

from __future__ import annotations

from bisect import bisect_left
from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from msgspec import Struct
from msgspec.structs import replace

from ledger.domain.offers import Period

MONTHS: Final[dict[Period, int]] = {"month": 1, "year": 12}
MONTHS_A_YEAR: Final = 12


class Span(NamedTuple):
    """One period, `[start, end)`, in UTC. Numbers count on for ever, also over changes."""

    number: int
    start: datetime
    end: datetime


class Schedule(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """When the periods of one rule (a plan that an account has) begin.

    Only what is asked for when it is made is `anchor`, `zone` and `unit`. The rest says how it goes
    on from another (`changed`).
    """

    anchor: datetime
    """An instant, in UTC. The first period begins there, and others at its day and time of day."""
    zone: str
    """The IANA name of the zone whose clock decides."""
    unit: Period
    first: int = 0
    """The index of the first period that this schedule rules."""
    since: datetime | None = None
    """When that period begins, if not at the anchor: where the period before it has ended."""
    steps: int = 0
    """How many units after the anchor that period would begin, had the rule been so before."""
    read_in: str | None = None
    """The zone in which the anchor's day and time of day are read, if it is not `zone`."""

    @property
    def begins(self) -> datetime:
        """The start of the first period. Nothing of this schedule is due before."""
        return self.since or self.anchor

    def period(self, index: int) -> Span:
        """Return the period with this index. Raises ValueError for one before the first."""
        if index < self.first:
            raise ValueError("this schedule has no period of that index")
        return Span(index, self._start(index), self._start(index + 1))

    def at(self, when: datetime) -> Span:
        """Return the period that holds `when`. Raises ValueError before the first."""
        if when < self.begins:
            raise ValueError("no period of this schedule has begun by then")
        # The first of a changed schedule may begin before its step.
        return self.period(self.first + max(0, self._step_at(when) - self.steps))

    def due(self, after: int | None, now: datetime) -> Iterator[Span]:
        """Yield the periods that have begun by `now`, in order, from the one after index `after`.

        None: from the first. For a rule that nobody looked at for long, as for one looked at often.
        """
        index = self.first if after is None else max(after + 1, self.first)
        while self._start(index) <= now:
            yield self.period(index)
            index += 1

    def _start(self, index: int) -> datetime:
        if index == self.first:
            return self.begins
        return self._boundary(self.steps + index - self.first)

    def _boundary(self, step: int) -> datetime:
        """Return the instant `step` units after the anchor, on the clock of the zone."""
        wall = self._wall()
        months = wall.year * MONTHS_A_YEAR + wall.month - 1 + step * MONTHS[self.unit]
        year, month = months // MONTHS_A_YEAR, months % MONTHS_A_YEAR + 1
        day = min(wall.day, monthrange(year, month)[1])
        return instant(wall.replace(year=year, month=month, day=day), self.zone)

    def _step_at(self, when: datetime) -> int:
        """Return the last step whose boundary is not after `when`."""
        wall, local = self._wall(), when.astimezone(ZoneInfo(self.zone))
        months = (local.year - wall.year) * MONTHS_A_YEAR + local.month - wall.month
        step = months // MONTHS[self.unit]
        # The months alone are one off at most: the day decides, and what the clock does at night.
        while when < self._boundary(step):
            step -= 1
        while self._boundary(step + 1) <= when:
            step += 1
        return step

    def _wall(self) -> datetime:
        zone = ZoneInfo(self.read_in or self.zone)
        return self.anchor.astimezone(zone).replace(tzinfo=None, fold=0)


def period(anchor: datetime, zone: str, unit: Period, index: int) -> Span:
    """Return the period with this index; period 0 begins at the anchor."""
    return Schedule(anchor=anchor, zone=zone, unit=unit).period(index)


def period_at(anchor: datetime, zone: str, unit: Period, when: datetime) -> Span:
    """Return the period that holds `when`. Raises ValueError before the anchor."""
    return Schedule(anchor=anchor, zone=zone, unit=unit).at(when)


def changed(
    schedule: Schedule, when: datetime, *, zone: str | None = None, anchor: datetime | None = None
) -> Schedule:
    """Return the schedule that takes over where the period that holds `when` ends.

    That period ends as it would have. The next one begins there, under the next index, and ends
    one unit after that boundary of the new schedule which is nearest to its start (of two equally
    near, the later): it is as long as others but for the hours between two zones, or, with a new
    anchor, half a unit shorter or longer at most. With a new zone alone, the anchor keeps its day
    and time of day. A second change in the same period is made from the same running schedule,
    states all that is new, and takes the place of the first.
    """
    running = schedule.at(when)
    read_in = schedule.read_in or schedule.zone
    new = Schedule(
        anchor=anchor or schedule.anchor,
        zone=zone or schedule.zone,
        unit=schedule.unit,
        first=running.number + 1,
        since=running.end,
        read_in=None if anchor is not None or read_in == (zone or schedule.zone) else read_in,
    )
    step = new._step_at(running.end)  # noqa: SLF001 - of the same module
    before, after = (new._boundary(step + more) for more in (0, 1))  # noqa: SLF001
    if after - running.end <= running.end - before:
        step += 1
    return replace(new, steps=step)


def is_zone(name: str) -> bool:
    """Tell whether this is the name of a zone whose clock is known here."""
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError):  # Unknown; a folder of zones; no path one may ask for.
        return False
    return True


def days_after(anchor: datetime, zone: str, days: int) -> datetime:
    """Return the instant so many days after the anchor, at its time of day in the zone."""
    wall = anchor.astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0)
    return instant(wall + timedelta(days=days), zone) if days else anchor


def instant(wall: datetime, zone: str) -> datetime:
    """Return when the clock of a zone shows `wall` (without a zone), in UTC.

    The first time, if it does so twice. If it skips that time: when it goes on after the gap.
    """
    first = wall.replace(tzinfo=ZoneInfo(zone), fold=0)
    second = first.replace(fold=1)
    before, after = first.utcoffset(), second.utcoffset()
    assert before is not None
    assert after is not None
    if before >= after:
        return first.astimezone(UTC)
    return _end_of_gap(second.astimezone(UTC), first.astimezone(UTC), ZoneInfo(zone), after)


def _end_of_gap(early: datetime, late: datetime, zone: ZoneInfo, offset: timedelta) -> datetime:
    """Return the first instant with this offset, which is after `early` and not after `late`.

    Clocks are changed at whole seconds. A gap is a day at most, so this takes 17 steps at most.
    """
    start = early.replace(microsecond=0)
    seconds = range((late - start) // timedelta(seconds=1) + 1)
    passed = bisect_left(
        seconds,
        1,
        key=lambda one: (start + timedelta(seconds=one)).astimezone(zone).utcoffset() == offset,
    )
    return start + timedelta(seconds=passed)
