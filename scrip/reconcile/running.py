"""One run: the provider is read, held against the ledger, and what differs is perhaps mended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

import httpx
from msgspec import Struct
from msgspec.structs import replace
from psycopg import AsyncConnection
from pydantic import SecretStr

from api.providers import asaas_api
from api.providers.asaas_api import AsaasApi
from api.providers.keys import BadKey, Processor, checked_hint
from api.providers.patience import LONG, Patience
from api.providers.stripe_api import StripeApi, StripeHttp
from api.providers.telling import Unread, dated
from consumers.settling import CatalogOffers
from consumers.streams import connect
from ledger.writer import Writer
from scrip.asking import providers
from scrip.reconcile.comparing import Comparison, Difference, compare
from scrip.reconcile.notebook import Heading, Notebook
from scrip.reconcile.reading import AsaasSource, Progress, Source, StripeSource, read_all
from scrip.reconcile.sending import send_facts
from scrip.settings import Settings

CONNECT_SECONDS_MAX: Final = 10
_MODE: Final = "SELECT mode = 'live' FROM scrip.tenants WHERE tenant = %(tenant)s"


class CannotReconcile(Exception):
    """The run cannot begin; the text says why, and holds no secret."""


class Run(Struct, frozen=True, kw_only=True):
    """What is to be done."""

    settings: Settings
    provider: Processor
    tenant: str
    since: datetime
    began_at: datetime
    path: Path
    restart: bool = False
    apply: bool = False
    patience: Patience = LONG


class Found(Struct, frozen=True, kw_only=True):
    """What came of a run: `sent` facts were handed over to be mended."""

    comparison: Comparison
    sent: int


async def reconcile(run: Run, writer: Writer, progress: Progress) -> Found:
    """Do it. Raises CannotReconcile, NotebookError, and what providers, NATS and PostgreSQL raise.

    What is read stays in the notebook until the run has come to its end.
    """
    heading = Heading(
        provider=run.provider, tenant=run.tenant, since=run.since, began_at=run.began_at
    )
    async with await AsyncConnection.connect(
        run.settings.database_url.get_secret_value(),
        autocommit=True,
        connect_timeout=CONNECT_SECONDS_MAX,
    ) as connection:
        key, livemode = await _key(run, connection)
        with Notebook(run.path, heading, restart=run.restart) as notebook:
            if notebook.goes_on:
                progress.goes_on(notebook.heading.began_at)
            async with _source(run, key, livemode=livemode) as source:
                await read_all(source, notebook, progress)
            facts = dated([fact for page in notebook.pages for fact in page.facts])
            catalog = await asyncio.wrap_future(writer.catalog(run.tenant))
            found = await compare(connection, run.tenant, facts, CatalogOffers(catalog), progress)
            unread = [one for page in notebook.pages for one in page.unread]
            found = _with_unread(found, unread)
            sent = 0
            if run.apply and found.repairs:
                sent = await _send(run, found)
            notebook.remove()
    return Found(comparison=found, sent=sent)


async def _key(run: Run, connection: AsyncConnection) -> tuple[SecretStr, bool]:
    """Return the key to ask with, and whether it is a live one, as the tenant is."""
    row = await (await connection.execute(_MODE, {"tenant": run.tenant})).fetchone()
    if row is None:
        raise CannotReconcile(f"there is no tenant {run.tenant!r}")
    (livemode,) = row
    given = run.settings.reconcile_api_key
    if given is not None:
        try:
            checked_hint(run.provider, given.get_secret_value(), livemode=livemode)
        except BadKey as error:
            raise CannotReconcile(f"SCRIP_RECONCILE_API_KEY: {error}") from None
        return given, livemode
    async with providers(run.settings) as asked:
        key = await asked.keys.of(run.tenant, run.provider)
    if key is None:
        raise CannotReconcile(
            f"the tenant has no API key of {run.provider}: put one with PUT /v1/providers/"
            f"{run.provider}, or set SCRIP_RECONCILE_API_KEY"
        )
    return key, livemode


@asynccontextmanager
async def _source(run: Run, key: SecretStr, *, livemode: bool) -> AsyncIterator[Source]:
    if run.provider == "stripe":
        stripe = StripeHttp(run.settings.stripe_api_url)
        try:
            yield StripeSource(StripeApi(stripe, key, run.patience), run.since)
        finally:
            await stripe.close()
        return
    of_mode = asaas_api.LIVE_URL if livemode else asaas_api.TEST_URL
    url = run.settings.asaas_api_url or of_mode
    async with httpx.AsyncClient(timeout=asaas_api.TIMEOUT_SECONDS) as http:
        yield AsaasSource(AsaasApi(http, url, key, run.patience), run.since)


def _with_unread(found: Comparison, unread: list[Unread]) -> Comparison:
    differences = [Difference(what="unreadable", payment=one.id, why=one.why) for one in unread]
    return replace(found, differences=(*found.differences, *differences))


async def _send(run: Run, found: Comparison) -> int:
    url = run.settings.nats_url
    assert url is not None, "the command has checked it"
    async with asyncio.timeout(CONNECT_SECONDS_MAX):
        client = await connect(url.get_secret_value(), "scrip-reconcile")
    try:
        await send_facts(client, run.tenant, found.repairs)
    finally:
        await client.close()
    return len(found.repairs)
