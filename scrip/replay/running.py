"""A replay, from the first reservation to the last check."""

from __future__ import annotations

import asyncio
import resource
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from msgspec import Struct

from scrip.replay.caller import Caller, account_path
from scrip.replay.checks import check
from scrip.replay.funding import fund
from scrip.replay.ledger_events import AccountEvents, Follower, newest_balance, read_account
from scrip.replay.messages import Sender, succeeded
from scrip.replay.plan import ESTIMATED_OUTPUT_TOKENS, Job, Plan, Rates
from scrip.replay.report import Check, Percentiles, Report

CONCURRENCY_DEFAULT: Final = 64
TTL_SECONDS: Final = 24 * 3600
"""Long, so that a replay may be stopped, and gone on with later."""

FOLLOW_SECONDS: Final = 0.5
STALL_SECONDS: Final = 120.0
"""How long to wait for the next capture before those that are missing are reported."""
CLOCK_SECONDS: Final = 60
"""How far the server's clock may be behind this one's."""


class Progress(Protocol):
    """Whoever wants to be told how far a replay has come."""

    def reserved(self, count: int) -> None:
        """So many jobs are reserved, and their events sent."""

    def captured(self, count: int) -> None:
        """So many jobs are captured."""

    def checking(self) -> None:
        """All is done; now it is checked."""


class Speed(Struct, frozen=True):
    """How fast the trace is replayed: `factor` times its own speed; None: as fast as it goes."""

    factor: float | None = None

    @classmethod
    def parse(cls, text: str) -> Speed:
        """Understand `real`, `max` or a number. Raises ValueError."""
        if text == "max":
            return cls()
        factor = 1.0 if text == "real" else float(text)
        if not 0 < factor < float("inf"):
            raise ValueError(text)
        return cls(factor)

    def __str__(self) -> str:
        """Write it as it is given."""
        return "max" if self.factor is None else f"{self.factor:g} x"


class Timings(Struct, kw_only=True):
    """What was measured while reserving."""

    began: float = 0.0
    reserve_seconds: list[float] = []
    replayed: int = 0
    done: int = 0


class Replay:
    """One run of a plan. It may be stopped at any time, and run again: what was done stays done."""

    def __init__(
        self,
        plan: Plan,
        *,
        service: Caller,
        admin: Caller,
        sender: Sender,
        speed: Speed,
        progress: Progress,
        concurrency: int = CONCURRENCY_DEFAULT,
    ) -> None:
        """Run `plan`: reserve as `service`, read the audit trail as `admin`, send by `sender`."""
        self.plan = plan
        self._service = service
        self._admin = admin
        self._sender = sender
        self._speed = speed
        self._progress = progress
        self._concurrency = concurrency
        self._timings = Timings()
        self._ours = frozenset(job.id for job in plan.jobs)
        self._captured: set[str] = set()
        self._old: frozenset[str] = frozenset()

    async def run(self, rates: dict[str, Rates]) -> Report:
        """Do all of it. Raises GaveUp where a server stays away, Refused where one says no."""
        used = _cpu_seconds()
        await fund(self._service, self.plan.prefix, self.plan.needs(rates))
        before = await self._before()
        follower = Follower(self._admin, datetime.now(UTC) - timedelta(seconds=CLOCK_SECONDS))
        self._timings.began = time.perf_counter()
        following = asyncio.create_task(self._follow(follower))
        try:
            await self._reserve_all()
            reserve_seconds = time.perf_counter() - self._timings.began
            await self._until_captured(following)
            seconds = time.perf_counter() - self._timings.began
            await self._until_handled()
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        cpu_seconds = _cpu_seconds() - used
        self._progress.checking()
        return await self._report(before, reserve_seconds, seconds, cpu_seconds)

    async def _before(self) -> int:
        """Return how many events there are already, and know which jobs are captured."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._read(name)) for name in self.plan.accounts]
        accounts = [task.result() for task in tasks]
        for account in accounts:
            self._captured |= {
                job for job, fate in account.fates.items() if job in self._ours and fate.captures
            }
        self._old = frozenset(self._captured)
        self._progress.captured(len(self._captured))
        return sum(account.count for account in accounts)

    async def _read(self, account: str) -> AccountEvents:
        balance = await newest_balance(self._service, account)
        return await read_account(self._service, account, balance["position"])

    # -- reserve, generate -------------------------------------------------------------------------

    async def _reserve_all(self) -> None:
        jobs = iter(self.plan.jobs)
        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._concurrency, len(self.plan.jobs))):
                group.create_task(self._reserve_some(jobs))

    async def _reserve_some(self, jobs: Iterator[Job]) -> None:
        timings, factor = self._timings, self._speed.factor
        for job in jobs:
            if factor is not None:
                due = timings.began + job.row.seconds / factor
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            began = time.perf_counter()
            body = {
                "id": job.id,
                "feature": self.plan.feature,
                "model": job.model,
                "usage": {
                    "input_tokens": job.row.context_tokens,
                    "output_tokens": ESTIMATED_OUTPUT_TOKENS,
                },
                "ttl_seconds": TTL_SECONDS,
                "job": job.id,
            }
            path = account_path(job.account, "/reservations")
            answer = await self._service.change("POST", path, job.id, body)
            if answer.is_replay:
                timings.replayed += 1
            else:
                timings.reserve_seconds.append(time.perf_counter() - began)
            await self._sender.send(*succeeded(job, self.plan.prefix, self.plan.feature))
            timings.done += 1
            self._progress.reserved(timings.done)

    # -- captures ----------------------------------------------------------------------------------

    async def _follow(self, follower: Follower) -> None:
        while True:
            await follower.read_on()
            self._captured |= follower.captured & self._ours
            follower.captured.clear()
            self._progress.captured(len(self._captured))
            await asyncio.sleep(FOLLOW_SECONDS)

    async def _until_captured(self, following: asyncio.Task[None]) -> None:
        """Wait until all are captured, or none has been for long."""
        seen, since = -1, time.monotonic()
        while len(self._captured) < len(self.plan.jobs):
            if following.done():
                following.result()
            if len(self._captured) != seen:
                seen, since = len(self._captured), time.monotonic()
            if time.monotonic() - since > STALL_SECONDS:
                return
            await asyncio.sleep(FOLLOW_SECONDS / 10)

    async def _until_handled(self) -> None:
        """Wait until no event is on its way: one that came twice has had its effect, if any."""
        since = time.monotonic()
        while (  # noqa: ASYNC110 - it happens in another process
            await self._sender.unhandled() != 0 and time.monotonic() - since < STALL_SECONDS / 4
        ):
            await asyncio.sleep(FOLLOW_SECONDS / 5)

    # -- the end -------------------------------------------------------------------------------

    async def _report(
        self, before: int, reserve_seconds: float, seconds: float, cpu_seconds: float
    ) -> Report:
        timings, jobs = self._timings, len(self.plan.jobs)
        findings = await check(self._service, self.plan)
        checks = findings.checks
        if timings.replayed == jobs and before:
            grown = findings.events - before
            changed = (f"{grown} events more than before",) if grown else ()
            checks = (*checks, Check("everything was repeated, and nothing changed", changed))
        new = self._ours - self._old
        captured = [fate.seconds for job, fate in findings.fates.items() if job in new]
        retries: Counter[str] = Counter()
        for who in (self._service, self._admin, self._sender):
            retries.update(who.retries)
        return Report(
            prefix=self.plan.prefix,
            speed=str(self._speed),
            requests=jobs,
            accounts=len(self.plan.accounts),
            replayed=timings.replayed,
            seconds=seconds,
            reserve_seconds=reserve_seconds,
            requests_per_second=jobs / reserve_seconds,
            captures_per_second=jobs / seconds,
            reserve_ms=Percentiles.of(timings.reserve_seconds),
            captured_ms=Percentiles.of([one for one in captured if one is not None]),
            events=findings.events,
            events_before=before,
            retries=dict(retries),
            client_cpu_seconds=cpu_seconds,
            sums=findings.sums,
            checks=checks,
        )


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
