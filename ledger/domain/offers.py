"""What a tenant sells: plans, which grant credits every period, and packs, which do so once."""

from __future__ import annotations

import re
from typing import Final, Literal, get_args

from msgspec import Struct

from ledger.domain.bounds import check_amount, check_count, check_text
from ledger.domain.entities import GrantKind
from ledger.domain.errors import InvalidCommand
from ledger.domain.values import (
    EXPIRES_DAYS_MAX,
    PRICE_MAX,
    PRIORITY_DEFAULT,
    PRIORITY_MAX,
    PROVIDER_IDS_MAX,
    TEXT_MAX,
    TRIAL_DAYS_MAX,
    URL_MAX,
    Credits,
)

Provider = Literal["stripe", "clerk", "asaas"]
PROVIDERS: Final[tuple[Provider, ...]] = get_args(Provider)
Period = Literal["month", "year"]
Rollover = Literal["none", "capped", "all"]
"""What becomes of a period's unspent credits when the next begins: nothing, up to a cap, all."""


class ProviderIds(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """What payment providers call a plan or a pack: whatever is paid under one of these is it."""

    stripe: tuple[str, ...] = ()
    """Ids of prices (`price_…`)."""
    clerk: tuple[str, ...] = ()
    """Ids of plans (`cplan_…`)."""
    asaas: tuple[str, ...] = ()
    """What `externalReference` says after the account (`account:plan`), or a payment link's id."""

    def of(self, provider: Provider) -> tuple[str, ...]:
        """Return the ids at one provider."""
        ids: tuple[str, ...] = getattr(self, provider)
        return ids


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
    checkout_url: str | None = None
    """Where it is bought, for whoever shows it: a page of a provider, or one of the tenant's."""
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


_CURRENCY = re.compile(r"[A-Z]{3}")
_URL = re.compile(r"https://[A-Za-z0-9.-]+(?::[0-9]{1,5})?(?:[/?#][!-~]*)?")
_PROVIDER_ID = re.compile(rf"[!-~]{{1,{TEXT_MAX}}}")


def check_plan(terms: Plan, *, retired: bool) -> None:
    """Refuse terms that make no sense, whatever else the catalog holds."""
    check_text("name", terms.name)
    _check_price(terms.price)
    check_amount("credits", terms.credits, lowest=1)
    check_amount("rollover_max", terms.rollover_max, lowest=1)
    if (terms.rollover_max is not None) != (terms.rollover == "capped"):
        raise InvalidCommand(
            field="rollover_max", rule="must be given with a rollover of `capped`, and only then"
        )
    _check_url(terms.checkout_url)
    check_count("priority", terms.priority, 0, PRIORITY_MAX)
    check_amount("trial_credits", terms.trial_credits)
    check_count("trial_days", terms.trial_days, 0, TRIAL_DAYS_MAX)
    if (terms.trial_days > 0) != (terms.trial_credits > 0):
        raise InvalidCommand(field="trial_days", rule="and trial_credits must be given together")
    if terms.fallback and terms.price is not None:
        raise InvalidCommand(field="fallback", rule="must be false on a plan that has a price")
    if terms.fallback and retired:
        raise InvalidCommand(field="fallback", rule="must be false on a plan that is retired")
    _check_providers(terms.providers)


def check_pack(terms: Pack) -> None:
    """Refuse terms that make no sense, whatever else the catalog holds."""
    check_text("name", terms.name)
    _check_price(terms.price)
    check_amount("credits", terms.credits, lowest=1)
    check_amount("bonus", terms.bonus)
    check_count("expires_days", terms.expires_days, 1, EXPIRES_DAYS_MAX)
    check_count("priority", terms.priority, 0, PRIORITY_MAX)
    _check_providers(terms.providers)


def _check_url(url: str | None) -> None:
    if url is not None and (len(url) > URL_MAX or _URL.fullmatch(url) is None):
        raise InvalidCommand(
            field="checkout_url",
            rule=f"must be an https address of at most {URL_MAX} visible ASCII characters",
        )


def _check_price(price: Money | None) -> None:
    if price is None:
        return
    check_count("price.amount", price.amount, 1, PRICE_MAX)
    if _CURRENCY.fullmatch(price.currency) is None:
        raise InvalidCommand(
            field="price.currency", rule="must be the three capitals of ISO 4217, such as EUR"
        )


def _check_providers(providers: ProviderIds) -> None:
    for provider in PROVIDERS:
        field, ids = f"providers.{provider}", providers.of(provider)
        if len(ids) > PROVIDER_IDS_MAX:
            raise InvalidCommand(field=field, rule=f"must hold at most {PROVIDER_IDS_MAX} ids")
        if len(set(ids)) < len(ids):
            raise InvalidCommand(field=field, rule="must hold each id once")
        if not all(_PROVIDER_ID.fullmatch(one) for one in ids):
            raise InvalidCommand(
                field=field, rule=f"must hold ids of 1 to {TEXT_MAX} visible ASCII characters"
            )
