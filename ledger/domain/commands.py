"""What is asked: frozen records with imperative names. Amounts are micro-credits, times UTC."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from ledger.domain.entities import Charge, GrantKind, Overage, Rates, Source
from ledger.domain.offers import Pack, Plan
from ledger.domain.values import PRIORITY_DEFAULT, TTL_SECONDS_DEFAULT, ZONE_DEFAULT, Credits


class PutAccount(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True, gc=False):
    """Open an account, or put its properties again; with `only_new`, leave one that is open."""

    label: str | None = None
    overdraft_limit: Credits = 0
    metadata: dict[str, str] = {}
    only_new: bool = False
    zone: str = ZONE_DEFAULT


class GrantCredits(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True, gc=False):
    """Give credits in one lot. Without `effective_at` they are effective at once."""

    id: str | None = None
    amount: Credits
    kind: GrantKind
    priority: int = PRIORITY_DEFAULT
    scope: tuple[str, ...] = ()
    effective_at: datetime | None = None
    expires_at: datetime | None = None
    cost_basis: int | None = None
    source: Source | None = None
    metadata: dict[str, str] = {}


class RevokeGrant(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True, gc=False):
    """Take back what is unspent of a grant; with `clawback`, what was spent becomes debt."""

    grant: str
    clawback: bool = False


class ApplyPayment(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True, gc=False):
    """Bring the grant of a payment to what is known of the payment, however often it is told.

    The payment entitles to `amount`, of which `reversed` are to be taken back because that part of
    the money went back; `frozen` while it is disputed. `amount` never falls; `reversed` does if a
    refund failed or a lost dispute is won. `revision` is how many facts about the payment this
    follows from: fewer than are known change nothing.
    """

    grant: str
    revision: int
    amount: Credits
    reversed: Credits = 0
    frozen: bool = False
    kind: GrantKind
    priority: int = PRIORITY_DEFAULT
    scope: tuple[str, ...] = ()
    expires_at: datetime | None = None
    cost_basis: int | None = None
    source: Source | None = None


class Reserve(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True, gc=False):
    """Set credits aside for work in progress. With `at_least`, less than the charge will do."""

    id: str | None = None
    charge: Charge
    at_least: Credits | None = None
    ttl_seconds: int = TTL_SECONDS_DEFAULT
    actor: str | None = None
    job: str | None = None
    metadata: dict[str, str] = {}


class Capture(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True, gc=False):
    """Spend some or all of a reservation; `final` closes it and gives the rest back."""

    reservation: str
    charge: Charge
    final: bool = True
    overage: Overage | None = None
    """None: as the catalog says for the feature."""


class CaptureUpTo(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True, gc=False):
    """Bring what an operation has spent up to a total, whatever has become of it; never down.

    For messages that arrive in any order and any number of times: the largest total wins. Opens the
    operation if it does not exist, charges beyond the reservation as debt, and also charges after
    the operation is closed. `final` closes it.
    """

    operation: str
    charge: Charge | None = None
    final: bool = False
    ttl_seconds: int = TTL_SECONDS_DEFAULT
    actor: str | None = None
    job: str | None = None


class Release(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True, gc=False):
    """Give back what a reservation still holds, and close it."""

    reservation: str


class Extend(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True, gc=False):
    """Set more aside (`amount` is added), or set it aside until `ttl_seconds` from now, or both."""

    reservation: str
    amount: Credits | None = None
    ttl_seconds: int | None = None


class Deduct(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True, gc=False):
    """Spend in one step. With `at_least`, less than the charge will do."""

    id: str | None = None
    charge: Charge
    at_least: Credits | None = None
    overage: Overage | None = None
    """None: as the catalog says for the feature."""
    actor: str | None = None
    job: str | None = None
    metadata: dict[str, str] = {}


class Refund(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True, gc=False):
    """Give spent credits back into the grants that paid; without an amount, all that is left."""

    deduction: str
    amount: Credits | None = None


class Adjust(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True, gc=False):
    """Correct a balance by a signed amount. Down: beyond what is available, `debt` or refused."""

    amount: int
    kind: GrantKind = "promotional"
    expires_at: datetime | None = None
    overage: Overage = "reject"
    metadata: dict[str, str] = {}


class Settle(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True, gc=False):
    """Record what time has done: grants that took effect or expired, reservations that expired."""


class SetFeature(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True, gc=False):
    """Put a new version of a feature and its price for one unit. A price of 0 is a price."""

    feature: str
    name: str
    unit: str = "unit"
    unit_price: Credits | None = None
    overage: Overage = "reject"


class SetRateCard(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True, gc=False):
    """Put a new version of a feature's token rates."""

    feature: str
    models: dict[str, Rates]


class SetRefundPolicy(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True, gc=False):
    """Say what a refund does with slices of expired grants: lapse (None), or live so many days."""

    regrant_days: int | None = None


class SetPlan(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True, gc=False):
    """Put a new version of a plan. Without `effective_at` it is in force at once."""

    plan: str
    terms: Plan
    effective_at: datetime | None = None
    retired: bool = False


class SetPack(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True, gc=False):
    """Put a new version of a pack. Without `effective_at` it is in force at once."""

    pack: str
    terms: Pack
    effective_at: datetime | None = None
    retired: bool = False


class SetReferralReward(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True, gc=False):
    """Say what a referral gives to both sides; without `expires_days` it stays for ever."""

    referrer: Credits
    referred: Credits
    expires_days: int | None = None
    effective_at: datetime | None = None


class RaiseAlert(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True, gc=False):
    """Say what a person has to put right: which kind (`code`), and what it is about.

    Under one key it is raised once, so a key of all that makes two alerts the same keeps it one.
    """

    code: str
    subject: str
    price: str = ""
    detail: str = ""


AccountCommand = (
    PutAccount
    | GrantCredits
    | RevokeGrant
    | ApplyPayment
    | Reserve
    | Capture
    | CaptureUpTo
    | Release
    | Extend
    | Deduct
    | Refund
    | Adjust
    | Settle
)
CatalogCommand = SetFeature | SetRateCard | SetRefundPolicy | SetPlan | SetPack | SetReferralReward
TenantCommand = CatalogCommand | RaiseAlert
Command = AccountCommand | TenantCommand
