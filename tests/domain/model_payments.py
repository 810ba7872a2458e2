"""The model's reading of payments: a grant each, of which some may be taken back later."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ledger.domain import commands as c
from ledger.domain.values import derived_id
from tests.domain.model_books import Books, Lot, Slice
from tests.domain.model_prices import Refused


class Payments(Books):
    """What becomes of a grant when its payment is refunded or disputed."""

    def apply_payment(self, command: c.ApplyPayment, _key: str, now: datetime) -> dict[str, Any]:
        """Bring a payment's grant to what is said, if it says more than is known."""
        lot = self.lots.get(command.grant)
        if lot is not None and not lot.revision:
            raise Refused("grant_exists")
        if command.amount <= 0:
            raise Refused("invalid_request", field="amount")
        if not 0 <= command.reversed <= command.amount:
            raise Refused("invalid_request", field="reversed")
        if lot is not None and lot.revision >= command.revision:
            return {}
        before = self._before(lot)
        if lot is None:
            lot = Lot(command.grant, 0, "", 0, (), now, None, None, age=len(self.lots))
            self.lots[lot.id] = lot
        added = max(0, command.amount - lot.amount)
        if added:
            self.slices.append(Slice(lot.id, added, "pending"))
        lot.amount += added
        back = max(command.reversed, lot.reversed) if lot.final else command.reversed
        taken, debt = self._take_back(lot, back)
        restored, cancelled, regrant = self._give_back(lot, back)
        was, unspent = lot.status, self._unspent(lot)
        lot.status = self._status(command, lot, now, gone=lot.final or back == lot.amount)
        lot.reversed, lot.clawed_back = back, back == lot.amount
        lot.kind, lot.priority, lot.scope = command.kind, command.priority, command.scope
        lot.expires_at, lot.cost_basis = command.expires_at, command.cost_basis
        for piece in unspent:
            piece.place = {"active": "available", "frozen": "pending"}.get(lot.status, lot.status)
        repaid = self._repay(lot, None if was == "frozen" else added + restored)
        if regrant:
            name = derived_id("grt", f"{lot.id}\0{command.revision}")
            self._add(Lot(name, regrant, "paid", 100, (), now, None, None), now)
        self.debt += debt
        revision, lot.revision = lot.revision, command.revision
        if before == self._before(lot):
            lot.revision = revision
            return {}
        return {
            "grant": lot.id,
            "added": added,
            "taken": taken,
            "debt": debt,
            "debt_repaid": repaid,
            "owing": lot.owing,
            "restored": restored,
            "debt_cancelled": cancelled,
            "status": lot.status,
        }

    def _before(self, lot: Lot | None) -> tuple[object, ...] | None:
        if lot is None:
            return None
        terms = (lot.kind, lot.priority, lot.scope, lot.expires_at, lot.cost_basis)
        return (lot.amount, lot.reversed, lot.status, *terms)

    def _unspent(self, lot: Lot) -> list[Slice]:
        mine = [piece for piece in self.slices if piece.grant == lot.id]
        # What expired and was taken back by an operator later stays where it lies.
        places = {"available", "pending"} | ({"expired"} & {lot.status})
        return [piece for piece in mine if piece.place in places]

    def _give_back(self, lot: Lot, back: int) -> tuple[int, int, int]:
        """Undo what was taken last first: debt, then what is owing, then what was revoked.

        Returns what is unspent again, what is owed no longer, and what was repaid for nothing.
        """
        less = max(0, lot.reversed - back)
        unclawed = min(less, lot.clawed)
        lot.clawed -= unclawed
        cancelled = min(unclawed, self.debt)
        self.debt -= cancelled
        less -= unclawed
        spared = min(less, lot.owing)
        lot.owing -= spared
        restored = left = min(less - spared, lot.taken)
        lot.taken -= restored
        for piece in [one for one in self.slices if (one.grant, one.place) == (lot.id, "revoked")]:
            part = min(left, piece.amount)
            self.move([(piece, part)], "pending")
            left -= part
        return restored, cancelled, unclawed - cancelled

    def _take_back(self, lot: Lot, back: int) -> tuple[int, int]:
        """Take what is unspent; the rest is taken once it comes back, or owed."""
        asked, taken = max(0, back - lot.reversed), 0
        for piece in self._unspent(lot):
            part = piece.amount if lot.final else min(piece.amount, asked - taken)
            self.move([(piece, part)], "revoked")
            taken += part
        lot.taken += taken
        left = max(0, asked - taken)
        later = min(left, self.place("reserved", lot.id) - lot.owing)
        lot.owing += later
        debt = min(left - later, self.place("consumed", lot.id) - lot.clawed)
        lot.clawed += debt
        return taken, debt

    def _status(self, command: c.ApplyPayment, lot: Lot, now: datetime, *, gone: bool) -> str:
        if gone:
            return "revoked"
        if lot.status == "expired" or (command.expires_at and command.expires_at <= now):
            return "expired"
        return "frozen" if command.frozen else "active"

    def _repay(self, lot: Lot, most: int | None) -> int:
        """Let what has become available repay the debt: all of it, or what was added."""
        repaid = 0
        for piece in [one for one in self._unspent(lot) if one.place == "available"]:
            part = min(self.debt, piece.amount)
            if most is not None:
                part = min(part, most - repaid)
            self.move([(piece, part)], "consumed")
            self.debt -= part
            repaid += part
        return repaid

    def owed_by(self, drawn: list[Slice]) -> int:
        """Return the debt that spending these slices made, of which a part was owing."""
        debt = 0
        for lot in [self.lots[name] for name in dict.fromkeys(piece.grant for piece in drawn)]:
            beyond = max(0, lot.owing - self.place("reserved", lot.id))
            lot.owing -= beyond
            lot.clawed += beyond
            debt += beyond
        return debt

    def come_back(self, piece: Slice, *, spent: bool = False) -> tuple[list[Slice], int]:
        """Return a slice to its grant: what was taken back of it is gone, the rest where it lies.

        Also tell how much of it is owed no longer.
        """
        lot = self.lots[piece.grant]
        clawed = min(piece.amount, lot.clawed) if spent else 0
        owing = min(piece.amount - clawed, lot.owing)
        lot.clawed -= clawed
        lot.owing -= owing
        lot.taken += clawed + owing
        gone = self.move([(piece, clawed + owing)], "revoked")
        rest = [piece] if piece.amount else []
        for one in rest:
            self.send_back(one)
        return gone + rest, clawed
