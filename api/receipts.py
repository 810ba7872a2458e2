"""An event of the ledger to the answer of the command that caused it: the event is the receipt.

Pure: the first answer and every replay of it are made from the same stored event, so that they are
the same byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Struct

from api import answers
from api.catalog_receipts import catalog_answer, decimal, rates_out
from ledger.domain.catalog_events import CatalogEvent
from ledger.domain.entities import Balance, Draw, Price, Return, Source, Usage
from ledger.domain.events import (
    AccountOpened,
    AccountUpdated,
    BalanceAdjusted,
    CreditsDeducted,
    CreditsGranted,
    CreditsRefunded,
    CreditsReserved,
    GrantRevoked,
    Regrant,
    ReservationCaptured,
    ReservationExtended,
    ReservationReleased,
)
from ledger.domain.values import ZONE_DEFAULT, format_decimal
from ledger.records import Recorded

_encoder = msgspec.json.Encoder()
OK, CREATED = 200, 201


class Receipt(Struct, frozen=True):
    """An answer, ready to be sent."""

    status: int
    body: bytes
    place: tuple[str, ...] | None = None
    """The parts of the path below /v1/accounts where what was made can be read, if it can."""

    @property
    def location(self) -> str | None:
        """The path of what was made: worked out only where it is told, which a batch does not."""
        if self.place is None:
            return None
        return "/v1/accounts/" + "/".join(quote(part, safe=":@") for part in self.place)


def receipt(recorded: Recorded) -> Receipt:
    """Return the answer to the command that `recorded` is the event of."""
    event = recorded.event
    match event:
        case CreditsReserved():
            body = _reserved(recorded, event)
            return _made(recorded, body, "reservations", event.reservation)
        case ReservationCaptured():
            return Receipt(OK, _encoder.encode(_captured(recorded, event)))
        case CreditsDeducted():
            return _made(recorded, _deducted(recorded, event))
        case ReservationReleased():
            return Receipt(OK, _encoder.encode(_released(recorded, event)))
        case ReservationExtended():
            return Receipt(OK, _encoder.encode(_extended(recorded, event)))
        case CreditsGranted():
            return _made(recorded, _granted(recorded, event), "grants", event.grant)
        case GrantRevoked():
            return Receipt(OK, _encoder.encode(_revoked(recorded, event)))
        case CreditsRefunded():
            return _made(recorded, _refunded(recorded, event))
        case BalanceAdjusted():
            return _made(recorded, _adjusted(recorded, event))
        case AccountOpened():
            return _made(recorded, _put(recorded, event), "")
        case AccountUpdated():
            return Receipt(OK, _encoder.encode(_put(recorded, event)))
        case _ if isinstance(event, CatalogEvent):
            return Receipt(OK, _encoder.encode(catalog_answer(recorded.position, event)))
        case _:
            raise AssertionError(f"{recorded.name} answers no command")


def _made(
    recorded: Recorded, body: Struct, kind: str | None = None, name: str | None = None
) -> Receipt:
    """Answer that something was made, and where it can be read, if it can be."""
    if kind is None:
        return Receipt(CREATED, _encoder.encode(body))
    place = (_account(recorded),) if name is None else (_account(recorded), kind, name)
    return Receipt(CREATED, _encoder.encode(body), place)


def balance_parts(balance: Balance | None) -> answers.BalanceParts:
    """Return the balance after an event, as an answer shows it."""
    assert balance is not None
    # Every command's answer has one: a loop over the fields takes twice as long.
    return answers.BalanceParts(
        granted=_part(balance.granted),
        available=_part(balance.available),
        pending=_part(balance.pending),
        reserved=_part(balance.reserved),
        consumed=_part(balance.consumed),
        expired=_part(balance.expired),
        revoked=_part(balance.revoked),
        debt=_part(balance.debt),
        overdraft_reserved=_part(balance.overdraft_reserved),
        overdraft_limit=_part(balance.overdraft_limit),
    )


def _part(millionths: int) -> str:
    """Return a part of a balance as a decimal: most parts of most balances are 0."""
    return format_decimal(millionths) if millionths else "0"


def slices(draws: Iterable[Draw]) -> list[answers.Slice]:
    """Return what each grant pays."""
    return [answers.Slice(draw.grant, decimal(draw.amount)) for draw in draws]


def price_out(price: Price | None) -> answers.PriceOut | None:
    """Return how an amount came about."""
    if price is None:
        return None
    return answers.PriceOut(
        feature=price.feature,
        version=price.version,
        amount=decimal(price.amount),
        unit_price=UNSET if price.unit_price is None else decimal(price.unit_price),
        quantity=UNSET if price.quantity is None else decimal(price.quantity),
        model=UNSET if price.model is None else price.model,
        rates=UNSET if price.rates is None else rates_out(price.rates),
        usage=UNSET if price.usage is None else usage_out(price.usage),
        provider_cost=UNSET if price.provider_cost is None else decimal(price.provider_cost),
    )


def usage_out(usage: Usage) -> answers.UsageOut:
    """Return the tokens of one call."""
    return answers.UsageOut(usage.input_tokens, usage.output_tokens, usage.cached_input_tokens)


def source_out(source: Source | None) -> answers.SourceOut | None:
    """Return where a grant comes from."""
    return None if source is None else answers.SourceOut(source.type, source.id)


def _account(recorded: Recorded) -> str:
    assert recorded.account is not None
    return recorded.account


def _tail(recorded: Recorded) -> dict[str, Any]:
    """Return what every answer to a command on an account ends in."""
    return {"position": str(recorded.position), "balance": balance_parts(recorded.balance)}


def _put(recorded: Recorded, event: AccountOpened | AccountUpdated) -> answers.AccountAnswer:
    return answers.AccountAnswer(
        id=_account(recorded),
        label=event.label,
        overdraft_limit=decimal(event.overdraft_limit),
        metadata=event.metadata,
        # Left out where it is the default, so that an answer of long ago is the same again.
        zone=UNSET if event.zone == ZONE_DEFAULT else event.zone,
        **_tail(recorded),
    )


def _granted(recorded: Recorded, event: CreditsGranted) -> answers.GrantAnswer:
    pending = event.amount if event.pending else 0
    return answers.GrantAnswer(
        id=event.grant,
        account=_account(recorded),
        amount=decimal(event.amount),
        available=decimal(event.amount - pending - event.debt_repaid),
        pending=decimal(pending),
        reserved="0",
        consumed=decimal(event.debt_repaid),
        expired="0",
        revoked="0",
        status="pending" if event.pending else "active",
        kind=event.kind,
        priority=event.priority,
        scope=list(event.scope),
        effective_at=event.effective_at,
        expires_at=event.expires_at,
        cost_basis=None if event.cost_basis is None else decimal(event.cost_basis),
        source=source_out(event.source),
        metadata=event.metadata,
        reason=recorded.reason,
        **_tail(recorded),
    )


def _revoked(recorded: Recorded, event: GrantRevoked) -> answers.RevocationAnswer:
    return answers.RevocationAnswer(
        grant=event.grant,
        account=_account(recorded),
        amount=decimal(event.amount),
        clawback=event.clawback,
        debt=decimal(event.debt),
        reason=recorded.reason,
        **_tail(recorded),
    )


def _reserved(recorded: Recorded, event: CreditsReserved) -> answers.ReservationAnswer:
    return answers.ReservationAnswer(
        id=event.reservation,
        account=_account(recorded),
        status="open",
        amount=decimal(event.amount),
        captured="0",
        remaining=decimal(event.amount),
        expires_at=event.expires_at,
        draws=slices(event.draws),
        overdraft=decimal(event.overdraft),
        feature=event.feature,
        price=price_out(event.price),
        actor=event.actor,
        job=event.job,
        metadata=event.metadata,
        **_tail(recorded),
    )


def _captured(recorded: Recorded, event: ReservationCaptured) -> answers.CaptureAnswer:
    remaining = sum(draw.amount for draw in event.pinned) + event.overdraft_pinned
    return answers.CaptureAnswer(
        deduction=event.deduction,
        amount=decimal(event.amount),
        draws=slices(event.draws + event.extra),
        debt=decimal(event.overdraft + event.debt),
        price=price_out(event.price),
        reservation=answers.ReservationState(
            id=event.reservation,
            account=_account(recorded),
            status=event.status,
            amount=decimal(event.reserved),
            captured=decimal(event.captured),
            remaining=decimal(remaining),
            expires_at=event.expires_at,
            draws=slices(event.pinned),
            overdraft=decimal(event.overdraft_pinned),
        ),
        **_tail(recorded),
    )


def _released(recorded: Recorded, event: ReservationReleased) -> answers.ReservationChange:
    return answers.ReservationChange(
        id=event.reservation,
        account=_account(recorded),
        status=event.status,
        amount=decimal(event.reserved),
        captured=decimal(event.captured),
        remaining="0",
        expires_at=event.expires_at,
        draws=[],
        overdraft="0",
        **_tail(recorded),
    )


def _extended(recorded: Recorded, event: ReservationExtended) -> answers.ReservationChange:
    remaining = sum(draw.amount for draw in event.pinned) + event.overdraft_pinned
    return answers.ReservationChange(
        id=event.reservation,
        account=_account(recorded),
        status="open",
        amount=decimal(event.reserved),
        captured=decimal(event.captured),
        remaining=decimal(remaining),
        expires_at=event.expires_at,
        draws=slices(event.pinned),
        overdraft=decimal(event.overdraft_pinned),
        **_tail(recorded),
    )


def _deducted(recorded: Recorded, event: CreditsDeducted) -> answers.DeductionAnswer:
    return answers.DeductionAnswer(
        id=event.deduction,
        account=_account(recorded),
        amount=decimal(event.amount),
        refunded="0",
        draws=slices(event.draws),
        debt=decimal(event.debt),
        feature=event.feature,
        price=price_out(event.price),
        actor=event.actor,
        job=event.job,
        metadata=event.metadata,
        **_tail(recorded),
    )


def _returns(returned: Iterable[Return]) -> list[answers.ReturnSlice]:
    return [answers.ReturnSlice(back.grant, decimal(back.amount), back.to) for back in returned]


def _new_grant(regrant: Regrant) -> answers.NewGrant:
    return answers.NewGrant(
        id=regrant.grant,
        amount=decimal(regrant.amount),
        kind=regrant.kind,
        scope=list(regrant.scope),
        expires_at=regrant.expires_at,
        instead_of=regrant.instead_of,
        debt_repaid=decimal(regrant.debt_repaid),
    )


def _refunded(recorded: Recorded, event: CreditsRefunded) -> answers.RefundAnswer:
    return answers.RefundAnswer(
        id=event.refund,
        account=_account(recorded),
        deduction=event.deduction,
        amount=decimal(event.amount),
        refunded=decimal(event.refunded),
        returns=_returns(event.returns),
        debt_cancelled=decimal(event.debt_cancelled + event.clawback_cancelled),
        grants=[_new_grant(regrant) for regrant in event.regrants],
        reason=recorded.reason,
        **_tail(recorded),
    )


def _adjusted(recorded: Recorded, event: BalanceAdjusted) -> answers.AdjustmentAnswer:
    return answers.AdjustmentAnswer(
        id=event.adjustment,
        account=_account(recorded),
        amount=decimal(event.amount),
        draws=slices(event.draws),
        debt=decimal(event.debt),
        grant=None if event.grant is None else _new_grant(event.grant),
        reason=recorded.reason,
        metadata=event.metadata,
        **_tail(recorded),
    )
