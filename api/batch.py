"""Many commands in one request: each with its own key, its own answer and its own fate."""

from __future__ import annotations

from typing import Annotated, Any, Final, Union

import msgspec
from msgspec import Meta, Raw, Struct

from api import problems
from api.accounts import PUT_ACCOUNT
from api.adjustments import CREATE_ADJUSTMENT
from api.answers import BatchItem
from api.decoding import Decoder, check_syntax
from api.deductions import CREATE_DEDUCTION, CREATE_REFUND
from api.fields import IdempotencyKey
from api.grants import CREATE_GRANT, REVOKE_GRANT
from api.headers import NO_STORE, REPLAYED
from api.items import check_role, item_of, order_of
from api.receipts import receipt
from api.reservations import CAPTURE, CREATE_RESERVATION, EXTEND, RELEASE
from api.routes import SPENDERS, Ask, Asked, Call, Reply, Write
from ledger.domain.errors import LedgerError, Overloaded, StoreUnavailable
from ledger.records import Order, Outcome

COMMANDS_MAX: Final = 1_000
BATCHED: Final[tuple[Write, ...]] = (
    CREATE_RESERVATION,
    CAPTURE,
    RELEASE,
    EXTEND,
    CREATE_DEDUCTION,
    CREATE_REFUND,
    CREATE_GRANT,
    REVOKE_GRANT,
    CREATE_ADJUSTMENT,
    PUT_ACCOUNT,
)


def _item(write: Write) -> type[Asked]:
    """Return the body of `write` with what its path and its header say in a request of its own."""
    item = item_of(
        write.body,
        "Item",
        write.target,
        (("key", IdempotencyKey),),
        tag_field="op",
        tag=write.op,
    )
    item.__doc__ = f"{write.summary}: as `{write.method} {write.path}`."
    return item


ITEMS: Final[dict[type[Asked], Write]] = {_item(write): write for write in BATCHED}
AnyItem = Union[tuple(ITEMS)]  # type: ignore[valid-type]  # noqa: UP007 - made from a table
_decoder: Final[Decoder[Any]] = Decoder(AnyItem)
_encoder = msgspec.json.Encoder()


class BatchIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Up to 1 000 commands, done in this order. A bad one does not touch the others."""

    commands: Annotated[list[Raw], Meta(min_length=1, max_length=COMMANDS_MAX)]


class BatchDescription(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Up to 1 000 commands, done in this order. A bad one does not touch the others."""

    commands: Annotated[
        list[AnyItem],  # type: ignore[valid-type]
        Meta(min_length=1, max_length=COMMANDS_MAX),
    ]


class BatchResults(Struct, kw_only=True):
    """One result for each command, in the same order."""

    results: list[BatchItem]


class _Result(Struct):
    status: int
    body: Raw


class _Results(Struct):
    results: list[_Result]


def _order(call: Call, raw: Raw) -> Order:
    """Return the order of one item. Raises the LedgerError that refuses it."""
    if b"\\u" in bytes(raw):
        check_syntax(bytes(raw))
    item = _decoder.decode_checked(raw)
    write = ITEMS[type(item)]
    check_role(call, write)
    return order_of(call, write, item, item.key)


async def _batch(call: Call, batch: BatchIn) -> Reply:
    results: list[_Result | None] = [None] * len(batch.commands)
    places: list[int] = []
    orders: list[Order] = []
    for place, raw in enumerate(batch.commands):
        try:
            orders.append(_order(call, raw))
        except LedgerError as refusal:
            results[place] = _refused(refusal, call.request_id)
        else:
            places.append(place)
    outcomes = await call.room.ledger.commands(orders) if orders else []
    for place, outcome in zip(places, outcomes, strict=True):
        results[place] = _result(outcome, call.request_id)
    headers = [NO_STORE]
    if len(orders) == len(results) and all(_is_replay(outcome) for outcome in outcomes):
        headers.append(REPLAYED)
    body = _encoder.encode(_Results([result for result in results if result is not None]))
    return Reply(body=body, headers=tuple(headers))


def _result(outcome: Outcome | LedgerError, request_id: str) -> _Result:
    if isinstance(outcome, LedgerError):
        return _refused(outcome, request_id)
    assert outcome.recorded is not None
    made = receipt(outcome.recorded)
    return _Result(made.status, Raw(made.body))


def _refused(refusal: LedgerError, request_id: str) -> _Result:
    return _Result(refusal.status, Raw(problems.encode(refusal, request_id)))


def _is_replay(outcome: Outcome | LedgerError) -> bool:
    return isinstance(outcome, Outcome) and outcome.replayed


BATCH = Ask(
    method="POST",
    path="/v1/batch",
    name="batch",
    tag="batch",
    summary="Give up to 1 000 commands in one request",
    details="Each command has its own idempotency `key` and gets the status and the body that it"
    " would have got alone; a bad one is a result with status 422 and touches no other. The answer"
    " says `Idempotent-Replayed: true` if every command had been done before.",
    roles=SPENDERS,
    refusals=(Overloaded, StoreUnavailable),
    body=BatchIn,
    description=BatchDescription,
    handle=_batch,
    answer=BatchResults,
    large=True,
)
