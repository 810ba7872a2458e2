"""Examples for the description of the API. Answers are rendered from events, as real ones are."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from api.catalog_examples import BY_TYPE as CATALOG_BY_TYPE
from api.catalog_examples import RATES
from api.payment_examples import ACCOUNT_KEY_ID, OWNER, PAYMENT
from api.payment_examples import BY_TYPE as PAYMENT_BY_TYPE
from api.problems import FieldError, InvalidRequest
from api.provider_examples import BY_CODE as PROVIDERS_BY_CODE
from api.provider_examples import BY_TYPE as PROVIDERS_BY_TYPE
from api.receipts import receipt
from ledger.domain.entities import Balance, Draw, Metered, Price, Return, Source, Usage
from ledger.domain.errors import InvalidCommand, LedgerError
from ledger.domain.events import (
    NAMES,
    AccountOpened,
    BalanceAdjusted,
    CreditsDeducted,
    CreditsGranted,
    CreditsRefunded,
    CreditsReserved,
    Event,
    GrantRevoked,
    ReservationCaptured,
    ReservationReleased,
)
from ledger.records import Recorded, stream_id

NOON: Final = datetime(2026, 11, 21, 12, tzinfo=UTC)
LATER: Final = datetime(2026, 11, 21, 12, 10, tzinfo=UTC)
ENDPOINT_ID: Final = "whe_3mQ8Zr0cVbN5tYxK1wLd7pHs2f"
DELIVERY_ID: Final = "dlv_0K8W2J5QZ1R7N3XB6C9DTFGH"
SECRET_ID: Final = "whs_9bXw2LqT5vRk0ZsE"  # noqa: S105 - a name, and no secret
NEW_YEAR: Final = datetime(2027, 1, 1, tzinfo=UTC)
PRICE: Final = Price(
    feature="chat",
    version=2,
    model="sonnet",
    rates=RATES,
    usage=Usage(2_000, 400, 0),
    amount=12_000,
)
BALANCE: Final = Balance(granted=100_000_000, available=97_500_000, reserved=2_500_000)
DRAWS: Final = (Draw("welcome", 2_500_000),)


def _answer(event: Event, reason: str | None = None, position: int = 1042) -> dict[str, Any]:
    """Return the answer to the command that caused `event`."""
    name = next(name for name, kind in NAMES.items() if isinstance(event, kind))
    recorded = Recorded(
        position=position,
        stream=stream_id("demo", "team_7"),
        version=7,
        tenant="demo",
        account="team_7",
        name=name,
        recorded_at=NOON,
        key="order-1042",
        by="key:key_4fTzKc0Qm2bW8sLd",
        reason=reason,
        occurred_at=None,
        event=event,
        balance=BALANCE,
    )
    answer: dict[str, Any] = msgspec.json.decode(receipt(recorded).body)
    return answer


ACCOUNT: Final = _answer(AccountOpened(label="Team Seven", metadata={"plan": "pro"}))
GRANT: Final = _answer(
    CreditsGranted(
        grant="welcome",
        amount=100_000_000,
        kind="promotional",
        priority=100,
        effective_at=NOON,
        expires_at=NEW_YEAR,
        source=Source("campaign", "autumn"),
    ),
    reason="welcome credits",
)
RESERVATION: Final = _answer(
    CreditsReserved(
        reservation="job_1",
        amount=2_500_000,
        draws=DRAWS,
        expires_at=LATER,
        actor="user_42",
        job="job_1",
    )
)
CAPTURE: Final = _answer(
    ReservationCaptured(
        reservation="job_1",
        deduction="job_1~1",
        amount=12_000,
        draws=(Draw("welcome", 12_000),),
        returns=(Return("welcome", 2_488_000),),
        status="captured",
        reserved=2_500_000,
        captured=12_000,
        expires_at=LATER,
        feature="chat",
        price=PRICE,
        metered=Metered(usage=Usage(2_000, 400, 0)),
    )
)
RELEASE: Final = _answer(
    ReservationReleased(
        reservation="job_1",
        amount=2_500_000,
        returns=(Return("welcome", 2_500_000),),
        reserved=2_500_000,
        expires_at=LATER,
    )
)
DEDUCTION: Final = _answer(
    CreditsDeducted(deduction="ded_1", amount=2_500_000, draws=DRAWS, actor="user_42")
)
REFUND: Final = _answer(
    CreditsRefunded(
        refund="rfd_dnbxsjfqogyyrqvbd6l3p7ut",
        deduction="job_1~1",
        amount=12_000,
        returns=(Return("welcome", 12_000),),
        refunded=12_000,
    ),
    reason="the image was empty",
)
REVOCATION: Final = _answer(
    GrantRevoked(grant="welcome", amount=97_500_000), reason="granted twice"
)
ADJUSTMENT: Final = _answer(
    BalanceAdjusted(adjustment="adj_aiu3qhvubk7zx5s2", amount=-2_500_000, draws=DRAWS),
    reason="counted twice on 20 November",
)
PARTS: Final = ACCOUNT["balance"]
READ: Final = {"position": "1042", "as_of": "2026-11-21T12:00:00.250000Z"}


def _without(answer: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in names}


_ENTRY: Final = {
    **_without(ACCOUNT, "position", "balance"),
    "opened_at": "2026-11-01T08:00:00Z",
    "updated_at": "2026-11-21T12:00:00Z",
    "balance": PARTS,
}
_GRANT_ENTRY: Final = {
    **_without(GRANT, "position", "balance"),
    "clawed_back": False,
    "granted_by": "key:key_4fTzKc0Qm2bW8sLd",
    "granted_at": "2026-11-21T12:00:00Z",
}
_RESERVATION_ENTRY: Final = {
    **_without(RESERVATION, "position", "balance"),
    "created_at": "2026-11-21T12:00:00Z",
    "updated_at": "2026-11-21T12:00:00Z",
}
_USAGE_ENTRY: Final = {
    "deduction": "job_1~1",
    "reservation": "job_1",
    "amount": "0.012",
    "debt": "0",
    "refunded": "0",
    "feature": "chat",
    "model": "sonnet",
    "quantity": None,
    "usage": {"input_tokens": 2000, "output_tokens": 400, "cached_input_tokens": 0},
    "price": CAPTURE["price"],
    "provider_cost": None,
    "actor": "user_42",
    "job": "job_1",
    "metadata": {},
    "occurred_at": None,
    "recorded_at": "2026-11-21T12:00:00Z",
    "position": "1042",
}
_SUMS: Final = {
    "amount": "0.012",
    "refunded": "0",
    "quantity": "0",
    "input_tokens": 2000,
    "output_tokens": 400,
    "cached_input_tokens": 0,
    "count": 1,
}
_EVENT: Final = {
    "position": "1042",
    "account": "team_7",
    "version": 7,
    "name": "credits.reserved.v1",
    "recorded_at": "2026-11-21T12:00:00Z",
    "occurred_at": None,
    "actor": "key:key_4fTzKc0Qm2bW8sLd",
    "reason": None,
    "key": "order-1042",
    "data": {
        "reservation": "job_1",
        "amount": "2.5",
        "draws": [{"grant": "welcome", "amount": "2.5"}],
        "expires_at": "2026-11-21T12:10:00Z",
    },
}


def _list(entry: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"data": [entry], "next_cursor": None, **more}


_SECRET_NOTE: Final = {
    "id": SECRET_ID,
    "hint": "whsec_…Vy4=",
    "added_at": "2026-11-21T12:00:00Z",
    "expires_at": None,
}
_ENDPOINT: Final = {
    "id": ENDPOINT_ID,
    "provider": "users",
    "label": "our user system",
    "state": "active",
    "livemode": False,
    "path": f"/webhooks/users/{ENDPOINT_ID}",
    "secrets": [_SECRET_NOTE],
    "created_at": "2026-11-21T12:00:00Z",
    "updated_at": "2026-11-21T12:00:00Z",
}
_DELIVERY: Final = {
    "id": DELIVERY_ID,
    "endpoint": ENDPOINT_ID,
    "provider": "stripe",
    "delivery": "evt_1",
    "type": "charge.succeeded",
    "occurred_at": "2026-11-21T12:00:00Z",
    "received_at": "2026-11-21T12:00:01Z",
    "facts": 1,
    "fetch": None,
    "unreadable": None,
}
_GENERATED: Final = "whsec_QW4gZXhhbXBsZSwgYW5kIG5vIHNlY3JldCBhdCBhbGwuIFRydWx5Lg=="
_RESERVE_COMMAND: Final = {
    "op": "reserve",
    "account": "team_7",
    "key": "job_1:reserve",
    "id": "job_1",
    "amount": "2.5",
}
_USAGE_IN: Final = {"input_tokens": 2000, "output_tokens": 400}
BY_TYPE: Final[dict[str, Any]] = {
    **CATALOG_BY_TYPE,
    **PAYMENT_BY_TYPE,
    **PROVIDERS_BY_TYPE,
    "AccountIn": {"label": "Team Seven", "metadata": {"plan": "pro"}},
    "GrantIn": {
        "id": "welcome",
        "amount": "100",
        "kind": "promotional",
        "expires_at": "2027-01-01T00:00:00Z",
        "source": {"type": "campaign", "id": "autumn"},
        "reason": "welcome credits",
    },
    "RevokeIn": {"reason": "granted twice"},
    "ReservationIn": {"id": "job_1", "amount": "2.5", "actor": "user_42", "job": "job_1"},
    "CaptureIn": {"feature": "chat", "model": "sonnet", "usage": _USAGE_IN},
    "ReleaseIn": {},
    "ExtendIn": {"amount": "1", "ttl_seconds": 900},
    "DeductionIn": {"id": "ded_1", "amount": "2.5", "actor": "user_42"},
    "RefundIn": {"reason": "the image was empty"},
    "AdjustmentIn": {"amount": "-2.5", "reason": "counted twice on 20 November"},
    "QuoteIn": {"feature": "chat", "model": "sonnet", "usage": _USAGE_IN},
    "BatchDescription": {"commands": [_RESERVE_COMMAND]},
    "AccountAnswer": ACCOUNT,
    "AccountDetail": {**_ENTRY, **READ},
    "AccountEntryList": _list(_ENTRY, **READ),
    "BalanceAnswer": {"account": "team_7", **PARTS, **READ},
    "GrantAnswer": GRANT,
    "GrantDetail": {**_GRANT_ENTRY, **READ},
    "GrantEntryList": _list(_GRANT_ENTRY, **READ),
    "RevocationAnswer": REVOCATION,
    "ReservationAnswer": RESERVATION,
    "ReservationDetail": {**_RESERVATION_ENTRY, **READ},
    "ReservationEntryList": _list(_RESERVATION_ENTRY, **READ),
    "ReservationChange": RELEASE,
    "CaptureAnswer": CAPTURE,
    "DeductionAnswer": DEDUCTION,
    "RefundAnswer": REFUND,
    "AdjustmentAnswer": ADJUSTMENT,
    "QuoteAnswer": {"amount": "0.012", "price": CAPTURE["price"]},
    "ReferrerIn": {"referrer": "team_1"},
    "ReferralAnswer": {
        "account": "team_7",
        "referrer": "team_1",
        "reward_version": 1,
        "referrer_amount": "50",
        "referred_amount": "20",
        "expires_at": "2027-02-19T12:00:00Z",
        "referred_at": "2026-11-21T12:00:00Z",
    },
    "EndpointIn": {"provider": "users", "label": "our user system"},
    "EndpointChange": {"state": "disabled"},
    "SecretIn": {"expires_at": "2027-01-01T00:00:00Z"},
    "WebhookEndpointAnswer": _ENDPOINT,
    "WebhookEndpointMade": {**_ENDPOINT, "secret": _GENERATED},
    "WebhookEndpointDeleted": {"id": ENDPOINT_ID, "deleted": True},
    "WebhookEndpointList": _list(_ENDPOINT),
    "WebhookSecretMade": {"endpoint": ENDPOINT_ID, **_SECRET_NOTE, "secret": _GENERATED},
    "WebhookDeliveryList": _list(_DELIVERY),
    "WebhookDeliveryRead": {
        **_DELIVERY,
        "payload": {"id": "evt_1", "type": "charge.succeeded", "livemode": False},
    },
    "WebhookTaken": {
        "id": DELIVERY_ID,
        "type": "charge.succeeded",
        "facts": 1,
        "unreadable": None,
    },
    "UsageEntryList": _list(_USAGE_ENTRY, **READ),
    "UsageReport": {
        "group_by": "day",
        "time_zone": "UTC",
        "data": [{"start": "2026-11-21T00:00:00Z", "name": None, **_SUMS}],
        "total": _SUMS,
        **READ,
    },
    "EventList": _list(_EVENT, **READ),
    "BatchResults": {"results": [{"status": 201, "body": RESERVATION}]},
    "Live": {"status": "live", "version": "0.1.0"},
    "Ready": {
        "status": "ready",
        "checks": {"writer": "ok", "database": "ok", "schema": "ok", "projections": "ok"},
    },
}

FACTS: Final[dict[str, dict[str, Any]]] = {
    "insufficient_credits": {
        "required": 2_500_000,
        "available": 1_000_000,
        "shortfall": 1_500_000,
        "limit": "balance",
    },
    "grant_not_found": {"grant": "welcome"},
    "reservation_not_found": {"reservation": "job_1"},
    "deduction_not_found": {"deduction": "job_1~1"},
    "grant_exists": {"grant": "welcome"},
    "operation_exists": {"id": "job_1", "operation_status": "open"},
    "grant_closed": {"grant": "welcome", "grant_status": "revoked"},
    "reservation_closed": {"reservation": "job_1", "reservation_status": "captured"},
    "reservation_expired": {"reservation": "job_1", "expired_at": LATER},
    "capture_exceeds_reservation": {
        "reservation": "job_1",
        "asked": 3_000_000,
        "remaining": 2_500_000,
    },
    "refund_exceeds_deduction": {"deduction": "job_1~1", "asked": 12_000, "refundable": 0},
    "limit_reached": {"limit": "open_reservations", "max": 100_000},
    "price_not_found": {"feature": "chat", "model": "opus"},
    "forbidden": {"role": "reader", "needed": ["admin", "service"]},
    "body_too_large": {"max_bytes": 1 << 20},
    "webhook_endpoint_not_found": {"endpoint": ENDPOINT_ID},
    "webhook_secret_not_found": {"endpoint": ENDPOINT_ID, "secret": SECRET_ID},
    "webhook_delivery_not_found": {"endpoint": ENDPOINT_ID, "delivery": DELIVERY_ID},
    "webhook_malformed": {"fault": "timestamp_repeated", "rule": "t must be given once"},
    "webhook_unproven": {
        "fault": "signature_mismatch",
        "rule": "a v1 signature must be right for the body",
    },
    "webhook_limit_reached": {"limit": "secrets", "max": 10},
    "link_not_found": {"owner": OWNER},
    "payment_not_found": {"payment": PAYMENT},
    "alert_not_found": {"code": "unknown_price", "subject": PAYMENT, "price": ""},
    "account_key_not_found": {"account": "team_7", "key": ACCOUNT_KEY_ID},
    "referral_exists": {"referrer": "team_1"},
    "self_referral": {"account": "team_7", "referrer": "team_7"},
    **PROVIDERS_BY_CODE,
    "projection_behind": {"asked": "1042", "reached": "1040"},
}


def refusal(kind: type[LedgerError]) -> LedgerError:
    """Return a refusal of this kind, with facts such as it carries."""
    if issubclass(kind, InvalidRequest):
        return InvalidRequest(FieldError("amount", "invalid", "must be more than 0"))
    if issubclass(kind, InvalidCommand):
        return kind(field="feature", rule="must be given with a quantity or a usage")
    return kind(**FACTS.get(kind.code, {}))
