"""What follows from payment facts: what the ledger should hold, and what people should look at."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal, Protocol

from msgspec import Struct

from ledger.domain.entities import GrantKind, Source
from ledger.domain.facts import Provider, SubscriptionStatus
from ledger.domain.offers import Pack, Plan
from ledger.domain.values import Credits

AlertCode = Literal[
    "unknown_price",
    "price_not_told",
    "amount_mismatch",
    "currency_mismatch",
    "too_many_credits",
    "delta_mismatch",
    "account_conflict",
    "refused",
    "unreadable_delivery",
]
"""Those from `account_conflict` on do not follow from facts alone: the owners' links say so, the
ledger has refused what follows, a delivery could not be read."""


PRICE_CODES: Final[frozenset[AlertCode]] = frozenset(
    {"unknown_price", "amount_mismatch", "currency_mismatch", "too_many_credits"}
)
"""Those that another catalog would put right."""


class Offer(Struct, frozen=True):
    """What a tenant sells, and its key in the catalog."""

    key: str
    terms: Plan | Pack


class Offers(Protocol):
    """The catalog, as far as payments ask it."""

    def find(self, provider: Provider, price: str, when: datetime) -> Offer | None:
        """Return what a provider's price was for at that time."""

    def fallback(self, when: datetime) -> str | None:
        """Return the key of the plan of those who pay for none, at that time."""


class Entitlement(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one payment, or all payments for one period of a subscription, entitle to.

    As more facts come, `credits` rises (it falls only where one item of a subscription takes the
    place of several that gave more). `reversed` may fall: a refund can fail, a dispute be won, and
    an earlier payment of the same period turn up, of which nothing was given back.
    """

    payment: str
    """The key: a payment (`stripe:session:…`) or a period (`stripe:subscription:…:<its end>`)."""
    offer: str
    """The key of the plan or pack; of several plans in one period, the biggest."""
    kind: GrantKind
    priority: int
    credits: Credits
    bonus: Credits = 0
    reversed: Credits = 0
    """How much of `credits` is to be taken back: whole micro-credits, rounded down."""
    bonus_reversed: Credits = 0
    frozen: bool = False
    """Whether a dispute is open, so that what is unspent may not be spent."""
    effective_at: datetime
    expires_at: datetime | None = None
    """None: never. A period's credits end with it, unless all of them roll over."""
    subscription: str | None = None
    """The ref of what it is a period of; of a single payment for a plan, its own key."""
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    """The period, `[start, end)`; None for a pack."""
    quantity: int = 1
    """How many of the plan: so many times its cap may go over at the end of the period."""
    source: Source


class Standing(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a subscription stands."""

    subscription: str
    status: SubscriptionStatus
    plan: str | None = None
    """The key of the plan that is had: the fallback, if it has ended; None, if none is known."""
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    cancel_at: datetime | None = None
    ended_at: datetime | None = None
    since: datetime
    """When the latest fact about it occurred."""


class Delta(Struct, frozen=True, kw_only=True):
    """Credits given or taken once."""

    delta: str
    amount: Credits


class Alert(Struct, frozen=True, kw_only=True, order=True):
    """Something that a person has to put right."""

    code: AlertCode
    subject: str
    """The key of the payment or the subscription."""
    price: str = ""


class Settlement(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that follows from the facts of one group. Sorted, so that equal ones are equal."""

    entitlements: tuple[Entitlement, ...] = ()
    standings: tuple[Standing, ...] = ()
    deltas: tuple[Delta, ...] = ()
    alerts: tuple[Alert, ...] = ()
    owners: tuple[str, ...] = ()
    """All that names the account."""
