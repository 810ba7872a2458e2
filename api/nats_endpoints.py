"""What can be asked for over NATS: every command of a batch by its name, a batch, a balance.

A request is the body of the HTTP route, and beside it the names that the route's path would hold.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final

from msgspec import Struct, structs

from api.accounts import READ_BALANCE
from api.batch import BATCH, BATCHED
from api.decoding import Decoder, convert_parameters
from api.endpoint import check_names
from api.items import ACCOUNT, item_of, order_of
from api.routes import Ask, Call, Deps, Read, Route, Write
from ledger.records import Order

SUBJECTS: Final = "scrip.*.ledger.*"
"""What the endpoints' subjects are among; those of events have more words."""
NO_BODY: Final = b"{}"


class Counts(Struct):
    """What became of an endpoint's requests, for `$SRV.STATS`."""

    requests: int = 0
    errors: int = 0
    nanoseconds: int = 0
    last_error: str = ""


class Endpoint:
    """A route of HTTP, under a name in a subject."""

    large = False
    """Whether the body may be as long as that of a batch."""

    def __init__(self, name: str, route: Route) -> None:
        """Answer what `route` answers. Nothing is counted yet."""
        self.name = name
        self.route = route
        self.counts = Counts()
        self.subject = f"scrip.*.ledger.{name}"
        self.label = f"scrip.{{tenant}}.ledger.{name}"

    def bytes_max(self, deps: Deps) -> int:
        """Return how long a body may be: as over HTTP."""
        return deps.batch_bytes_max if self.large else deps.body_bytes_max


class Command(Endpoint):
    """One command, as its `Write` route takes it, under the name that a batch has for it."""

    def __init__(self, route: Write) -> None:
        """Take the commands of `route`."""
        assert route.op is not None
        super().__init__(route.op, route)
        self._write = route
        self._decoder: Decoder[Any] = Decoder(item_of(route.body, "Request", route.target))

    def order(self, call: Call, key: str, body: bytes) -> Order:
        """Return what the ledger is asked. Raises the LedgerError that refuses the body."""
        return order_of(call, self._write, self._decoder.decode(body or NO_BODY), key)


class Query(Endpoint, ABC):
    """What is answered by a handler of the route."""

    @abstractmethod
    async def answer(self, call: Call, body: bytes) -> Any:
        """Return the route's answer. Raises the LedgerError that refuses it."""


class Batch(Query):
    """Many commands, each with its own key and answer, as `POST /v1/batch` takes them."""

    large = True

    def __init__(self, name: str, route: Ask) -> None:
        """Take what `route` takes."""
        super().__init__(name, route)
        self._handle = route.handle
        self._decoder: Decoder[Any] = Decoder(route.body, check_texts=route.description is None)

    async def answer(self, call: Call, body: bytes) -> Any:
        """Return a result for each command."""
        return await self._handle(call, self._decoder.decode(body))


class Reading(Query):
    """A read of one account; the parameters of the route are members of the body."""

    def __init__(self, name: str, route: Read) -> None:
        """Answer what `route` answers."""
        super().__init__(name, route)
        self._handle = route.handle
        self._decoder: Decoder[dict[str, Any]] = Decoder(dict[str, Any])
        self._item = item_of(route.query, "Request")

    async def answer(self, call: Call, body: bytes) -> Any:
        """Return what is read."""
        query = convert_parameters(self._decoder.decode(body or NO_BODY), self._item)
        path = {ACCOUNT: getattr(query, ACCOUNT)}
        check_names(path)
        return await self._handle(structs.replace(call, path=path), query)


def endpoints() -> tuple[Command | Query, ...]:
    """Return all endpoints, with nothing counted yet."""
    commands = [Command(write) for write in BATCHED]
    return (*commands, Batch("batch", BATCH), Reading("balance", READ_BALANCE))
