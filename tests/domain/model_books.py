"""The model's books: every credit lies in a slice, a slice lies in one place.

Every question is answered by looking at all slices, and time is applied one due thing at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from tests.domain.model_prices import ModelPrices, Priced

PLACES = ("available", "pending", "reserved", "consumed", "expired", "revoked")


@dataclass(eq=False)
class Slice:
    """Some credits of one grant, all in the same place."""

    grant: str
    amount: int
    place: str


@dataclass(eq=False)
class Lot:
    """What is known of a grant, but where its credits are."""

    id: str
    amount: int
    kind: str
    priority: int
    scope: tuple[str, ...]
    effective_at: datetime
    expires_at: datetime | None
    cost_basis: int | None
    status: str = "pending"
    clawed_back: bool = False
    reversed: int = 0
    owing: int = 0
    taken: int = 0
    final: bool = False
    clawed: int = 0
    revision: int = 0
    age: int = 0
    """How many grants there were before the event that made this one."""


@dataclass(eq=False)
class Spent:
    """One deduction: the slices that paid, in the order they were drawn, then what became debt."""

    id: str
    amount: int
    slices: list[Slice]
    debt: int
    refunded: int = 0


@dataclass(eq=False)
class Job:
    """A reservation or a direct deduction."""

    id: str
    status: str
    amount: int
    feature: str | None
    priced: Priced | None = None
    expires_at: datetime | None = None
    pinned: list[Slice] = field(default_factory=list)
    overdraft: int = 0
    captured: int = 0
    spent: list[Spent] = field(default_factory=list)
    counted: tuple[int, ...] = (0, 0, 0, 0)

    @property
    def remaining(self) -> int:
        """What is still set aside."""
        return sum(piece.amount for piece in self.pinned) + self.overdraft


Parts = list[tuple[Slice, int]]


class Books:
    """One account and its tenant's prices: what is where."""

    def __init__(self) -> None:
        """Start with an account that nobody has opened, and no prices."""
        self.now: datetime | None = None
        self.opened = False
        self.overdraft_limit = 0
        self.debt = 0
        self.slices: list[Slice] = []
        self.lots: dict[str, Lot] = {}
        self.jobs: dict[str, Job] = {}
        self.prices = ModelPrices()

    # -- asking ------------------------------------------------------------------------------------

    def place(self, place: str, grant: str | None = None) -> int:
        """Add up what lies in a place, of one grant or of all."""
        return sum(
            piece.amount
            for piece in self.slices
            if piece.place == place and grant in {None, piece.grant}
        )

    def balance(self) -> dict[str, int]:
        """Return the balance, every figure counted anew."""
        return {
            "granted": sum(lot.amount for lot in self.lots.values()),
            **{place: self.place(place) for place in PLACES},
            "debt": self.debt,
            "overdraft_reserved": sum(job.overdraft for job in self.jobs.values()),
            "overdraft_limit": self.overdraft_limit,
        }

    def line(self, feature: str | None, *, any_scope: bool = False) -> list[Lot]:
        """Return the grants that may pay, in their order: sorted by the last criterion first."""
        far = datetime.max.replace(tzinfo=UTC)
        line = [lot for lot in self.lots.values() if lot.status == "active"]
        line = [lot for lot in line if any_scope or not lot.scope or feature in lot.scope]
        line.sort(key=lambda lot: lot.id)
        line.sort(key=lambda lot: lot.age)
        line.sort(key=lambda lot: lot.effective_at)
        line.sort(key=lambda lot: lot.cost_basis if lot.cost_basis is not None else 0)
        line.sort(key=lambda lot: ["promotional", "paid"].index(lot.kind))
        line.sort(key=lambda lot: lot.expires_at or far)
        line.sort(key=lambda lot: len(lot.scope) if lot.scope else 10**9)
        line.sort(key=lambda lot: lot.priority)
        return line

    def find(
        self, asked: int, feature: str | None, *, any_scope: bool = False
    ) -> tuple[Parts, int]:
        """Return which parts of which slices would pay `asked`, and what is short."""
        parts: Parts = []
        for lot in self.line(feature, any_scope=any_scope):
            for piece in self.slices:
                if piece.grant == lot.id and piece.place == "available" and asked:
                    part = min(asked, piece.amount)
                    parts.append((piece, part))
                    asked -= part
        return parts, asked

    def open_jobs(self) -> dict[str, tuple[object, ...]]:
        """Return what is set aside, by open reservation."""
        return {
            job.id: (job.amount, job.captured, job.overdraft, job.expires_at, sums(job.pinned))
            for job in self.jobs.values()
            if job.status == "open"
        }

    def room(self) -> int:
        """Return what of the overdraft is free."""
        owed = self.debt + sum(job.overdraft for job in self.jobs.values())
        return max(0, self.overdraft_limit - owed)

    # -- moving ------------------------------------------------------------------------------------

    def move(self, parts: Parts, place: str) -> list[Slice]:
        """Put parts of slices in another place, and return them as slices of their own."""
        moved = []
        for piece, part in parts:
            one = Slice(piece.grant, part, place)
            piece.amount -= part
            self.slices.append(one)
            moved.append(one)
        self.slices = [piece for piece in self.slices if piece.amount]
        return [piece for piece in moved if piece.amount]

    def send_back(self, piece: Slice) -> None:
        """Return a slice to its grant, which may have ended meanwhile, or be frozen."""
        status = self.lots[piece.grant].status
        piece.place = {"active": "available", "frozen": "pending"}.get(status, status)

    def land(self, lot: Lot) -> int:
        """Make a grant's credits available after they repaid the debt. Return what they repaid."""
        repaid = min(self.debt, lot.amount)
        self.debt -= repaid
        lot.status = "active"
        self.slices = [piece for piece in self.slices if piece.grant != lot.id]
        for amount, place in ((repaid, "consumed"), (lot.amount - repaid, "available")):
            if amount:
                self.slices.append(Slice(lot.id, amount, place))
        return repaid

    def come_back(self, piece: Slice, *, spent: bool = False) -> tuple[list[Slice], int]:
        """Return a slice to its grant; what was taken back of it meanwhile is gone."""
        raise NotImplementedError  # Abstract: payments say what that is.

    def _add(self, lot: Lot, now: datetime, age: int | None = None) -> int:
        lot.age = len(self.lots) if age is None else age
        self.lots[lot.id] = lot
        self.slices.append(Slice(lot.id, lot.amount, "pending"))
        return self.land(lot) if lot.effective_at <= now else 0

    # -- time --------------------------------------------------------------------------------------

    def pass_to(self, now: datetime) -> None:
        """Let time do, one thing after the other, all that is due at `now`."""
        assert self.now is None or now >= self.now
        self.now = now
        while True:
            due = [
                *((lot.effective_at, 0, lot.id) for lot in self._lots("pending")),
                *((lot.expires_at, 2, lot.id) for lot in self._ending() if lot.expires_at),
                *(
                    (job.expires_at, 1, job.id)
                    for job in self.jobs.values()
                    if job.status == "open" and job.expires_at
                ),
            ]
            if not due or min(due)[0] > now:
                return
            _, what, name = min(due)
            self._happens(what, name)

    def _lots(self, status: str) -> list[Lot]:
        return [lot for lot in self.lots.values() if lot.status == status]

    def _ending(self) -> list[Lot]:
        return self._lots("active") + self._lots("frozen")

    def _happens(self, what: int, name: str) -> None:
        if what == 0:
            self.land(self.lots[name])
        elif what == 1:
            self._close(self.jobs[name], "expired")
        else:
            self.lots[name].status = "expired"
            for piece in self.slices:
                if piece.grant == name and piece.place in {"available", "pending"}:
                    piece.place = "expired"

    def _close(self, job: Job, status: str) -> None:
        for piece in job.pinned:
            self.come_back(piece)
        job.pinned, job.overdraft, job.status = [], 0, status


def sums(slices: list[Slice]) -> list[tuple[str, int]]:
    """Return slices as pairs of grant and amount, neighbours of the same grant as one."""
    return merged([(piece.grant, piece.amount) for piece in slices])


def merged(pairs: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Join neighbouring pairs of the same grant."""
    joined: list[tuple[str, int]] = []
    for grant, amount in pairs:
        if joined and joined[-1][0] == grant:
            joined[-1] = (grant, joined[-1][1] + amount)
        elif amount:
            joined.append((grant, amount))
    return joined
