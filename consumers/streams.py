"""The JetStream streams that Scrip needs: what they keep, for how long, and on which subjects.

NATS is never the record. What it loses of LEDGER is published again from PostgreSQL; GENERATION,
PAYMENT and DEAD hold what is nowhere else, so the server should sync every write (`sync_interval:
always`).
"""

from __future__ import annotations

from typing import Final

import httpx
import msgspec
import structlog
from msgspec import Struct
from nats.aio.client import Client
from nats.errors import ConnectionClosedError, ConnectionReconnectingError
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    PersistMode,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamInfo,
)
from nats.js.errors import NotFoundError

from ledger.payment_messages import PAYMENT_BYTES_MAX, PAYMENT_STREAM

log = structlog.get_logger(__name__)

GENERATION: Final = "GENERATION"
PAYMENT: Final = PAYMENT_STREAM
LEDGER: Final = "LEDGER"
DEAD: Final = "DEAD"
DURABLE: Final = "scrip-captures"
"""The durable consumer on GENERATION that all workers share."""
PAYMENT_DURABLE: Final = "scrip-payments"
"""The durable consumer on PAYMENT that all workers share."""

GENERATION_KINDS: Final = ("started", "progressed", "succeeded", "failed", "cancelled")
GENERATION_SUBJECTS: Final = "scrip.*.generation.>"
PAYMENT_SUBJECTS: Final = "scrip.*.payment.*"
LEDGER_SUBJECTS: Final = "scrip.*.ledger.*.*.*"
"""The name of an event has three words, and that of a command one (`scrip.acme.ledger.reserve`): a
stream that took a request for a command would answer it, in the place of the ledger."""
DEAD_SUBJECTS: Final = "scrip.*.dead.>"

MESSAGE_BYTES_MAX: Final = 256 * 1024
"""The largest generation event. A dead letter adds headers, and must fit what NATS carries."""

GENERATION_MESSAGES_MAX: Final = 50_000_000
PAYMENT_MESSAGES_MAX: Final = 10_000_000
LEDGER_MESSAGES_MAX: Final = 10_000_000
DEAD_MESSAGES_MAX: Final = 1_000_000
DEDUP_SECONDS: Final = 120.0
LEDGER_DEDUP_SECONDS: Final = 2.0
"""Short: order and exactness come from the fence (see `outbox`), and a purge does not empty NATS's
memory of message ids: until the window is over, it takes what it no longer has for stored."""

ACK_WAIT_SECONDS: Final = 10.0
ACKS_PENDING_MAX: Final = 10_000
RECONNECT_SECONDS: Final = 0.5
CONNECT_SECONDS_MAX: Final = 5
API_SECONDS_MAX: Final = 5.0
MONITOR_SECONDS_MAX: Final = 3.0


class JetStreamUnsafe(Exception):
    """JetStream may lose on a power cut what it has acknowledged; the text says what to set."""


def stream_configs() -> list[StreamConfig]:
    """Return the streams as they should be."""
    return [
        StreamConfig(
            name=GENERATION,
            description="What generation services did; kept until it is in the ledger",
            subjects=[GENERATION_SUBJECTS],
            # Full means that publishers are refused: what was acknowledged is never pushed out.
            # Workers remove what is handled, many at once: a work queue would sync each removal.
            retention=RetentionPolicy.LIMITS,
            discard=DiscardPolicy.NEW,
            storage=StorageType.FILE,
            max_msgs=GENERATION_MESSAGES_MAX,
            max_msg_size=MESSAGE_BYTES_MAX,
            duplicate_window=DEDUP_SECONDS,
        ),
        StreamConfig(
            name=PAYMENT,
            description="What providers told of payments; kept until it is in PostgreSQL",
            subjects=[PAYMENT_SUBJECTS],
            # As for GENERATION. A provider whose webhook is refused sends it again for days.
            retention=RetentionPolicy.LIMITS,
            discard=DiscardPolicy.NEW,
            storage=StorageType.FILE,
            max_msgs=PAYMENT_MESSAGES_MAX,
            max_msg_size=PAYMENT_BYTES_MAX,
            duplicate_window=DEDUP_SECONDS,
        ),
        StreamConfig(
            name=LEDGER,
            description="Every ledger event, in order; made from PostgreSQL, again if it is lost",
            subjects=[LEDGER_SUBJECTS],
            retention=RetentionPolicy.LIMITS,
            discard=DiscardPolicy.OLD,
            storage=StorageType.FILE,
            max_msgs=LEDGER_MESSAGES_MAX,
            duplicate_window=LEDGER_DEDUP_SECONDS,
            persist_mode=PersistMode.ASYNC,
        ),
        StreamConfig(
            name=DEAD,
            description="What could not be handled, with the reason; kept until somebody acts",
            subjects=[DEAD_SUBJECTS],
            retention=RetentionPolicy.LIMITS,
            discard=DiscardPolicy.NEW,
            storage=StorageType.FILE,
            max_msgs=DEAD_MESSAGES_MAX,
            duplicate_window=DEDUP_SECONDS,
        ),
    ]


def consumer_configs() -> dict[str, ConsumerConfig]:
    """Return the durable consumers that workers share, by their streams.

    Deliveries are not limited: how often is enough depends on why, so whoever handles decides it.
    """
    return {
        GENERATION: _consumer(DURABLE, GENERATION_SUBJECTS),
        PAYMENT: _consumer(PAYMENT_DURABLE, PAYMENT_SUBJECTS),
    }


def _consumer(name: str, subjects: str) -> ConsumerConfig:
    return ConsumerConfig(
        name=name,
        durable_name=name,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT_SECONDS,
        max_deliver=-1,
        max_ack_pending=ACKS_PENDING_MAX,
        filter_subject=subjects,
    )


class Connection(Client):
    """A client that passes over what it cannot read, and sends many messages at once.

    The library's own stops reading, for as long as it takes to miss two pings, when somebody sends
    a subject that is not UTF-8, or headers that are none: nats-server passes them on.
    """

    async def send_commands(self, commands: bytes, messages: int) -> None:
        """Send what publishes so many messages, in the words of NATS's protocol.

        Raises ConnectionClosedError or ConnectionReconnectingError.
        """
        if self.is_closed:
            raise ConnectionClosedError
        if not self.is_connected:
            raise ConnectionReconnectingError
        self.stats["out_msgs"] += messages
        self.stats["out_bytes"] += len(commands)
        await self._send_command(commands)
        await self._flush_pending()

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        try:
            await super()._process_msg(sid, subject, reply, data, headers)
        except (ValueError, IndexError) as error:
            log.warning("nats.unreadable", subject=ascii(subject), error=type(error).__name__)


async def connect(url: str, name: str) -> Connection:
    """Connect, and stay connected for ever: an outage of NATS is waited out, however long.

    Tries until there is a server. The caller closes the connection.
    """
    client = Connection()

    async def on_error(error: Exception) -> None:
        log.warning("nats.error", client=name, error=str(error) or type(error).__name__)

    async def on_disconnect() -> None:
        if not client.is_closed:
            log.warning("nats.disconnected", client=name)

    async def on_reconnect() -> None:
        log.info("nats.reconnected", client=name)

    async def on_close() -> None:
        log.info("nats.closed", client=name)

    await client.connect(
        url.split(","),
        name=name,
        error_cb=on_error,
        disconnected_cb=on_disconnect,
        reconnected_cb=on_reconnect,
        closed_cb=on_close,
        max_reconnect_attempts=-1,
        reconnect_time_wait=RECONNECT_SECONDS,  # type: ignore[arg-type] # Any number will do.
        connect_timeout=CONNECT_SECONDS_MAX,
        ping_interval=5,
        max_outstanding_pings=2,
    )
    return client


def jetstream(client: Client) -> JetStreamContext:
    """Return JetStream on a connection, with our timeout."""
    return client.jetstream(timeout=API_SECONDS_MAX)


async def ensure_streams(js: JetStreamContext) -> None:
    """Create missing streams, and correct limits. Any number of processes may do it at once."""
    for config in stream_configs():
        await _ensure_stream(js, config)
    for stream, consumer in consumer_configs().items():
        await js.add_consumer(stream, consumer)


async def trim(js: JetStreamContext, stream: str, durable: str) -> None:
    """Remove from a stream what its workers have handled, from its beginning without a gap."""
    info = await js.consumer_info(stream, durable)
    if info.ack_floor is not None and info.ack_floor.stream_seq:
        await js.purge_stream(stream, seq=info.ack_floor.stream_seq + 1)


async def _ensure_stream(js: JetStreamContext, config: StreamConfig) -> None:
    assert config.name is not None
    try:
        found = await js.stream_info(config.name)
    except NotFoundError:
        await js.add_stream(config)
        log.info("stream.created", stream=config.name)
        return
    if _differs(found, config):
        # How many copies there are, where they lie and how they are synced the operator chooses.
        await js.update_stream(
            config,
            num_replicas=found.config.num_replicas,
            placement=found.config.placement,
            persist_mode=found.config.persist_mode,
        )
        log.info("stream.updated", stream=config.name)


def _differs(found: StreamInfo, wanted: StreamConfig) -> bool:
    names = (
        "subjects",
        "retention",
        "discard",
        "max_msgs",
        "max_msg_size",
        "duplicate_window",
        "description",
    )
    return any(getattr(found.config, name) != getattr(wanted, name) for name in names)


class _JetStreamConfig(Struct, frozen=True):
    sync_always: bool = False


class _JetStream(Struct, frozen=True):
    config: _JetStreamConfig | None = None


class _Varz(Struct, frozen=True):
    jetstream: _JetStream = _JetStream()


async def check_sync(monitor_url: str | None, *, refuse: bool = False) -> bool | None:
    """Tell whether the server syncs every write, None if it cannot be told. Warns if it does not.

    `monitor_url` is the server's monitoring address (`http_port`), such as http://127.0.0.1:8222.
    With `refuse`, raises JetStreamUnsafe instead of warning.
    """
    if monitor_url is None:
        return None
    try:
        varz = await _read_varz(monitor_url)
    except (httpx.HTTPError, httpx.InvalidURL, msgspec.MsgspecError) as error:
        log.warning("nats.sync_unknown", error=str(error))
        return None
    always = varz.jetstream.config is not None and varz.jetstream.config.sync_always
    if not always:
        advice = "set `sync_interval: always` under `jetstream` in nats-server's configuration"
        if refuse:
            raise JetStreamUnsafe(f"JetStream does not sync every write; {advice}")
        log.warning("nats.sync_is_not_always", advice=advice)
    return always


async def _read_varz(monitor_url: str) -> _Varz:
    # The server is addressed directly, whatever proxy the environment names for the outside.
    async with httpx.AsyncClient(timeout=MONITOR_SECONDS_MAX, trust_env=False) as client:
        answer = await client.get(f"{monitor_url.rstrip('/')}/varz")
        answer.raise_for_status()
        return msgspec.json.decode(answer.content, type=_Varz)


def token_of(tenant: str) -> str:
    """Return a tenant as one token of a subject: a dot would begin the next."""
    return tenant.replace(".", "%2E")


def tenant_of(subject: str) -> str:
    """Return the tenant in `scrip.<tenant>.…`. The inverse of `token_of`."""
    return subject.split(".", 2)[1].replace("%2E", ".")


def payment_subject(tenant: str, provider: str) -> str:
    """Return where a provider's deliveries go: `scrip.<tenant>.payment.stripe`."""
    return f"scrip.{token_of(tenant)}.payment.{provider}"


def ledger_subject(tenant: str, event: str) -> str:
    """Return where an event goes: `scrip.<tenant>.ledger.credits.reserved.v1`."""
    return f"scrip.{token_of(tenant)}.ledger.{event}"
