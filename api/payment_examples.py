"""Examples of links, payments, alerts and what end users read, for the description of the API."""

from __future__ import annotations

from typing import Any, Final

OWNER: Final = "stripe:customer:cus_NffrFeUfNV2Hib"
PAYMENT: Final = "stripe:session:cs_live_a1B2c3"
NOON: Final = "2026-11-21T12:00:00Z"
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
    "ResolveIn": {"price": "price_201"},
}
