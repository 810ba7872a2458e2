"""Whether a replay came out exactly: events, balances and usage rows, each against the plan.

Every price is worked out here once more, in decimals, from the rate card version that the ledger
says it used.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from msgspec import Struct

from scrip.replay.caller import Caller, account_path
from scrip.replay.funding import rates_at
from scrip.replay.ledger_events import AccountEvents, Fate, newest_balance, read_account
from scrip.replay.plan import Job, Plan, Rates
from scrip.replay.report import Check, Sums

PARTS: Final = ("available", "pending", "reserved", "consumed", "expired", "revoked")


class Usage(Struct, frozen=True, kw_only=True):
    """One usage row of a job."""

    amount: Decimal
    model: str | None
    input_tokens: int
    output_tokens: int


class Account(Struct, kw_only=True):
    """An account as its events, its balances and its usage rows tell of it."""

    name: str
    events: AccountEvents
    balance: Mapping[str, Any]
    ledger_balance: Mapping[str, Any]
    usage: dict[str, list[Usage]]
    usage_total: Decimal
    open_reservations: tuple[str, ...]
    open_remaining: Decimal


class Findings(Struct, kw_only=True):
    """What the checks found."""

    checks: tuple[Check, ...]
    sums: Sums
    events: int
    fates: Mapping[str, Fate]


async def check(caller: Caller, plan: Plan) -> Findings:
    """Read everything about the accounts of a plan and compare it. Raises Refused, GaveUp."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_read(caller, name)) for name in plan.accounts]
    accounts = [task.result() for task in tasks]
    owners = {job.id: job.account for job in plan.jobs}
    fates = {
        job: fate
        for account in accounts
        for job, fate in account.events.fates.items()
        if owners.get(job) == account.name
    }
    versions = {
        capture.price_version
        for fate in fates.values()
        for capture in fate.captures
        if capture.price_version is not None
    }
    cards = {version: await rates_at(caller, plan.feature, version) for version in sorted(versions)}
    expected = {job.id: _expected(job, fates.get(job.id), cards) for job in plan.jobs}
    checks = (
        Check(
            "every job was reserved once and captured once",
            (*_fates(plan.jobs, fates), *_strangers(owners, accounts)),
        ),
        Check(
            "every charge is what the rate card says, to the last place",
            tuple(_charges(plan.jobs, fates, expected)),
        ),
        Check(
            "every job has one usage row, with its tokens and its charge",
            tuple(_usage_rows(plan.jobs, accounts, expected)),
        ),
        Check("no job has an open reservation", tuple(_open(plan.jobs, accounts))),
        Check(
            "granted = available + pending + reserved + consumed + expired + revoked, everywhere",
            tuple(_identities(accounts)),
        ),
        Check("the balances read are those of the ledger", tuple(_balances(accounts))),
        Check(
            "consumed = sum of what was spent = sum of the usage rows, of every account",
            tuple(_consumed(accounts)),
        ),
        Check("the sums over all accounts agree", tuple(_totals(plan, accounts, expected))),
    )
    return Findings(
        checks=checks,
        sums=_sums(plan.jobs, fates, expected),
        events=sum(account.events.count for account in accounts),
        fates=fates,
    )


async def _read(caller: Caller, name: str) -> Account:
    """Read an account. Every read but the first waits until it has seen what the ledger has."""
    path = account_path(name)
    strong = await newest_balance(caller, name)
    position = strong["position"]
    balance = await caller.get(f"{path}/balance", position=position)
    usage: defaultdict[str, list[Usage]] = defaultdict(list)
    total = Decimal(0)
    async for row in caller.pages(f"{path}/usage", position=position):
        total += Decimal(row["amount"]) - Decimal(row["refunded"])
        if row["job"] is not None:
            tokens = row["usage"] or {}
            usage[row["job"]].append(
                Usage(
                    amount=Decimal(row["amount"]),
                    model=row["model"],
                    input_tokens=tokens.get("input_tokens", 0),
                    output_tokens=tokens.get("output_tokens", 0),
                )
            )
    waiting = [
        row async for row in caller.pages(f"{path}/reservations", status="open", position=position)
    ]
    return Account(
        name=name,
        events=await read_account(caller, name, position),
        balance=balance,
        ledger_balance=strong,
        usage=dict(usage),
        usage_total=total,
        open_reservations=tuple(row["id"] for row in waiting),
        open_remaining=sum((Decimal(row["remaining"]) for row in waiting), Decimal(0)),
    )


def _expected(job: Job, fate: Fate | None, cards: Mapping[int, Mapping[str, Rates]]) -> Decimal:
    """Return what a job must cost, by the version of the rate card that its capture names."""
    version = fate.captures[0].price_version if fate and fate.captures else None
    if version is None:
        return Decimal(0)
    return cards[version][job.model].cost(job.row.context_tokens, job.row.generated_tokens)


def _fates(jobs: Iterable[Job], fates: Mapping[str, Fate]) -> Iterable[str]:
    nothing = Fate()
    for job in jobs:
        fate = fates.get(job.id, nothing)
        facts = (len(fate.reserved_at), len(fate.captures), fate.closed_otherwise)
        if facts != (1, 1, 0) or not fate.captures[0].final:
            yield (
                f"{job.id}: reserved {facts[0]} times, captured {facts[1]} times,"
                f" released or expired {facts[2]} times"
            )


def _strangers(owners: Mapping[str, str], accounts: Iterable[Account]) -> Iterable[str]:
    for account in accounts:
        for job in account.events.fates:
            if owners.get(job, account.name) != account.name:
                yield f"{job} of {owners[job]} is also on {account.name}"


def _charges(
    jobs: Iterable[Job], fates: Mapping[str, Fate], expected: Mapping[str, Decimal]
) -> Iterable[str]:
    for job in jobs:
        fate = fates.get(job.id)
        if fate is None:
            continue
        if fate.captured != expected[job.id]:
            yield f"{job.id}: charged {fate.captured}, expected {expected[job.id]}"
        if any(capture.debt for capture in fate.captures):
            yield f"{job.id}: went into debt, although the account had enough"


def _usage_rows(
    jobs: Iterable[Job], accounts: Iterable[Account], expected: Mapping[str, Decimal]
) -> Iterable[str]:
    rows = {account.name: account.usage for account in accounts}
    for job in jobs:
        found = rows[job.account].get(job.id, [])
        if len(found) != 1:
            yield f"{job.id}: {len(found)} usage rows"
            continue
        row = found[0]
        told = (row.amount, row.model, row.input_tokens, row.output_tokens)
        meant = (expected[job.id], job.model, job.row.context_tokens, job.row.generated_tokens)
        if told != meant:
            yield f"{job.id}: the usage row says {told}, expected {meant}"


def _open(jobs: Iterable[Job], accounts: Iterable[Account]) -> Iterable[str]:
    ours = {job.id for job in jobs}
    for account in accounts:
        for reservation in account.open_reservations:
            if reservation in ours:
                yield f"{reservation} is still open"
        if Decimal(account.balance["reserved"]) != account.open_remaining:
            yield (
                f"{account.name}: reserved is {account.balance['reserved']}, but its open"
                f" reservations hold {account.open_remaining}"
            )


def _identities(accounts: Iterable[Account]) -> Iterable[str]:
    for account in accounts:
        for balance in (account.balance, account.ledger_balance):
            parts = [Decimal(balance[part]) for part in PARTS]
            if Decimal(balance["granted"]) != sum(parts) or min(parts) < 0:
                yield f"{account.name}: {dict(balance)}"
            if Decimal(balance["debt"]):
                yield f"{account.name}: owes {balance['debt']}"


def _balances(accounts: Iterable[Account]) -> Iterable[str]:
    for account in accounts:
        for part in ("granted", *PARTS, "debt"):
            read, held = Decimal(account.balance[part]), Decimal(account.ledger_balance[part])
            if read != held:
                yield f"{account.name}: {part} is read as {read}, the ledger has {held}"


def _consumed(accounts: Iterable[Account]) -> Iterable[str]:
    for account in accounts:
        consumed = Decimal(account.balance["consumed"])
        if not consumed == account.events.spent == account.usage_total:
            yield (
                f"{account.name}: consumed {consumed}, spent {account.events.spent},"
                f" usage rows {account.usage_total}"
            )


def _totals(
    plan: Plan, accounts: Sequence[Account], expected: Mapping[str, Decimal]
) -> Iterable[str]:
    ours = set(expected)
    meant = sum(expected.values(), Decimal(0))
    sums: Counter[str] = Counter()
    for account in accounts:
        of_jobs = (rows for job, rows in account.usage.items() if job in ours)
        sums["usage rows"] += sum(row.amount for rows in of_jobs for row in rows)  # type: ignore[assignment]
        sums["captures"] += sum(  # type: ignore[assignment]
            fate.captured for job, fate in account.events.fates.items() if job in ours
        )
    for name, found in sums.items():
        if found != meant:
            yield f"{name}: {found}, expected {meant} for {len(plan.jobs)} jobs"


def _sums(jobs: Iterable[Job], fates: Mapping[str, Fate], expected: Mapping[str, Decimal]) -> Sums:
    sums = Sums()
    for job in jobs:
        fate = fates.get(job.id, Fate())
        sums.reserved += fate.reserved
        sums.captured += fate.captured
        sums.released += fate.returned
        sums.expected += expected[job.id]
        sums.drawn_beyond += max(Decimal(0), fate.captured - fate.reserved)
    return sums
