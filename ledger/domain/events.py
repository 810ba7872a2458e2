"""What happened: frozen for good once released. A change of meaning is a new name and an upcast.

Each event says in full what was decided, so that nothing has to be looked up to understand it.
Amounts are micro-credits, times are UTC. `NAMES` holds the permanent names they are stored under.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from msgspec import Struct

from ledger.domain.catalog_events import (
    FeatureSet,
    PackSet,
    PlanSet,
    RateCardSet,
    ReferralRewardSet,
    RefundPolicySet,
)
from ledger.domain.entities import (
    Bucket,
    Draw,
    GrantKind,
    GrantStatus,
    Metered,
    OperationStatus,
    Price,
    Return,
    Source,
)
from ledger.domain.tenant_events import AlertRaised, TenantEvent
from ledger.domain.values import ZONE_DEFAULT, Credits


class AccountOpened(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """An account was opened."""

    label: str | None = None
    overdraft_limit: Credits = 0
    metadata: dict[str, str] = {}
    zone: str = ZONE_DEFAULT


class AccountUpdated(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """An account's properties were put again; these are all of them."""

    label: str | None = None
    overdraft_limit: Credits = 0
    metadata: dict[str, str] = {}
    zone: str = ZONE_DEFAULT


class CreditsGranted(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """Credits were given. `debt_repaid` of them went to the debt, if they were effective."""

    grant: str
    amount: Credits
    kind: GrantKind
    priority: int
    scope: tuple[str, ...] = ()
    effective_at: datetime
    expires_at: datetime | None = None
    cost_basis: int | None = None
    source: Source | None = None
    metadata: dict[str, str] = {}
    pending: bool = False
    debt_repaid: Credits = 0


class GrantActivated(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """A pending grant became effective; `debt_repaid` of it went to the debt."""

    grant: str
    amount: Credits
    debt_repaid: Credits = 0


class GrantExpired(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """A grant's time is over; `amount` is what nobody had spent or set aside. It may be frozen."""

    grant: str
    amount: Credits
    frozen: bool = False


class GrantRevoked(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """A grant was taken back: `amount` was unspent.

    A clawback also makes debt of what was spent (`debt`), and of what is set aside once it is.
    """

    grant: str
    amount: Credits
    pending: bool = False
    clawback: bool = False
    debt: Credits = 0


class Regrant(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """A new grant that another event makes: an adjustment, or a refund of what cannot go back.

    `instead_of` is the expired grant that it stands for, whose properties it has but for its life.
    """

    grant: str
    amount: Credits
    kind: GrantKind
    priority: int
    scope: tuple[str, ...] = ()
    effective_at: datetime
    expires_at: datetime | None = None
    cost_basis: int | None = None
    instead_of: str | None = None
    debt_repaid: Credits = 0


class PaymentApplied(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """The grant of a payment was brought to what is known of the payment: paid, refunded, disputed.

    The first one makes the grant (`added` is then all of `amount`), and has it follow the terms
    that each one states. `reversed` is how much of `amount` the money went back for, in all. This
    time `taken` of it was unspent and is revoked, and `debt` was made of what had been spent;
    `owing` is what is set aside now and will be one or the other. Where less of the money went back
    than was thought, `restored` is revoked no longer and `debt_cancelled` owed no longer; where a
    later grant has repaid that debt, `regrant` gives it back. `debt_repaid` went to the debt.
    What is unspent was `unspent_before`, and lay `before`; now it is `unspent`, and lies where the
    status says: a frozen grant's is pending. `revision` counts the facts that were known.
    """

    grant: str
    revision: int
    amount: Credits
    reversed: Credits = 0
    status: GrantStatus = "active"
    kind: GrantKind
    priority: int
    scope: tuple[str, ...] = ()
    effective_at: datetime
    expires_at: datetime | None = None
    cost_basis: int | None = None
    source: Source | None = None
    added: Credits = 0
    before: Bucket = "available"
    unspent_before: Credits = 0
    unspent: Credits = 0
    taken: Credits = 0
    debt: Credits = 0
    debt_repaid: Credits = 0
    owing: Credits = 0
    restored: Credits = 0
    debt_cancelled: Credits = 0
    regrant: Regrant | None = None


class CreditsReserved(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """Credits were set aside until a deadline: slices of grants, then the overdraft."""

    reservation: str
    amount: Credits
    draws: tuple[Draw, ...] = ()
    overdraft: Credits = 0
    expires_at: datetime
    feature: str | None = None
    price: Price | None = None
    actor: str | None = None
    job: str | None = None
    metadata: dict[str, str] = {}


class ReservationExtended(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """More was set aside, or for longer. `reserved` is the reservation's whole amount from now on.

    `pinned` and `overdraft_pinned` are all that is set aside now.
    """

    reservation: str
    amount: Credits = 0
    draws: tuple[Draw, ...] = ()
    overdraft: Credits = 0
    expires_at: datetime
    reserved: Credits
    captured: Credits = 0
    pinned: tuple[Draw, ...] = ()
    overdraft_pinned: Credits = 0


class ReservationCaptured(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """Some of a reservation was spent; when `status` is no longer open, the rest went back.

    amount = draws (set aside before) + extra (drawn now) + overdraft (set aside before) + debt.
    `overdraft` and `debt` are owed from now on, and so is `clawed_back`: the part of `draws` whose
    grants had been clawed back meanwhile. `metered` is what this capture adds, where `price` counts
    from the operation's beginning.
    """

    reservation: str
    deduction: str
    amount: Credits
    draws: tuple[Draw, ...] = ()
    extra: tuple[Draw, ...] = ()
    overdraft: Credits = 0
    debt: Credits = 0
    clawed_back: Credits = 0
    returns: tuple[Return, ...] = ()
    overdraft_returned: Credits = 0
    status: OperationStatus
    reserved: Credits
    captured: Credits
    pinned: tuple[Draw, ...] = ()
    overdraft_pinned: Credits = 0
    expires_at: datetime | None = None
    feature: str | None = None
    price: Price | None = None
    metered: Metered | None = None
    actor: str | None = None
    job: str | None = None


class ReservationReleased(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """What was still set aside went back. The status is `captured` if a total was reported."""

    reservation: str
    amount: Credits
    status: OperationStatus = "released"
    returns: tuple[Return, ...] = ()
    overdraft_returned: Credits = 0
    reserved: Credits
    captured: Credits = 0
    expires_at: datetime


class ReservationExpired(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """The deadline passed; what was still set aside went back."""

    reservation: str
    amount: Credits
    returns: tuple[Return, ...] = ()
    overdraft_returned: Credits = 0


class CreditsDeducted(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """Credits were spent in one step. amount = draws + debt, and `debt` is owed from now on."""

    deduction: str
    amount: Credits
    draws: tuple[Draw, ...] = ()
    debt: Credits = 0
    feature: str | None = None
    price: Price | None = None
    actor: str | None = None
    job: str | None = None
    metadata: dict[str, str] = {}


class CreditsRefunded(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """Spent credits were given back: amount = returns + debt_cancelled + debt_regranted.

    `returns` name the grants that had paid, last drawn first. `debt_cancelled` had become debt and
    is owed no longer; `debt_regranted` had been debt that was repaid since: a grant gives it back.
    `clawback_cancelled` is debt that a clawback had made of slices that are now refunded.
    `regrants` are the new grants: for slices of expired grants one each, if the tenant's policy
    says so; last, one without end for debt that had been repaid.
    """

    refund: str
    deduction: str
    amount: Credits
    returns: tuple[Return, ...] = ()
    debt_cancelled: Credits = 0
    debt_regranted: Credits = 0
    clawback_cancelled: Credits = 0
    regrants: tuple[Regrant, ...] = ()
    refunded: Credits


class BalanceAdjusted(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """An operator's correction: up, as a new grant, or down, out of the grants and then as debt.

    `amount` is signed. Up: `grant` is the new grant. Down: `draws` are revoked, `debt` is owed.
    """

    adjustment: str
    amount: int
    draws: tuple[Draw, ...] = ()
    debt: Credits = 0
    grant: Regrant | None = None
    metadata: dict[str, str] = {}


AccountEvent = (
    AccountOpened
    | AccountUpdated
    | CreditsGranted
    | GrantActivated
    | GrantExpired
    | GrantRevoked
    | PaymentApplied
    | CreditsReserved
    | ReservationExtended
    | ReservationCaptured
    | ReservationReleased
    | ReservationExpired
    | CreditsDeducted
    | CreditsRefunded
    | BalanceAdjusted
)
Event = AccountEvent | TenantEvent

NAMES: Final[dict[str, type[Event]]] = {
    "account.opened.v1": AccountOpened,
    "account.updated.v1": AccountUpdated,
    "credits.granted.v1": CreditsGranted,
    "grant.activated.v1": GrantActivated,
    "grant.expired.v1": GrantExpired,
    "grant.revoked.v1": GrantRevoked,
    "payment.applied.v1": PaymentApplied,
    "credits.reserved.v1": CreditsReserved,
    "reservation.extended.v1": ReservationExtended,
    "reservation.captured.v1": ReservationCaptured,
    "reservation.released.v1": ReservationReleased,
    "reservation.expired.v1": ReservationExpired,
    "credits.deducted.v1": CreditsDeducted,
    "credits.refunded.v1": CreditsRefunded,
    "balance.adjusted.v1": BalanceAdjusted,
    "catalog.feature_set.v1": FeatureSet,
    "catalog.rate_card_set.v1": RateCardSet,
    "catalog.refund_policy_set.v1": RefundPolicySet,
    "catalog.plan_set.v1": PlanSet,
    "catalog.pack_set.v1": PackSet,
    "catalog.referral_reward_set.v1": ReferralRewardSet,
    "alert.raised.v1": AlertRaised,
}


def operation_of(deduction: str) -> str:
    """Return the id of the operation that a deduction was made under: itself, if it was direct."""
    return deduction.split("~", 1)[0]


def subject_of(event: Event) -> str | None:
    """Return the id of the reservation or direct deduction that `event` is about, if any.

    Stored beside the event, so that a closed operation can be found without reading its account.
    """
    match event:
        case CreditsReserved() | ReservationExtended() | ReservationCaptured():
            return event.reservation
        case ReservationReleased() | ReservationExpired():
            return event.reservation
        case CreditsDeducted():
            return event.deduction
        case CreditsRefunded():
            return operation_of(event.deduction)
        case _:
            return None
