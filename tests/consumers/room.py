"""What the tests of this room share: accounts, prices, messages, and waiting for what must come."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, Self

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError

from consumers.generations import capture_generations
from consumers.health import Part
from consumers.publishing import Publisher, wait
from consumers.streams import DURABLE, GENERATION, connect, ensure_streams, jetstream
from ledger.domain.commands import GrantCredits, PutAccount, SetRateCard
from ledger.domain.entities import Metered, Rates
from ledger.domain.events import ReservationCaptured
from ledger.domain.values import MICRO
from ledger.records import Order, Outcome, Recorded, View, stream_id
from ledger.store import Store
from ledger.writer import Writer
from projections.runner import Runner
from scrip.embedded import DatabaseUrls, EmbeddedNats

TENANT = "acme"
FEATURE, MODEL = "chat", "gpt-large"
RATES = Rates(
    input_per_million=2 * MICRO, output_per_million=8 * MICRO, cached_input_per_million=MICRO
)
WAIT_SECONDS = 60.0
ANSWER_SECONDS_MAX = 40.0
_numbers = itertools.count(1)

Message = tuple[str, bytes, str]
"""A subject, a payload, and a message id for NATS."""


class Room:
    """A ledger and a nats-server."""

    def __init__(self, urls: DatabaseUrls, nats: EmbeddedNats) -> None:
        """Open the ledger in a database that has our schema."""
        self.urls = urls
        self.nats = nats
        self.store = Store.open(urls.app_url)
        self.writer = Writer(self.store)

    def __enter__(self) -> Self:
        """Start the writer."""
        self.writer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the writer and close the store."""
        self.writer.close()
        self.store.close()

    # -- the ledger ------------------------------------------------------------------------------

    def do(self, account: str | None, command: Any, key: str | None = None) -> Outcome:
        """Give the ledger a command and return its answer; raises the refusal."""
        key = key or f"test-{next(_numbers)}"
        order = Order(tenant=TENANT, account=account, command=command, key=key, by="service:test")
        return self.writer.submit(order).result(ANSWER_SECONDS_MAX)

    def open_account(self, account: str, credits_: int = 1_000) -> None:
        """Open an account and give it whole credits."""
        self.do(account, PutAccount())
        self.do(account, GrantCredits(amount=credits_ * MICRO, kind="paid"))

    def set_prices(self, rates: Rates = RATES) -> None:
        """Put a rate card for FEATURE and MODEL."""
        self.do(None, SetRateCard(feature=FEATURE, models={MODEL: rates}))

    def view(self, account: str) -> View:
        """Return the account as the ledger has it."""
        return self.writer.view(TENANT, account).result(ANSWER_SECONDS_MAX)

    def events(self, account: str) -> list[Recorded]:
        """Return the events of an account."""
        return self.store.events_of(stream_id(TENANT, account))

    def used(self, account: str) -> Metered:
        """Return what the account's captures have counted, all together."""
        total = Metered()
        for recorded in self.events(account):
            event = recorded.event
            if isinstance(event, ReservationCaptured):
                counted = event.metered or (event.price.metered if event.price else None)
                total = total.plus(counted) if counted else total
        return total

    # -- NATS ------------------------------------------------------------------------------------

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """Connect to the nats-server."""
        client = await connect(self.nats.url, "test")
        try:
            yield client
        finally:
            await client.close()

    async def publish(self, client: Client, messages: Sequence[Message]) -> None:
        """Publish messages and wait until all of them are stored."""
        publisher = await Publisher(client).start()
        futures = [
            await publisher.send(subject, payload, {"Nats-Msg-Id": message_id})
            for subject, payload, message_id in messages
        ]
        if futures:
            await wait(futures)
        await publisher.close()

    async def handled(self, client: Client) -> None:
        """Wait until no generation event is left to be handled."""
        js = jetstream(client)

        async def is_done() -> bool:
            try:
                last = (await js.stream_info(GENERATION)).state.last_seq
                floor = (await js.consumer_info(GENERATION, DURABLE)).ack_floor
            except NatsError:
                return False  # It is being restarted.
            return floor is not None and floor.stream_seq >= last

        await until(is_done)

    @asynccontextmanager
    async def capturing(self, workers: int = 1) -> AsyncIterator[Client]:
        """Run consumers of generation events, each on its own connection."""
        stop = asyncio.Event()
        async with self.client() as client:
            await ensure_streams(jetstream(client))
            clients = [await connect(self.nats.url, f"worker-{n}") for n in range(workers)]
            tasks = [
                asyncio.create_task(
                    capture_generations(each, self.writer, Part(name="generations"), stop)
                )
                for each in clients
            ]
            try:
                yield client
            finally:
                stop.set()
                for task in tasks:
                    await task
                for each in clients:
                    await each.close()


@contextmanager
def projecting(room: Room) -> Iterator[None]:
    """Keep the projections up with a room's ledger."""
    runner = Runner(room.store)
    runner.start()
    try:
        while not runner.active:
            time.sleep(0.02)
        yield
    finally:
        runner.close()


def generation(
    kind: str, job: str, account: str, *, event_id: str | None = None, **data: Any
) -> Message:
    """Return a generation event; with the same `event_id` it is the same event again."""
    event_id = event_id or f"event-{next(_numbers)}"
    payload = msgspec.json.encode(
        {
            "specversion": "1.0",
            "id": event_id,
            "source": "test/generator",
            "type": f"scrip.generation.{kind}",
            "time": "2026-11-21T09:00:00Z",
            "data": {"account": account, "job": job, **data},
        }
    )
    return f"scrip.{TENANT}.generation.{kind}", payload, f"delivery-{next(_numbers)}"


def again(message: Message) -> Message:
    """Return the same event, as NATS cannot know that it is."""
    return message[0], message[1], f"delivery-{next(_numbers)}"


def tokens(input_tokens: int, output_tokens: int = 0) -> dict[str, Any]:
    """Return the data of an event about so many tokens."""
    usage = {"input_tokens": input_tokens, "output_tokens": output_tokens}
    return {"feature": FEATURE, "model": MODEL, "usage": usage}


async def until(check: Callable[[], bool | Awaitable[bool]], seconds: float = WAIT_SECONDS) -> None:
    """Wait until `check` is true. Raises TimeoutError if it does not come true in time."""
    async with asyncio.timeout(seconds):
        while True:
            found = check()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.02)
