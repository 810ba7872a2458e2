"""Auto top-up: when a card is charged by itself, and when not. All of it from what is known now.

An attempt is written down before the provider is asked, and its id is the provider's idempotency
key: whatever is lost on the way, it is asked for again under the same key, never under another.

    open      the provider has been or may have been asked; the money is taken, or not
    paid      it says that it has the money; the credits come with its webhook, and by nothing else
    granted   they are in the ledger
    declined  it says no, and has no money
    failed    it never had such a charge

An account has at most one attempt that is open or paid, so there is one charge for a shortfall,
however long its answer or its credits are on the way. Only the provider's own word ends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from msgspec import Struct

from ledger.domain.catalog_events import PackSet
from ledger.domain.offers import Money
from ledger.domain.values import Credits, derived_id

AttemptState = Literal["open", "paid", "granted", "declined", "failed"]
Why = Literal[
    "in_flight",
    "payment_disputed",
    "payment_reversed",
    "backing_off",
    "pack_not_sold",
    "pack_without_price",
    "pack_too_small",
    "currency_mismatch",
    "monthly_max_reached",
    "customer_unknown",
    "no_payment_method",
    "provider_key_missing",
    "provider_key_unreadable",
    "provider_refused",
    "provider_unavailable",
]
"""Why an account that is short of credits is not topped up. Those from `customer_unknown` on are
found out only when all else is well."""

IN_FLIGHT: Final[frozenset[AttemptState]] = frozenset({"open", "paid"})
UNPAID: Final[frozenset[AttemptState]] = frozenset({"declined", "failed"})
BACK_OFF_FIRST: Final = timedelta(hours=1)
BACK_OFF_MAX: Final = timedelta(days=7)
DOUBLINGS_MAX: Final = 8


class AutoTopUp(Struct, frozen=True, kw_only=True):
    """What was put for an account: below `threshold`, buy one `pack`, for so much a month."""

    threshold: Credits
    pack: str
    monthly_max: Money
    reversed_known: Credits
    """How much of the account's grants had been taken back when auto top-up was put."""


class Attempt(Struct, frozen=True, kw_only=True):
    """One attempt, as far as the rules ask. `ended_at` is set unless it is in flight."""

    number: int
    state: AttemptState
    ended_at: datetime | None = None


class Credit(Struct, frozen=True, kw_only=True):
    """How an account stands, all of it at one moment."""

    available: Credits
    reversed: Credits
    """How much of its grants payments took back, all together."""
    frozen: bool
    """Whether a payment of it is disputed."""


class Due(Struct, frozen=True):
    """The account is to be topped up: the number of the attempt, and what is to be bought."""

    number: int
    price: str
    """What Stripe calls the pack."""
    money: Money


class Idle(Struct, frozen=True):
    """The account is short, and is not topped up."""

    why: Why


class TopUp(Struct, frozen=True, kw_only=True):
    """A charge to ask a provider for. The same attempt asks for the same, every time."""

    id: str
    tenant: str
    account: str
    customer: str
    card: str
    price: str
    money: Money
    started_at: datetime


class Charged(Struct, frozen=True, kw_only=True):
    """What a provider says of a charge.

    `refused`: this request made none, which says nothing of an earlier one. `nothing`: it knows of
    no such charge. `unknown`: there may be one, or will be; `payment` names it if there is.
    """

    state: Literal["paid", "declined", "refused", "nothing", "unknown"]
    payment: str | None = None
    """The provider's id."""
    code: str = ""
    message: str = ""


class Card(Struct, frozen=True):
    """What a customer pays with when he is not there: its id, or why there is none."""

    id: str | None = None
    why: Why | None = None


def attempt_id(tenant: str, account: str, put_at: datetime, number: int) -> str:
    """Return the id of an attempt: everybody who finds the same shortfall gives it the same.

    `put_at` is when auto top-up was first put, so that a tenant made anew asks under new keys.
    """
    since = put_at.astimezone(UTC).isoformat()
    return derived_id("topup", "\0".join((tenant, account, since, str(number))))


def judge(
    settings: AutoTopUp,
    attempts: Sequence[Attempt],
    *,
    spent: int,
    credit: Credit,
    pack: PackSet | None,
    now: datetime,
) -> Due | Idle | None:
    """Return what is to be done for an account; None if it is not short.

    `attempts` are the latest ones, the newest first; `spent` is the money of this month's that
    were not declined; `pack` is the pack's version in force.
    """
    if credit.available >= settings.threshold:
        return None
    why = _held_back(settings, attempts, credit)
    if why is not None:
        return Idle(why)
    until = back_off_until(attempts)
    if until is not None and until > now:
        return Idle("backing_off")
    why = unfit(settings, pack)
    if why is not None:
        return Idle(why)
    assert pack is not None
    assert pack.terms.price is not None
    if spent + pack.terms.price.amount > settings.monthly_max.amount:
        return Idle("monthly_max_reached")
    number = attempts[0].number + 1 if attempts else 1
    return Due(number, pack.terms.providers.stripe[0], pack.terms.price)


def _held_back(settings: AutoTopUp, attempts: Sequence[Attempt], credit: Credit) -> Why | None:
    if attempts and attempts[0].state in IN_FLIGHT:
        return "in_flight"
    # Whoever gets money back, or wants it back, must not be charged for what is missing then.
    if credit.reversed > settings.reversed_known:
        return "payment_reversed"
    return "payment_disputed" if credit.frozen else None


def unfit(settings: AutoTopUp, pack: PackSet | None) -> Why | None:
    """Return why a pack cannot be what is bought, if it cannot.

    One smaller than the threshold would be bought over and over for one shortfall.
    """
    if pack is None or pack.retired or not pack.terms.providers.stripe:
        return "pack_not_sold"
    if pack.terms.price is None:
        return "pack_without_price"
    if pack.terms.price.currency != settings.monthly_max.currency:
        return "currency_mismatch"
    if pack.terms.credits < settings.threshold:
        return "pack_too_small"
    return None


def back_off_until(attempts: Sequence[Attempt]) -> datetime | None:
    """Return until when nothing is tried: an hour after one that did not pay, then twice as long.

    It follows from the attempts alone, so nothing that is put again can shorten it.
    """
    unpaid = 0
    while unpaid < len(attempts) and attempts[unpaid].state in UNPAID:
        unpaid += 1
    if not unpaid:
        return None
    ended_at = attempts[0].ended_at
    assert ended_at is not None
    doublings: int = min(unpaid - 1, DOUBLINGS_MAX)
    return ended_at + min(BACK_OFF_FIRST * (1 << doublings), BACK_OFF_MAX)


def month_of(now: datetime) -> datetime:
    """Return when the calendar month of `now` began, in UTC."""
    return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
