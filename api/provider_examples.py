"""Examples of what is asked of payment providers, for the description of the API."""

from __future__ import annotations

from typing import Any, Final

BY_TYPE: Final[dict[str, Any]] = {
    "ProviderIn": {"api_key": "rk_test_an_example_and_no_key"},
    "ProviderAnswer": {
        "provider": "stripe",
        "hint": "rk_test_…_key",
        "livemode": False,
        "updated_at": "2026-11-21T12:00:00Z",
    },
    "ProviderDeleted": {"provider": "stripe", "deleted": True},
    "CheckoutIn": {
        "account": "team_7",
        "pack": "credits_100",
        "success_url": "https://example.com/paid",
    },
    "CheckoutAnswer": {
        "id": "cs_test_a1b2c3",
        "provider": "stripe",
        "url": "https://checkout.stripe.com/c/pay/cs_test_a1b2c3",
        "expires_at": "2026-11-22T12:00:00Z",
    },
}
BY_CODE: Final[dict[str, dict[str, Any]]] = {
    "provider_key_missing": {"provider": "stripe"},
    "provider_refused": {
        "provider": "stripe",
        "provider_code": "resource_missing",
        "message": "No such price: 'price_1'",
    },
    "provider_unavailable": {"provider": "stripe", "retry_after_seconds": 2},
    "offer_not_found": {"offer": "pack credits_100"},
    "offer_not_sold": {
        "offer": "pack credits_100",
        "provider": "stripe",
        "why": "the catalog has no id of it there",
    },
    "provider_key_not_found": {"provider": "stripe"},
}
