"""What payment providers tell, in one form: facts that are true for good, and that may be repeated.

A fact says what was so at one moment (so much was paid, refunded so far, disputed), never what to
do about it. `settlement` works out what the ledger should look like from all facts known.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from ledger.domain.offers import Money
from ledger.domain.values import Credits, derived_id

Provider = Literal["stripe", "clerk", "asaas", "users"]
SubscriptionStatus = Literal[
    "incomplete", "upcoming", "trialing", "active", "past_due", "paused", "ended"
]
DisputeStatus = Literal["inquiry", "open", "lost", "won"]
UserChange = Literal["created", "updated", "deleted"]

QUANTITY_MAX: Final = 1_000_000
"""The most pieces of one price that one payment may be for."""


class Link(Struct, frozen=True, tag="link", forbid_unknown_fields=True):
    """Nothing but that the refs of the fact name one payment, and its owners one account."""


class Purchase(
    Struct,
    frozen=True,
    kw_only=True,
    tag="purchase",
    omit_defaults=True,
    forbid_unknown_fields=True,
):
    """One payment for one thing, paid or not yet."""

    payment: str
    """The ref that is the key of the payment."""
    paid: bool
    price: str | None = None
    """The provider's id of what was bought, where it is told."""
    quantity: int = 1
    listed: Money | None = None
    """What the thing costs, before discounts and taxes."""
    money: Money | None = None
    """What is paid in all: refunds are parts of it."""
    sure: bool = False
    """Whether the provider itself says that the money is for this price; else a reference does."""
    starts_at: datetime | None = None
    """When the period begins, if what was bought is a plan; None: when it was paid."""
    subscription: str | None = None
    """The ref of the subscription that it is a payment of."""


class Line(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What an invoice asks for one price: a period of it, or with `proration` the rest of one.

    Negative amounts are credits for the unused rest of what another line takes the place of.
    """

    id: str
    item: str
    """The item of the subscription."""
    price: str | None = None
    quantity: int = 1
    amount: int
    """Before discounts and taxes, in the smallest unit of the invoice's currency."""
    starts_at: datetime
    ends_at: datetime
    proration: bool = False


class PeriodPaid(
    Struct,
    frozen=True,
    kw_only=True,
    tag="period_paid",
    omit_defaults=True,
    forbid_unknown_fields=True,
):
    """An invoice of a subscription that is paid, with all its lines."""

    payment: str
    subscription: str
    money: Money
    """What is paid in all: refunds are parts of it."""
    lines: tuple[Line, ...]


class RefundedSoFar(
    Struct, frozen=True, kw_only=True, tag="refunded_so_far", forbid_unknown_fields=True
):
    """How much of one charge had been refunded by then, all refunds together."""

    charge: str
    money: Money
    of: Money
    """What the charge was."""


class Refund(Struct, frozen=True, kw_only=True, tag="refund", forbid_unknown_fields=True):
    """One refund. One that has failed gives no money back, whatever was told of it before."""

    refund: str
    money: Money
    failed: bool


class Dispute(Struct, frozen=True, kw_only=True, tag="dispute", forbid_unknown_fields=True):
    """A chargeback of so much, and how it stands. Inquiries are only questions."""

    dispute: str
    money: Money
    status: DisputeStatus


class Item(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a subscription is of, and its period at the time."""

    id: str
    price: str | None = None
    quantity: int = 1
    starts_at: datetime | None = None
    ends_at: datetime | None = None


class Subscription(
    Struct,
    frozen=True,
    kw_only=True,
    tag="subscription",
    omit_defaults=True,
    forbid_unknown_fields=True,
):
    """How a subscription stood when the fact occurred."""

    subscription: str
    status: SubscriptionStatus
    items: tuple[Item, ...] = ()
    cancel_at: datetime | None = None
    """When it will end, if it will not be renewed."""
    ended_at: datetime | None = None
    free: bool = False
    """Whether it is the plan that everybody has who pays for none."""
    step: int = 0
    """Which comes later of two facts of one moment: the higher one."""


class User(Struct, frozen=True, kw_only=True, tag="user", forbid_unknown_fields=True):
    """Somebody came, changed or went at whoever keeps the users."""

    user: str
    change: UserChange


class CreditsDelta(
    Struct, frozen=True, kw_only=True, tag="credits_delta", forbid_unknown_fields=True
):
    """Credits that a user system gives or takes, once for each id."""

    delta: str
    amount: Credits
    """Below zero: to be taken."""


Content = (
    Link
    | Purchase
    | PeriodPaid
    | RefundedSoFar
    | Refund
    | Dispute
    | Subscription
    | User
    | CreditsDelta
)


class PaymentFact(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """One thing that a provider told, verified and without personal data.

    Two tellings of the same have the same id, whatever the delivery and its type were: these two
    only say who told it first, and nothing follows from them.
    """

    id: str = ""
    provider: Provider
    delivery: str
    """The provider's id of the delivery."""
    type: str
    """The provider's name for what happened."""
    occurred_at: datetime
    """UTC; from the object itself where it says so, else the time of the provider's event."""
    refs: tuple[str, ...] = ()
    """All that names the payment or the subscription (`stripe:pi:pi_…`), sorted."""
    owners: tuple[str, ...] = ()
    """All that names the account (`account:…`, `stripe:customer:cus_…`), sorted."""
    content: Content


_encode = msgspec.json.Encoder(order="deterministic").encode


def fact(
    *,
    provider: Provider,
    delivery: str,
    type: str,  # noqa: A002 - the field's own name
    occurred_at: datetime,
    refs: set[str],
    owners: set[str],
    content: Content,
) -> PaymentFact:
    """Return the fact with its id, which is made of all that it says."""
    told = PaymentFact(
        provider=provider,
        delivery="",
        type="",
        occurred_at=occurred_at,
        refs=tuple(sorted(refs)),
        owners=tuple(sorted(owners)),
        content=content,
    )
    name = derived_id("fact", _encode(told).decode())
    return replace(told, id=name, delivery=delivery, type=type)
