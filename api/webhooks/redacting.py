"""What is kept of a payload: the fields that are known to hold no personal data, and no others.

Providers add fields whenever they like. So there is a list of names for each provider, of whatever
depth; what stands under another name is dropped with all that is in it. Of the texts under these
names, those remain that look like an id, a word or a time.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import Raw

from ledger.domain.facts import Provider

_STRIPE: Final = """
id object type created livemode api_version account data previous_attributes related_object reason
status mode payment_status payment_intent payment payments subscription invoice charge latest_charge
customer client_reference_id balance_transaction amount amount_captured amount_due amount_paid
amount_received amount_refunded amount_remaining amount_requested amount_subtotal amount_total
currency subtotal total quantity items line_items lines has_more price plan product pricing
price_details unit_amount unit_amount_decimal recurring interval interval_count parent proration
subscription_details subscription_item_details invoice_item_details subscription_item invoice_item
period start end period_start period_end current_period_start current_period_end billing_reason
collection_method status_transitions paid_at finalized_at voided_at marked_uncollectible_at refunded
refunds captured paid disputed is_charge_refundable evidence_details due_by has_evidence past_due
submission_count cancel_at cancel_at_period_end canceled_at ended_at start_date trial_start
trial_end pause_collection behavior resumes_at latest_invoice expires_at is_default
metadata scrip_account scrip_price scrip_quantity scrip_top_up
"""
_CLERK: Final = """
id object type timestamp instance_id data deleted external_id status created_at updated_at active_at
past_due_at canceled_at ended_at paid_at failed_at latest_payment_id payment_id payer payer_id
user_id organization_id items subscription_items subscription_id plan plan_id plan_period product_id
is_default is_recurring is_free_trial interval period period_start period_end amount currency
annual_monthly_amount lifetime_paid next_payment_amount next_payment_date
"""
_ASAAS: Final = """
id event dateCreated account ownerId payment object customer subscription installment
installmentNumber paymentLink dueDate originalDueDate value netValue originalValue externalReference
billingType status confirmedDate paymentDate clientPaymentDate creditDate deleted refunds chargeback
reason
"""
_USERS: Final = "id type timestamp data account delta"
ALLOWED: Final[dict[Provider, frozenset[str]]] = {
    "stripe": frozenset(_STRIPE.split()),
    "clerk": frozenset(_CLERK.split()),
    "asaas": frozenset(_ASAAS.split()),
    "users": frozenset(_USERS.split()),
}
METADATA: Final = frozenset({"scrip_account", "scrip_price", "scrip_quantity", "scrip_top_up"})
"""All that is taken of what people write into objects of Stripe."""
NUMBER_MAX: Final = 10**18
# An id, a word, a number, a time: one that is written with a space is of Asaas.
_TEXT = re.compile(r"[!-~]{1,255}|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", re.ASCII)
_DROPPED: Final = object()
_encode = msgspec.json.Encoder(decimal_format="number").encode


def redacted(provider: Provider, payload: dict[str, Any]) -> Raw:
    """Return the JSON of a payload without what may be personal data."""
    return Raw(_encode(_members(payload, ALLOWED[provider])))


def _members(value: dict[str, Any], allowed: frozenset[str]) -> dict[str, Any]:
    return {
        name: kept
        for name, part in value.items()
        if name in allowed
        and (kept := _of_metadata(part) if name == "metadata" else _kept(part, allowed))
        is not _DROPPED
    }


def _of_metadata(value: Any) -> Any:
    return _members(value, METADATA) if isinstance(value, dict) else _DROPPED


def _kept(value: Any, allowed: frozenset[str]) -> Any:
    match value:
        case dict():
            return _members(value, allowed)
        case list():
            return [kept for part in value if (kept := _kept(part, allowed)) is not _DROPPED]
        case str():
            return value if _TEXT.fullmatch(value) else _DROPPED
        case None | bool():
            return value
        case int() | Decimal() if _is_near(value):
            return value
        case _:
            return _DROPPED


def _is_near(value: int | Decimal) -> bool:
    if isinstance(value, Decimal) and not value.is_finite():
        return False
    return -NUMBER_MAX <= value <= NUMBER_MAX
