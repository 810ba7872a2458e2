"""Quotes: what a charge would cost now, by the rules that a reservation is priced by."""

from __future__ import annotations

from api.answers import QuoteAnswer
from api.charges import Charged
from api.receipts import price_out
from api.routes import SPENDERS, Ask, Call
from ledger.domain.errors import InvalidCommand, Overloaded, PriceNotFound, StoreUnavailable
from ledger.domain.values import format_decimal


class QuoteIn(Charged, frozen=True, kw_only=True):
    """What to price."""


async def _quote(call: Call, asked: QuoteIn) -> QuoteAnswer:
    amount, price = await call.room.ledger.quote(call.tenant, asked.charge)
    return QuoteAnswer(amount=format_decimal(amount), price=price_out(price))


QUOTE = Ask(
    method="POST",
    path="/v1/quotes",
    name="quote",
    tag="quotes",
    summary="Price without acting",
    details="Advisory: a price may change before it is used. Reserve to hold one. Needs no key.",
    roles=SPENDERS,
    refusals=(InvalidCommand, PriceNotFound, Overloaded, StoreUnavailable),
    body=QuoteIn,
    handle=_quote,
    answer=QuoteAnswer,
)
