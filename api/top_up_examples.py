"""Examples of auto top-up, for the description of the API."""

from __future__ import annotations

from typing import Any, Final

_PUT: Final = {
    "enabled": True,
    "threshold": "20",
    "pack": "credits_100",
    "monthly_max": {"amount": 10000, "currency": "EUR"},
}
_ANSWER: Final = {
    "account": "team_7",
    **_PUT,
    "charged_this_month": {"amount": 1900, "currency": "EUR"},
    "why": None,
    "why_since": None,
    "updated_at": "2026-11-21T12:00:00Z",
}
_ATTEMPT: Final = {
    "id": "topup_0K8W2J5QZ1R7N3XB6C9DTFGH",
    "state": "granted",
    "pack": "credits_100",
    "money": {"amount": 1900, "currency": "EUR"},
    "payment": "stripe:pi:pi_1",
    "code": None,
    "message": None,
    "tries": 1,
    "started_at": "2026-11-21T12:00:00Z",
    "ended_at": "2026-11-21T12:00:02Z",
}
BY_TYPE: Final[dict[str, Any]] = {
    "AutoTopUpIn": _PUT,
    "AutoTopUpAnswer": _ANSWER,
    "AutoTopUpRead": {**_ANSWER, "attempts": [_ATTEMPT], "next_cursor": None},
}
