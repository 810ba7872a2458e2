"""A second opinion on the rules of credits, to hold against the first.

Written from the design alone, slowly and plainly. It shares no code with the ledger but the records
that go in (commands) and the naming of things (`derived_id`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from ledger.domain import commands as c
from ledger.domain.entities import Charge
from ledger.domain.values import derived_id
from tests.domain.model_books import Job, Lot, Slice, Spent, sums
from tests.domain.model_payments import Payments
from tests.domain.model_prices import Priced, Refused

Answer = dict[str, Any]
"""What the command's own event must say, field by field; empty if there is no event."""


class Model(Payments):
    """One account and its tenant's prices, as a naive reading of the design has them."""

    def execute(self, command: c.Command, key: str, now: datetime) -> Answer:
        """Do what is asked and return what its event must say, or raise Refused and do nothing."""
        self.pass_to(now)
        if isinstance(command, c.TenantCommand):
            return self.prices.put(command)
        if isinstance(command, c.PutAccount):
            self.opened, self.overdraft_limit = True, command.overdraft_limit
            return {"overdraft_limit": command.overdraft_limit}
        if isinstance(command, c.Settle):
            return {}
        if not self.opened:
            raise Refused("account_not_found")
        acts: dict[type, Callable[[Any, str, datetime], Answer]] = {
            c.GrantCredits: self.grant,
            c.RevokeGrant: self.revoke,
            c.ApplyPayment: self.apply_payment,
            c.Reserve: self.reserve,
            c.Capture: self.capture,
            c.CaptureUpTo: self.capture_up_to,
            c.Release: self.release,
            c.Extend: self.extend,
            c.Deduct: self.deduct,
            c.Refund: self.refund,
            c.Adjust: self.adjust,
        }
        return acts[type(command)](command, key, now)

    def grant(self, command: c.GrantCredits, key: str, now: datetime) -> Answer:
        """Give credits, now or at a time to come."""
        name = command.id or derived_id("grt", key)
        if name in self.lots:
            raise Refused("grant_exists")
        if command.amount <= 0:
            raise Refused("invalid_request", field="amount")
        start = command.effective_at or now
        if command.expires_at and (command.expires_at <= now or command.expires_at <= start):
            raise Refused("invalid_request", field="expires_at")
        end, cost = command.expires_at, command.cost_basis
        lot = Lot(
            name, command.amount, command.kind, command.priority, command.scope, start, end, cost
        )
        return {"grant": name, "pending": start > now, "debt_repaid": self._add(lot, now)}

    def revoke(self, command: c.RevokeGrant, _key: str, _now: datetime) -> Answer:
        """Take a grant back."""
        lot = self.lots.get(command.grant)
        if lot is None:
            raise Refused("grant_not_found")
        if lot.clawed_back or (lot.status in {"expired", "revoked"} and not command.clawback):
            raise Refused("grant_closed")
        unspent = [
            piece
            for piece in self.slices
            if piece.grant == lot.id and piece.place in {"pending", "available"}
        ]
        amount = sum(piece.amount for piece in unspent)
        debt = self.place("consumed", lot.id) - lot.clawed if command.clawback else 0
        for piece in unspent:
            piece.place = "revoked"
        lot.status, lot.clawed_back, lot.final = "revoked", command.clawback, True
        if command.clawback:
            lot.reversed, lot.clawed = lot.amount, lot.clawed + debt
            lot.owing = self.place("reserved", lot.id)
        self.debt += debt
        return {"grant": lot.id, "amount": amount, "debt": debt}

    def _short(self, asked: int, short: int, at_least: int | None = None) -> None:
        if short and (at_least is None or asked - short < at_least):
            raise Refused(
                "insufficient_credits",
                required=asked,
                available=asked - short,
                shortfall=short,
            )

    def _new_job(self, asked: str | None, kind: str, key: str) -> str:
        name = asked or derived_id(kind, key)
        if name in self.jobs:
            raise Refused("operation_exists")
        return name

    def reserve(self, command: c.Reserve, key: str, now: datetime) -> Answer:
        """Set credits aside."""
        name = self._new_job(command.id, "rsv", key)
        asked, priced = self.prices.cost(command.charge)
        feature = priced.feature if priced else command.charge.feature
        parts, short = self.find(asked, feature)
        overdraft = min(short, self.room())
        short -= overdraft
        self._short(asked, short, command.at_least)
        deadline = now + timedelta(seconds=command.ttl_seconds)
        job = Job(name, "open", asked - short, feature, priced, deadline)
        job.pinned, job.overdraft = self.move(parts, "reserved"), overdraft
        self.jobs[name] = job
        return {
            "reservation": name,
            "amount": asked - short,
            "draws": sums(job.pinned),
            "overdraft": overdraft,
            "expires_at": deadline,
        }

    def _open(self, name: str) -> Job:
        job = self.jobs.get(name)
        if job is None:
            raise Refused("reservation_not_found")
        if job.status == "expired":
            raise Refused("reservation_expired")
        if job.status != "open":
            raise Refused("reservation_closed")
        return job

    def extend(self, command: c.Extend, _key: str, now: datetime) -> Answer:
        """Set more aside, or for longer."""
        job = self._open(command.reservation)
        if command.amount is None and command.ttl_seconds is None:
            raise Refused("invalid_request", field="amount")
        deadline = job.expires_at
        assert deadline is not None
        if command.ttl_seconds is not None:
            later = now + timedelta(seconds=command.ttl_seconds)
            if later < deadline:
                raise Refused("invalid_request", field="ttl_seconds")
            deadline = later
        more = command.amount or 0
        parts, short = self.find(more, job.feature)
        overdraft = min(short, self.room())
        self._short(more, short - overdraft)
        added = self.move(parts, "reserved")
        job.pinned += added
        job.overdraft += overdraft
        job.amount += more
        job.expires_at = deadline
        return {
            "amount": more,
            "draws": sums(added),
            "overdraft": overdraft,
            "expires_at": deadline,
            "reserved": job.amount,
            "pinned": sums(job.pinned),
        }

    def release(self, command: c.Release, _key: str, _now: datetime) -> Answer:
        """Give back what is set aside."""
        job = self._open(command.reservation)
        amount = job.remaining
        self._close(job, "released")
        return {"amount": amount, "status": "released", "captured": job.captured}

    def capture(self, command: c.Capture, _key: str, _now: datetime) -> Answer:
        """Spend of a reservation, also of an expired one if the overage word says how."""
        job = self.jobs.get(command.reservation)
        if job is None:
            raise Refused("reservation_not_found")
        if job.status in {"captured", "released"}:
            raise Refused("reservation_closed")
        amount, priced = self.prices.cost(command.charge, job.priced, job.feature)
        beyond = max(0, amount - job.remaining)
        overage = self.prices.overage(command.overage, priced.feature if priced else job.feature)
        if beyond and overage == "reject":
            if job.status == "expired":
                raise Refused("reservation_expired")
            raise Refused("capture_exceeds_reservation", asked=amount, remaining=job.remaining)
        if overage == "draw":
            short = self.find(beyond, job.feature)[1]
            self._short(beyond, short - min(short, self.room()))
        return self._spend(job, amount, priced, "captured" if command.final else job.status)

    def _count(self, job: Job, priced: Priced | None, *, total: bool) -> tuple[int, ...] | None:
        """Add what was used to what the job has counted; of a total, only what is more."""
        if priced is None:
            return None
        counted = job.counted if total else (0, 0, 0, 0)
        more = tuple(max(0, now - then) for now, then in zip(priced.counted, counted, strict=True))
        job.counted = tuple(then + new for then, new in zip(job.counted, more, strict=True))
        return more

    def _spend(
        self, job: Job, amount: int, priced: Priced | None, status: str, *, total: bool = False
    ) -> Answer:
        """Spend `amount`: the pinned slices pay first; what nothing can pay becomes debt."""
        left, from_pinned = amount, []
        for piece in job.pinned:
            part = min(left, piece.amount)
            from_pinned.append((piece, part))
            left -= part
        draws = self.move(from_pinned, "consumed")
        job.pinned = [piece for piece in job.pinned if piece.amount]
        overdraft = min(left, job.overdraft)
        job.overdraft -= overdraft
        parts, debt = self.find(left - overdraft, job.feature)
        extra = self.move(parts, "consumed")
        clawed = self.owed_by(draws)
        self.debt += overdraft + debt + clawed
        job.captured += amount
        name = f"{job.id}~{len(job.spent) + 1}"
        job.spent.append(Spent(name, amount, draws + extra, overdraft + debt))
        returned = job.remaining if status != "open" else 0
        if status == "open":
            job.status = status
        else:
            self._close(job, status)
        return {
            "deduction": name,
            "amount": amount,
            "draws": sums(draws),
            "extra": sums(extra),
            "overdraft": overdraft,
            "debt": debt,
            "clawed_back": clawed,
            "returned": returned,
            "status": status,
            "captured": job.captured,
            "pinned": sums(job.pinned),
            "price": priced.facts() if priced else None,
            "counted": self._count(job, priced, total=total),
        }

    def capture_up_to(self, command: c.CaptureUpTo, _key: str, now: datetime) -> Answer:
        """Bring what an operation has spent up to a total, as debt where nothing else pays."""
        charge = command.charge or Charge(amount=0)
        job = self.jobs.get(command.operation)
        due, priced = self.prices.cost(
            charge, job.priced if job else None, job.feature if job else None
        )
        answer: Answer = {}
        if job is None:
            deadline = now + timedelta(seconds=command.ttl_seconds)
            feature = priced.feature if priced else charge.feature
            job = Job(command.operation, "open", 0, feature, priced, deadline)
            self.jobs[job.id] = job
            answer = {"reservation": job.id, "amount": 0, "expires_at": deadline}
        closing = command.final and job.status in {"open", "expired"}
        more = max(0, due - job.captured)
        uses_more = priced is not None and any(
            now_used > before for now_used, before in zip(priced.counted, job.counted, strict=True)
        )
        if more or uses_more or (closing and priced and not job.spent):
            done = command.final or job.status in {"captured", "released"}
            status = "captured" if done else job.status
            return self._spend(job, more, priced, status, total=bool(job.spent))
        if closing:
            returned = job.remaining
            self._close(job, "captured" if job.captured else "released")
            return {"amount": returned, "status": job.status, "captured": job.captured}
        return answer

    def deduct(self, command: c.Deduct, key: str, _now: datetime) -> Answer:
        """Spend at once."""
        name = self._new_job(command.id, "ded", key)
        asked, priced = self.prices.cost(command.charge)
        feature = priced.feature if priced else command.charge.feature
        parts, debt = self.find(asked, feature)
        short = 0
        if self.prices.overage(command.overage, feature) != "debt":
            short = max(0, debt - self.room())
            debt -= short
            self._short(asked, short, command.at_least)
        paid = self.move(parts, "consumed")
        self.debt += debt
        job = Job(name, "captured", asked - short, feature, priced, captured=asked - short)
        job.spent.append(Spent(name, asked - short, paid, debt))
        job.counted = priced.counted if priced else job.counted
        self.jobs[name] = job
        return {"deduction": name, "amount": asked - short, "draws": sums(paid), "debt": debt}

    def adjust(self, command: c.Adjust, key: str, now: datetime) -> Answer:
        """Correct the balance, up by a grant or down."""
        name = derived_id("adj", key)
        if command.amount == 0:
            raise Refused("invalid_request", field="amount")
        if command.amount > 0:
            if command.expires_at and command.expires_at <= now:
                raise Refused("invalid_request", field="expires_at")
            end = command.expires_at
            lot = Lot(name, command.amount, command.kind, 100, (), now, end, None)
            self._add(lot, now)
            return {"adjustment": name, "amount": command.amount, "debt": 0}
        if command.expires_at:
            raise Refused("invalid_request", field="expires_at")
        parts, short = self.find(-command.amount, None, any_scope=True)
        if command.overage != "debt":
            self._short(-command.amount, short)
        taken = self.move(parts, "revoked")
        self.debt += short
        return {"amount": command.amount, "draws": sums(taken), "debt": short}

    def refund(self, command: c.Refund, key: str, now: datetime) -> Answer:
        """Give spent credits back, last drawn first."""
        every = [spent for job in self.jobs.values() for spent in job.spent]
        spent = next((one for one in every if one.id == command.deduction), None)
        if spent is None:
            raise Refused("deduction_not_found")
        # What is left of it is counted slice by slice: what is not given back yet.
        left = spent.debt + sum(piece.amount for piece in spent.slices)
        assert left == spent.amount - spent.refunded
        amount = left if command.amount is None else command.amount
        if amount > left or left == 0:
            raise Refused("refund_exceeds_deduction", asked=amount, refundable=left)
        if amount <= 0:
            raise Refused("invalid_request", field="amount")
        spent.refunded += amount
        was_debt = min(amount, spent.debt)
        spent.debt -= was_debt
        cancelled = min(was_debt, self.debt)
        self.debt -= cancelled
        back, clawed, repaid = self._undo(spent, amount - was_debt)
        repaid += was_debt - cancelled
        regranted = self._regrant(back, repaid, key, now)
        return {
            "deduction": spent.id,
            "amount": amount,
            "returns": sums(back),
            "debt_cancelled": cancelled,
            "debt_regranted": was_debt - cancelled,
            "clawback_cancelled": clawed,
            "refunded": spent.refunded,
            "regranted": regranted,
        }

    def _undo(self, spent: Spent, amount: int) -> tuple[list[Slice], int, int]:
        """Take slices off a deduction's end. Return them, and the debt they cancel or repaid."""
        back: list[Slice] = []
        clawed = repaid = 0
        while amount:
            last = spent.slices[-1]
            part = min(amount, last.amount)
            (one,) = self.move([(last, part)], "consumed")
            pieces, owed = self.come_back(one, spent=True)
            back += pieces
            amount -= part
            if not last.amount:
                spent.slices.pop()
            cancelled = min(owed, self.debt)
            self.debt -= cancelled
            clawed += cancelled
            repaid += owed - cancelled
        return back, clawed, repaid

    def _regrant(
        self, back: list[Slice], repaid: int, key: str, now: datetime
    ) -> list[tuple[str | None, int]]:
        """Grant anew what a refund could not give back. Return it by the grant it stands for."""
        instead: dict[str, int] = {}
        days = self.prices.regrant_days
        for piece in back:
            if piece.place == "expired" and days is not None:
                instead[piece.grant] = instead.get(piece.grant, 0) + piece.amount
        news = []
        for number, (name, amount) in enumerate(instead.items(), 1):
            old, new = self.lots[name], derived_id("grt", f"{key}\0{number}")
            end = now + timedelta(days=days or 0)
            lot = Lot(new, amount, old.kind, old.priority, old.scope, now, end, old.cost_basis)
            news.append(lot)
        if repaid:
            new = derived_id("grt", f"{key}\0{len(instead) + 1}")
            news.append(Lot(new, repaid, "paid", 100, (), now, None, None))
        age = len(self.lots)
        for lot in news:
            self._add(lot, now, age)
        named: list[str | None] = [*instead, None]
        return [(name, lot.amount) for name, lot in zip(named, news, strict=False)]
