"""Examples of links, payments, alerts and what end users read, for the description of the API."""

from __future__ import annotations

from typing import Any, Final

OWNER: Final = "stripe:customer:cus_NffrFeUfNV2Hib"
PAYMENT: Final = "stripe:session:cs_live_a1B2c3"
NOON: Final = "2026-11-21T12:00:00Z"
ACCOUNT_KEY_ID: Final = "akey_7Qm2bW8sLd4fTzKc"
_ACCOUNT_KEY: Final = {
    "id": ACCOUNT_KEY_ID,
    "account": "team_7",
    "label": "pricing page",
    "key": "scrip_test_0m4W9e1xQjD3vZs8tYb6nRk2uHcLfGpAq7TyX5wVoEiJrB0c",
    "hint": "scrip_test_…rB0c",
    "expires_at": "2026-11-21T13:00:00Z",
}
_MY_CREDITS: Final = {
    "account": "team_7",
    "label": "Team Seven",
    "balance": {
        "granted": "1000",
        "available": "994",
        "pending": "0",
        "reserved": "0",
        "consumed": "6",
        "expired": "0",
        "revoked": "0",
        "debt": "0",
        "overdraft_reserved": "0",
        "overdraft_limit": "0",
    },
    "plan": {"key": "pro", "name": "Pro", "status": "active"},
    "next_refill": {"at": "2026-12-21T12:00:00Z", "amount": "1000"},
    "usage": {
        "start": NOON,
        "end": "2026-12-21T12:00:00Z",
        "amount": "6",
        "refunded": "0",
        "features": [
            {
                "feature": "ai_image_generation",
                "amount": "5",
                "refunded": "0",
                "quantity": "1",
                "count": 1,
            },
            {
                "feature": "ai_text_chat",
                "amount": "1",
                "refunded": "0",
                "quantity": "1",
                "count": 1,
            },
        ],
    },
    "position": "1042",
    "as_of": NOON,
}
_USER: Final = {
    "account": "team_7",
    "label": "Team Seven",
    "opened_at": NOON,
    "links": [OWNER],
    "plan": {"key": "pro", "status": "active"},
    "balance": _MY_CREDITS["balance"],
    "usage_count": 2,
    "last_used_at": NOON,
}
_LINK: Final = {
    "owner": OWNER,
    "account": "team_7",
    "by": "key:key_4fTzKc0Qm2bW8sLd",
    "linked_at": NOON,
}
_PAYMENT: Final = {
    "payment": PAYMENT,
    "state": "applied",
    "why": None,
    "account": "team_7",
    "owners": ["account:team_7", OWNER],
    "subscription": None,
    "offer": "credits_200",
    "amount": "200",
    "starts_at": None,
    "ends_at": None,
    "revision": 1,
    "first_seen_at": NOON,
    "applied_at": NOON,
}
_FACT: Final = {
    "id": "fact_jhu6rvgrebgfehu5zpvcutuy",
    "provider": "stripe",
    "type": "checkout.session.completed",
    "delivery": "evt_1NG8Du2eZvKYlo2CUI79vXWy",
    "occurred_at": NOON,
    "recorded_at": NOON,
    "refs": ["stripe:pi:pi_1", PAYMENT],
    "owners": ["account:team_7", OWNER],
    "content": {"type": "purchase", "payment": PAYMENT, "paid": True, "price": "price_200"},
}
_ALERT: Final = {
    "code": "unknown_price",
    "subject": PAYMENT,
    "price": "price_201",
    "fact": "fact_jhu6rvgrebgfehu5zpvcutuy",
    "raised_at": NOON,
    "resolved_at": None,
}


def _list(entry: dict[str, Any]) -> dict[str, Any]:
    return {"data": [entry], "next_cursor": None}


BY_TYPE: Final[dict[str, Any]] = {
    "LinkIn": {"account": "team_7"},
    "LinkOut": _LINK,
    "LinkDeleted": {"owner": OWNER, "deleted": True},
    "LinkList": _list(_LINK),
    "PaymentList": _list(_PAYMENT),
    "PaymentDetail": {
        **_PAYMENT,
        "credits": "200",
        "bonus": "0",
        "reversed": "0",
        "bonus_reversed": "0",
        "frozen": False,
        "facts": [_FACT],
        "more_facts": False,
    },
    "AlertList": _list(_ALERT),
    "AlertOut": {**_ALERT, "resolved_at": "2026-11-21T12:30:00Z"},
    "AccountKeyIn": {"label": "pricing page", "expires_in_seconds": 3600},
    "AccountKeyMade": _ACCOUNT_KEY,
    "AccountKeyRevoked": {"id": ACCOUNT_KEY_ID, "account": "team_7", "revoked": True},
    "MyCredits": _MY_CREDITS,
    "UserList": {**_list(_USER), "position": "1042", "as_of": NOON},
    "ResolveIn": {"price": "price_201"},
}
