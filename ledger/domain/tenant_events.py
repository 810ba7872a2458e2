"""What happened to a tenant itself and to no account: its catalog's versions, and alerts."""

from __future__ import annotations

from msgspec import Struct

from ledger.domain.catalog_events import CatalogEvent


class AlertRaised(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """Something came up that a person has to put right. It changes nothing else.

    `code` is any name: an older process must be able to read what a newer one has found.
    """

    code: str
    subject: str
    """The key of what it is about: a payment, a subscription."""
    price: str = ""
    """What the provider calls what was sold, where that is in question."""
    detail: str = ""


TenantEvent = CatalogEvent | AlertRaised
