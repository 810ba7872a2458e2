"""How the parts of a worker are, for whoever asks: its log, its health check, its metrics."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["starting", "running", "standby", "waiting", "failed", "stopped"]


@dataclass(kw_only=True)
class Part:
    """One part of a worker, as it last said it was.

    `waiting` is for something outside (NATS, PostgreSQL); in `standby` another process works.
    """

    name: str
    state: State = "starting"
    since: float = field(default_factory=time.monotonic)
    alive_at: float = field(default_factory=time.monotonic)
    restarts: int = 0
    error: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def running(self) -> None:
        """Say that the work is being done."""
        self._become("running")
        self.error = None

    def standby(self) -> None:
        """Say that another process does the work."""
        self._become("standby")
        self.error = None

    def waiting(self, why: str) -> None:
        """Say what is not there."""
        self._become("waiting")
        self.error = why

    def failed(self, why: str) -> None:
        """Say that this part ended, and why. It will be started again."""
        self._become("failed")
        self.error = why
        self.restarts += 1

    def stopped(self) -> None:
        """Say that this part has ended as it was asked to."""
        self._become("stopped")

    def alive(self, *, connected: bool = True) -> None:
        """Say that a round was completed; without a connection it was an empty one."""
        if not connected:
            self.waiting("NATS is not connected")
            return
        self.alive_at = time.monotonic()
        if self.state == "waiting":
            self.running()

    def _become(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self.since = time.monotonic()
        if state in {"running", "standby"}:
            self.alive_at = time.monotonic()


SILENT_SECONDS_MAX = 30.0


@dataclass
class Health:
    """All parts of a worker."""

    parts: dict[str, Part] = field(default_factory=dict)

    def part(self, name: str) -> Part:
        """Return the part of this name, new if need be."""
        return self.parts.setdefault(name, Part(name=name))

    @property
    def ok(self) -> bool:
        """Whether every part does its work, or another process does it, and said so lately."""
        now = time.monotonic()
        return bool(self.parts) and all(
            part.state in {"running", "standby"} and now - part.alive_at < SILENT_SECONDS_MAX
            for part in self.parts.values()
        )

    def report(self) -> dict[str, Any]:
        """Return the state of each part, as JSON can hold it."""
        now = time.monotonic()
        return {
            name: {
                "state": part.state,
                "seconds": round(now - part.since, 1),
                "silent_seconds": round(now - part.alive_at, 1),
                "restarts": part.restarts,
                "error": part.error,
                **part.facts,
            }
            for name, part in self.parts.items()
        }
