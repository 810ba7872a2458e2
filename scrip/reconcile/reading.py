"""A provider, read to its end page by page; each page is kept before the next is asked for."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Protocol

from api.providers.asaas_api import AsaasApi
from api.providers.fetching import reference_of_link
from api.providers.stripe_api import Kind, StripeApi
from api.providers.telling import told_by_asaas, told_by_stripe
from api.webhooks.asaas import ZONE
from scrip.reconcile.notebook import Notebook, Read

NARROWED: Final[dict[Kind, dict[str, Any]]] = {
    "charges": {},
    "payment_intents": {},
    "invoices": {"status": "paid"},
    "sessions": {"status": "complete"},
    "refunds": {},
    "disputes": {},
}
"""What is read of Stripe, and what of it: the filters of each list."""
PAYMENTS: Final = "payments"


class Progress(Protocol):
    """Whoever wants to be told how far a run has come."""

    def goes_on(self, began_at: datetime) -> None:
        """It goes on with what a run has read that began then."""

    def read(self, kind: str, objects: int, *, done: bool) -> None:
        """So many objects of a kind have been read in all."""

    def compared(self, groups: int, of: int) -> None:
        """So many groups of facts have been held against what is known here."""


class Source(Protocol):
    """A provider to read from."""

    kinds: tuple[str, ...]

    async def page(self, kind: str, begin: str | None) -> Read:
        """Return the page that begins there. Raises ProviderRefused, ProviderUnavailable."""


async def read_all(source: Source, notebook: Notebook, progress: Progress) -> None:
    """Read what the notebook lacks. Raises ProviderRefused, ProviderUnavailable."""
    for kind in source.kinds:
        objects = sum(page.objects for page in notebook.pages if page.kind == kind)
        while not notebook.done(kind):
            page = await source.page(kind, notebook.next(kind))
            notebook.add(page)
            objects += page.objects
            progress.read(kind, objects, done=page.next is None)
        progress.read(kind, objects, done=True)


class StripeSource:
    """A tenant's account at Stripe."""

    kinds: tuple[str, ...] = tuple(NARROWED)

    def __init__(self, api: StripeApi, since: datetime) -> None:
        """Read what was made at `since` or later."""
        self._api = api
        self._since = since

    async def page(self, kind: Any, begin: str | None) -> Read:
        """Return the page after the object `begin`."""
        found = await self._api.page(
            kind, starting_after=begin, since=self._since, **NARROWED[kind]
        )
        told = told_by_stripe(kind, found.data)
        more = found.has_more and found.data
        return Read(
            kind=kind,
            next=found.data[-1]["id"] if more else None,
            objects=len(found.data),
            facts=told.facts,
            unread=told.unread,
        )


class AsaasSource:
    """A tenant's account at Asaas."""

    kinds: tuple[str, ...] = (PAYMENTS,)

    def __init__(self, api: AsaasApi, since: datetime) -> None:
        """Read payments made on the day of `since` in São Paulo, or later."""
        self._api = api
        self._since = since.astimezone(ZONE).date()
        self._references: dict[str, str | None] = {}

    async def page(self, kind: str, begin: str | None) -> Read:
        """Return the page from the offset `begin` on."""
        found = await self._api.page(offset=int(begin or 0), since=self._since)
        for payment in found.data:
            link = payment.get("paymentLink")
            if not payment.get("externalReference") and isinstance(link, str):
                payment["externalReference"] = await self._reference(payment, link)
        told = told_by_asaas(found.data)
        return Read(
            kind=kind,
            next=None if found.next_offset is None else str(found.next_offset),
            objects=len(found.data),
            facts=told.facts,
            unread=told.unread,
        )

    async def _reference(self, payment: dict[str, Any], link: str) -> str | None:
        """Return the reference of a link, which is asked for once."""
        if link not in self._references:
            self._references[link] = await reference_of_link(self._api, payment)
        return self._references[link]
