"""What a run shows: how far it has come, and what differs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Self

import msgspec
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from ledger.domain.values import format_decimal
from scrip.reconcile.comparing import Difference, Side

TABLE_WIDTH_MIN = 120


class Bars:
    """A bar for each list of the provider, and one for the comparison."""

    def __init__(self, console: Console) -> None:
        """Draw on `console`; where that is no terminal, nothing is drawn."""
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description:<16}"),
            BarColumn(),
            TextColumn("{task.completed:,}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bars as they are."""
        self._progress.stop()

    def goes_on(self, began_at: datetime) -> None:
        """Tell that what was read before is not read again."""
        self._console.print(
            f"going on with the run of {began_at:%Y-%m-%d %H:%M} UTC; --restart begins anew"
        )

    def read(self, kind: str, objects: int, *, done: bool) -> None:
        """So many objects of a kind have been read in all."""
        # Nobody knows how many there will be: the bar is only full once there are no more.
        self._update(kind, objects, max(objects, 1) if done else None)

    def compared(self, groups: int, of: int) -> None:
        """So many groups of facts have been held against what is known here."""
        self._update("compare", groups, of)

    def _update(self, name: str, completed: int, total: int | None) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=None)
        self._progress.update(self._tasks[name], completed=completed, total=total)


def table_of(differences: Iterable[Difference]) -> Table:
    """Return the differences as a table: credits that are due and that are held, less what is back.

    The same is in each line of `lines_of`.
    """
    table = Table(box=box.SIMPLE, pad_edge=False)
    for name in ("what", "payment", "account", "offer"):
        table.add_column(name, overflow="fold")
    for name in ("due", "held"):
        table.add_column(name, justify="right")
    table.add_column("why", overflow="fold")
    for one in differences:
        table.add_row(
            one.what,
            one.payment,
            one.owner or "",
            one.offer or "",
            _short(one.due),
            _short(one.held),
            one.why or "",
        )
    return table


def line_of(one: Difference) -> bytes:
    """Return a difference as a line of JSON. Credits are decimal texts."""
    shown: dict[str, Any] = {
        "what": one.what,
        "payment": one.payment,
        "account": one.owner,
        "offer": one.offer,
        "due": _side(one.due),
        "held": _side(one.held),
        "why": one.why,
    }
    return msgspec.json.encode(shown) + b"\n"


def _side(side: Side | None) -> dict[str, Any] | None:
    if side is None:
        return None
    return {
        "credits": format_decimal(side.credits),
        "back": format_decimal(side.back),
        "frozen": side.frozen,
    }


def _short(side: Side | None) -> str:
    if side is None:
        return ""
    parts = [format_decimal(side.credits)]
    if side.back:
        parts.append(f"- {format_decimal(side.back)}")
    if side.frozen:
        parts.append("(frozen)")
    return " ".join(parts)
