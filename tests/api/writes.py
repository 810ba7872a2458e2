"""A way to use every route that changes something: what it needs first, and two bodies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from tests.api.room import Tenant

RATES = {"input_per_million": "3", "output_per_million": "15", "cached_input_per_million": "0.3"}


def nothing(_: Tenant, __: str) -> None:
    """Need nothing but the account."""


class Use(Struct, frozen=True, kw_only=True):
    """One use of a route: `prepare` gets a tenant and an account's path."""

    path: str
    body: dict[str, Any]
    other: dict[str, Any]
    prepare: Callable[[Tenant, str], object] = nothing

    def at(self, account: str) -> str:
        """Return the path, for an account at this path."""
        return self.path.replace("/v1/accounts/{account}", account)


def _reserve(tenant: Tenant, account: str) -> None:
    tenant.service.post(f"{account}/reservations", {"id": "r", "amount": "4"})


def _deduct(tenant: Tenant, account: str) -> None:
    tenant.service.post(f"{account}/deductions", {"id": "d", "amount": "4"})


def _grant(tenant: Tenant, account: str) -> None:
    tenant.service.post(f"{account}/grants", {"id": "g", "amount": "4", "kind": "paid"})


ACCOUNT = "/v1/accounts/{account}"
USES: dict[str, Use] = {
    "put_account": Use(path=ACCOUNT, body={"label": "a"}, other={"label": "b"}),
    "create_grant": Use(
        path=f"{ACCOUNT}/grants",
        body={"amount": "5", "kind": "paid"},
        other={"amount": "6", "kind": "paid"},
    ),
    "revoke_grant": Use(
        path=f"{ACCOUNT}/grants/g/revoke",
        body={"reason": "a"},
        other={"clawback": True},
        prepare=_grant,
    ),
    "create_reservation": Use(
        path=f"{ACCOUNT}/reservations", body={"amount": "1"}, other={"amount": "2"}
    ),
    "capture_reservation": Use(
        path=f"{ACCOUNT}/reservations/r/capture",
        body={"amount": "1"},
        other={"amount": "1", "final": False},
        prepare=_reserve,
    ),
    "release_reservation": Use(
        path=f"{ACCOUNT}/reservations/r/release", body={}, other={"reason": "b"}, prepare=_reserve
    ),
    "extend_reservation": Use(
        path=f"{ACCOUNT}/reservations/r/extend",
        body={"amount": "1"},
        other={"ttl_seconds": 900},
        prepare=_reserve,
    ),
    "create_deduction": Use(
        path=f"{ACCOUNT}/deductions", body={"amount": "1"}, other={"amount": "2"}
    ),
    "create_refund": Use(
        path=f"{ACCOUNT}/deductions/d/refunds",
        body={"amount": "1", "reason": "a"},
        other={"amount": "1", "reason": "b"},
        prepare=_deduct,
    ),
    "create_adjustment": Use(
        path=f"{ACCOUNT}/adjustments",
        body={"amount": "-1", "reason": "a"},
        other={"amount": "1", "reason": "a"},
    ),
    "put_feature": Use(
        path="/v1/catalog/features/image",
        body={"name": "Image", "unit_price": "1"},
        other={"name": "Image"},
    ),
    "put_rate_card": Use(
        path="/v1/catalog/rate-cards/chat",
        body={"models": {"m": RATES}},
        other={"models": {"n": RATES}},
    ),
    "put_refund_policy": Use(
        path="/v1/catalog/refund-policy", body={"regrant_days": 1}, other={"regrant_days": None}
    ),
    "put_plan": Use(
        path="/v1/catalog/plans/pro",
        body={"name": "Pro", "credits": "500"},
        other={"name": "Pro", "credits": "500", "retired": True},
    ),
    "put_pack": Use(
        path="/v1/catalog/packs/small",
        body={"name": "Small", "credits": "50"},
        other={"name": "Small", "credits": "50", "bonus": "5"},
    ),
    "put_referral_reward": Use(
        path="/v1/catalog/referral-reward",
        body={"referrer": "2", "referred": "1"},
        other={"referrer": "2", "referred": "0"},
    ),
}
