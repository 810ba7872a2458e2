"""Checkouts: where a customer pays for a plan or a pack, at a provider."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Final

from msgspec import Meta, Struct
from psycopg import AsyncConnection

from api.fields import NAME_RULE
from api.problems import SecretsUnreadable, invalid
from api.provider_problems import (
    OfferNotFound,
    OfferNotSold,
    ProviderKeyMissing,
    ProviderRefused,
    ProviderUnavailable,
)
from api.providers.checkouts import ASAAS_QUANTITY_MAX, Cart, at_asaas, at_stripe
from api.providers.keys import PROCESSORS, Processor
from api.routes import SPENDERS, Call, Change
from ledger.domain.catalog import Catalog, pack_at, plan_at
from ledger.domain.catalog_events import PackSet, PlanSet
from ledger.domain.errors import AccountNotFound
from ledger.domain.facts import QUANTITY_MAX
from ledger.domain.offers import Pack, Plan
from ledger.domain.values import NAME_MAX, is_name

URL_MAX: Final = 2_048
_URL: Final = re.compile(r"https?://[!-~]+")
Name = Annotated[str, Meta(min_length=1, max_length=NAME_MAX)]
Url = Annotated[str, Meta(max_length=URL_MAX, extra_json_schema={"pattern": f"^{_URL.pattern}$"})]

SELECT_CUSTOMER = """
SELECT owner FROM scrip.account_links
WHERE tenant = %(tenant)s AND account = %(account)s AND starts_with(owner, 'stripe:customer:')
ORDER BY linked_at DESC, owner LIMIT 1
"""


class CheckoutIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be paid for, and for which account: a plan or a pack."""

    account: Name
    plan: Name | None = None
    pack: Name | None = None
    quantity: Annotated[
        int, Meta(ge=1, le=QUANTITY_MAX, description="How many; of a plan, and at Asaas, one.")
    ] = 1
    provider: Annotated[
        Processor | None,
        Meta(description="Without one, the first at which it is sold and the tenant has a key."),
    ] = None
    success_url: Annotated[Url, Meta(description="Where the customer goes who has paid.")]
    cancel_url: Annotated[
        Url | None, Meta(description="Where one goes who does not pay; Asaas has no use for it.")
    ] = None
    save_card: Annotated[
        bool,
        Meta(description="Of a pack at Stripe: keep the card, to be charged by later top-ups."),
    ] = False


class CheckoutAnswer(Struct, frozen=True, kw_only=True):
    """Where to send the customer. The credits come once the provider tells of the payment."""

    id: str
    provider: Processor
    url: str
    expires_at: Annotated[
        datetime | None, Meta(description="Until when it can be paid; null: for ever.")
    ]


async def _ask(call: Call, key: str, asked: CheckoutIn) -> CheckoutAnswer:
    """Make the checkout at the provider, before anything is kept of it here."""
    _check(asked)
    room = call.room
    # The account must be there: what is paid for none waits, until somebody complains.
    if not (await room.ledger.view(call.tenant, asked.account)).opened:
        raise AccountNotFound
    kind, offer, terms = _offer(
        await room.ledger.catalog(call.tenant), asked, room.deps.writer.clock()
    )
    provider = await _provider(call, asked, f"{kind} {offer}", terms)
    cart = Cart(
        tenant=call.tenant,
        account=asked.account,
        offer=f"{kind} {offer}",
        terms=terms,
        quantity=asked.quantity,
        success_url=asked.success_url,
        cancel_url=asked.cancel_url,
        save_card=asked.save_card,
        customer=await _customer(call, asked.account) if provider == "stripe" else None,
    )
    if provider == "stripe":
        made = await at_stripe(await room.providers.stripe(call.tenant), cart, key)
    else:
        made = await at_asaas(await room.providers.asaas(call.tenant), cart)
    return CheckoutAnswer(id=made.id, provider=provider, url=made.url, expires_at=made.expires_at)


async def _keep(_: Call, connection: AsyncConnection[Any], made: CheckoutAnswer) -> CheckoutAnswer:
    del connection  # Its receipt is all that is kept of a checkout.
    return made


def _check(asked: CheckoutIn) -> None:
    if (asked.plan is None) == (asked.pack is None):
        raise invalid("pack", "invalid", "either a plan or a pack must be given")
    for field in ("account", "plan", "pack"):
        name = getattr(asked, field)
        if name is not None and not is_name(name):
            raise invalid(field, "invalid", NAME_RULE)
    for field in ("success_url", "cancel_url"):
        url = getattr(asked, field)
        if url is not None and _URL.fullmatch(url) is None:
            raise invalid(field, "invalid", "must be an https:// or http:// address")
    if asked.plan is not None and asked.quantity != 1:
        raise invalid("quantity", "invalid", "must be 1 of a plan")
    if asked.save_card and asked.plan is not None:
        raise invalid("save_card", "invalid", "must be false with a plan, which keeps it anyway")
    if asked.provider == "asaas" and asked.quantity > ASAAS_QUANTITY_MAX:
        raise invalid("quantity", "invalid", f"must be at most {ASAAS_QUANTITY_MAX} at Asaas")


def _offer(catalog: Catalog, asked: CheckoutIn, now: datetime) -> tuple[str, str, Plan | Pack]:
    found: PlanSet | PackSet | None
    if asked.plan is not None:
        kind, key = "plan", asked.plan
        found = plan_at(catalog, key, now)
    else:
        assert asked.pack is not None
        kind, key = "pack", asked.pack
        found = pack_at(catalog, key, now)
    if found is None or found.retired:
        raise OfferNotFound(offer=f"{kind} {key}")
    return kind, key, found.terms


async def _provider(call: Call, asked: CheckoutIn, offer: str, terms: Plan | Pack) -> Processor:
    """Return where it is to be paid: there it has an id, and the tenant a key."""
    wanted = PROCESSORS if asked.provider is None else (asked.provider,)
    sold = [provider for provider in wanted if terms.providers.of(provider)]
    if not sold:
        raise OfferNotSold(
            offer=offer, provider=" or ".join(wanted), why="the catalog has no id of it there"
        )
    for provider in sold:
        if await call.room.providers.keys.find(call.tenant, provider) is not None:
            return provider
    raise ProviderKeyMissing(provider=sold[0])


async def _customer(call: Call, account: str) -> str | None:
    """Return as which customer of Stripe the account is known."""
    named = {"tenant": call.tenant, "account": account}
    async with call.room.deps.pool.connection() as connection:
        row = await (await connection.execute(SELECT_CUSTOMER, named)).fetchone()
    return None if row is None else str(row[0]).removeprefix("stripe:customer:")


CREATE_CHECKOUT = Change(
    method="POST",
    path="/v1/checkout",
    name="create_checkout",
    tag="providers",
    summary="Make a checkout: where a customer pays for a plan or a pack",
    details="A session of Stripe, or a payment link of Asaas. The price is the provider's.",
    roles=SPENDERS,
    refusals=(
        AccountNotFound,
        OfferNotFound,
        OfferNotSold,
        ProviderKeyMissing,
        ProviderRefused,
        ProviderUnavailable,
        SecretsUnreadable,
    ),
    body=CheckoutIn,
    ask=_ask,
    handle=_keep,
    answer=CheckoutAnswer,
    status=201,
)
