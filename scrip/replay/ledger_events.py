"""What the ledger says became of each job: its reservation, its captures, when and for how much."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from msgspec import Struct, field

from scrip.replay.caller import PAGE_ROWS, Caller, account_path

RESERVED: Final = "credits.reserved.v1"
CAPTURED: Final = "reservation.captured.v1"
RELEASED: Final = "reservation.released.v1"
EXPIRED: Final = "reservation.expired.v1"
DEDUCTED: Final = "credits.deducted.v1"
REFUNDED: Final = "credits.refunded.v1"
EVENTS_PATH: Final = "/v1/events"
OLDEST_FIRST: Final = "oldest"


class Capture(Struct, frozen=True, kw_only=True):
    """One capture. `final` says that it closed the reservation."""

    position: int
    amount: Decimal
    debt: Decimal
    price_version: int | None
    final: bool
    recorded_at: datetime


class Fate(Struct, kw_only=True):
    """What became of one job."""

    reserved_at: list[datetime] = field(default_factory=list)
    reserved: Decimal = Decimal(0)
    returned: Decimal = Decimal(0)
    captures: list[Capture] = field(default_factory=list)
    closed_otherwise: int = 0
    """How often it was released or expired."""

    @property
    def captured(self) -> Decimal:
        """What it was charged, in credits."""
        return sum((capture.amount for capture in self.captures), Decimal(0))

    @property
    def seconds(self) -> float | None:
        """How long after its reservation it was captured, by the ledger's clock."""
        if len(self.reserved_at) != 1 or len(self.captures) != 1:
            return None
        return (self.captures[0].recorded_at - self.reserved_at[0]).total_seconds()


class AccountEvents(Struct, kw_only=True):
    """All events of one account: how many, and what was spent in all, less refunds."""

    count: int = 0
    spent: Decimal = Decimal(0)
    fates: dict[str, Fate] = field(default_factory=dict)

    def add(self, event: Mapping[str, Any]) -> None:
        """Take one more event into account."""
        self.count += 1
        name, data = event["name"], event["data"]
        if name == DEDUCTED:
            self.spent += Decimal(data["amount"])
        elif name == REFUNDED:
            self.spent -= Decimal(data["amount"])
        if name not in {RESERVED, CAPTURED, RELEASED, EXPIRED}:
            return
        fate = self.fates.setdefault(data["reservation"], Fate())
        when = datetime.fromisoformat(event["recorded_at"])
        if name == RESERVED:
            fate.reserved_at.append(when)
            fate.reserved += Decimal(data["amount"])
        elif name == CAPTURED:
            capture = _capture(event, data, when)
            fate.captures.append(capture)
            fate.returned += _returned(data)
            self.spent += capture.amount
        else:
            fate.closed_otherwise += 1
            fate.returned += Decimal(data["amount"])


def _capture(event: Mapping[str, Any], data: Mapping[str, Any], when: datetime) -> Capture:
    price = data.get("price")
    return Capture(
        position=int(event["position"]),
        amount=Decimal(data["amount"]),
        debt=Decimal(data.get("debt", "0")) + Decimal(data.get("overdraft", "0")),
        price_version=price["version"] if price else None,
        final=data["status"] != "open",
        recorded_at=when,
    )


def _returned(data: Mapping[str, Any]) -> Decimal:
    return sum((Decimal(back["amount"]) for back in data.get("returns", ())), Decimal(0))


async def read_account(caller: Caller, account: str, position: str) -> AccountEvents:
    """Return what all events of an account say, once they can be read up to `position`."""
    events = AccountEvents()
    path = account_path(account, "/events")
    async for event in caller.pages(path, order=OLDEST_FIRST, position=position):
        events.add(event)
    return events


async def newest_balance(caller: Caller, account: str) -> Any:
    """Return the balance of an account as the ledger itself has it, with its position."""
    return await caller.get(account_path(account, "/balance"), consistency="strong")


class Follower:
    """Reads the tenant's events as they come, from a moment on, each once."""

    def __init__(self, caller: Caller, start: datetime) -> None:
        """Read what is recorded from `start` on."""
        self._caller = caller
        self._start = start.isoformat().replace("+00:00", "Z")
        self._cursor = ""
        self._position = 0
        self.captured: set[str] = set()
        """The reservations that were closed by a capture."""

    async def read_on(self) -> None:
        """Read all that has come since."""
        more = True
        while more:
            page = await self._caller.get(
                EVENTS_PATH,
                name=CAPTURED,
                order=OLDEST_FIRST,
                cursor=self._cursor,
                limit=PAGE_ROWS,
                start=self._start,
            )
            for event in page["data"]:
                if int(event["position"]) > self._position:
                    self._position = int(event["position"])
                    if event["data"]["status"] != "open":
                        self.captured.add(event["data"]["reservation"])
            # At the end there is no cursor: the last page is read again, and what is new is taken.
            more = page["next_cursor"] is not None
            if more:
                self._cursor = page["next_cursor"]
