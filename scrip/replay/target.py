"""Where a replay goes: the addresses and the keys, as they are given, or as dev.json has them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from msgspec import Struct

from scrip.replay.caller import Caller
from scrip.replay.http import Http
from scrip.replay.messages import Sender

OPTIONS: Final = {
    "base_url": "--base-url",
    "nats_url": "--nats-url",
    "tenant": "--tenant",
    "service_key": "--key",
    "admin_key": "--admin-key",
}


class TargetError(Exception):
    """It is not said where to go, or with which key; the text says what is missing."""


class Target(Struct, frozen=True, kw_only=True):
    """A running Scrip, and who asks. Both keys may be the same, if it is an admin's."""

    base_url: str
    nats_url: str
    tenant: str
    service_key: str
    admin_key: str


def read_target(data_dir: Path, **given: str | None) -> Target:
    """Return what is given, and what is not as the dev.json in a folder has it.

    Raises TargetError.
    """
    known = {name: value for name, value in given.items() if value}
    missing = [name for name in Target.__struct_fields__ if name not in known]
    if missing:
        words = ", ".join(OPTIONS[name] for name in missing)
        file = data_dir / "dev.json"
        try:
            known = _known(msgspec.json.decode(file.read_bytes())) | known
        except FileNotFoundError:
            raise TargetError(
                f"there is no {file}; start `scrip dev`, or name its --data-dir, or give {words}"
            ) from None
        except (OSError, msgspec.DecodeError, LookupError, TypeError) as error:
            raise TargetError(f"{file} cannot be read: {error}") from error
    return Target(**known)


def _known(dev: dict[str, Any]) -> dict[str, str]:
    return {
        "base_url": dev["base_url"],
        "nats_url": dev["nats_url"],
        "tenant": dev["tenant"],
        "service_key": dev["keys"]["service"],
        "admin_key": dev["keys"]["admin"],
    }


class Connected:
    """The connections to a target, open."""

    def __init__(self, target: Target, connections_max: int) -> None:
        """Prepare to connect to `target`."""
        self._target = target
        self._http = Http(target.base_url, connections_max=connections_max)
        self._stack = AsyncExitStack()
        self.service = Caller(self._http, target.service_key)
        self.admin = Caller(self._http, target.admin_key)
        self.sender: Sender

    async def __aenter__(self) -> Self:
        """Connect. Raises GaveUp where there is no NATS."""
        await self._stack.enter_async_context(self._http)
        sender = await Sender.connect(self._target.nats_url, self._target.tenant)
        self.sender = await self._stack.enter_async_context(sender)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close all."""
        await self._stack.__aexit__(kind, error, trace)
