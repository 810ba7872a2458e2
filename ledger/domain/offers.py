"""What a tenant sells: plans, which grant credits every period, and packs, which grant them once."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from ledger.domain.entities import GrantKind
from ledger.domain.values import PRIORITY_DEFAULT, Credits

Period = Literal["month", "year"]
Rollover = Literal["none", "capped", "all"]
"""What becomes of a period's unspent credits when the next begins: nothing, up to a cap, all."""


class ProviderIds(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What payment providers call a plan or a pack: whatever is paid under one of these is it."""

    stripe: tuple[str, ...] = ()
    """Ids of prices (`price_…`)."""
    clerk: tuple[str, ...] = ()
    """Ids of plans (`cplan_…`)."""
    asaas: tuple[str, ...] = ()
    """What `externalReference` says after the account (`account:plan`), or a payment link's id."""


class Money(Struct, frozen=True, forbid_unknown_fields=True):
    """A price for display, and to compare with what was paid: in the currency's smallest unit."""

    amount: int
    currency: str
    """ISO 4217, in capitals."""


class Plan(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Credits every period, as long as it is paid for; without a price, as long as it is had."""

    name: str
    price: Money | None = None
    credits: Credits
    period: Period = "month"
    rollover: Rollover = "none"
    rollover_max: Credits | None = None
    """The cap of `capped`: how much of the unspent may go over into the next period."""
    kind: GrantKind = "paid"
    priority: int = PRIORITY_DEFAULT
    trial_credits: Credits = 0
    trial_days: int = 0
    fallback: bool = False
    """Whether an account whose paid plan has ended is on this one: the free plan."""
    providers: ProviderIds = ProviderIds()


class Pack(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Credits once, for one payment."""

    name: str
    price: Money | None = None
    credits: Credits
    bonus: Credits = 0
    """Given beside them, as a promotional grant of its own with the same life."""
    expires_days: int | None = None
    priority: int = PRIORITY_DEFAULT
    providers: ProviderIds = ProviderIds()
