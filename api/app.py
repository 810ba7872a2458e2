"""The HTTP application: the one place where it is put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as PathRoute
from starlette.types import ASGIApp

from api import (
    account_keys,
    accounts,
    adjustments,
    alerts,
    audit,
    batch,
    catalog,
    checkout,
    deductions,
    grants,
    health,
    links,
    me,
    packs,
    payments,
    plans,
    problems,
    provider_routes,
    quotes,
    referral_reward,
    referrals,
    reservations,
    usage,
    users,
    webhook_deliveries,
    webhook_routes,
    webhook_taking,
)
from api.auth import Keys
from api.crossing import Crossing
from api.edge import Edge, trace_of
from api.endpoint import Resource, refused
from api.metrics import Metrics
from api.nats_link import answering
from api.openapi import describe
from api.paths import Paths
from api.providers.asking import Providers
from api.providers.keys import ProviderKeys
from api.routes import Deps, Room, Route
from api.webhook_receiving import Receivers
from ledger.domain.errors import LedgerError

ROUTES: Final[tuple[Route, ...]] = (
    reservations.CREATE_RESERVATION,
    reservations.CAPTURE,
    reservations.RELEASE,
    reservations.EXTEND,
    deductions.CREATE_DEDUCTION,
    batch.BATCH,
    accounts.READ_BALANCE,
    reservations.LIST_RESERVATIONS,
    reservations.READ_RESERVATION,
    deductions.CREATE_REFUND,
    accounts.PUT_ACCOUNT,
    accounts.READ_ACCOUNT,
    accounts.LIST_ACCOUNTS,
    users.LIST_USERS,
    grants.CREATE_GRANT,
    grants.LIST_GRANTS,
    grants.READ_GRANT,
    grants.REVOKE_GRANT,
    adjustments.CREATE_ADJUSTMENT,
    usage.READ_USAGE,
    audit.LIST_ACCOUNT_EVENTS,
    audit.LIST_EVENTS,
    quotes.QUOTE,
    catalog.LIST_FEATURES,
    catalog.PUT_FEATURE,
    catalog.READ_FEATURE,
    catalog.LIST_FEATURE_VERSIONS,
    catalog.DIFF_FEATURE,
    catalog.LIST_RATE_CARDS,
    catalog.PUT_RATE_CARD,
    catalog.READ_RATE_CARD,
    catalog.LIST_RATE_CARD_VERSIONS,
    catalog.DIFF_RATE_CARD,
    catalog.PUT_REFUND_POLICY,
    catalog.READ_REFUND_POLICY,
    plans.LIST_PLANS,
    plans.PUT_PLAN,
    plans.READ_PLAN,
    plans.LIST_PLAN_VERSIONS,
    plans.DIFF_PLAN,
    packs.LIST_PACKS,
    packs.PUT_PACK,
    packs.READ_PACK,
    packs.LIST_PACK_VERSIONS,
    packs.DIFF_PACK,
    referral_reward.PUT_REFERRAL_REWARD,
    referral_reward.READ_REFERRAL_REWARD,
    account_keys.CREATE_ACCOUNT_KEY,
    account_keys.REVOKE_ACCOUNT_KEY,
    me.READ_MY_CREDITS,
    links.PUT_LINK,
    links.READ_LINK,
    links.DELETE_LINK,
    links.LIST_LINKS,
    payments.LIST_PAYMENTS,
    payments.READ_PAYMENT,
    alerts.LIST_ALERTS,
    alerts.RESOLVE_ALERT,
    referrals.PUT_REFERRER,
    referrals.READ_REFERRER,
    webhook_routes.CREATE_ENDPOINT,
    webhook_routes.LIST_ENDPOINTS,
    webhook_routes.READ_ENDPOINT,
    webhook_routes.CHANGE_ENDPOINT,
    webhook_routes.DELETE_ENDPOINT,
    webhook_routes.ADD_SECRET,
    webhook_routes.REMOVE_SECRET,
    webhook_deliveries.LIST_DELIVERIES,
    webhook_deliveries.READ_DELIVERY,
    webhook_taking.TAKE_WEBHOOK,
    provider_routes.PUT_PROVIDER,
    provider_routes.READ_PROVIDER,
    provider_routes.DELETE_PROVIDER,
    checkout.CREATE_CHECKOUT,
    health.LIVE,
    health.READY,
    health.METRICS,
)


def create_app(deps: Deps) -> ASGIApp:
    """Return the application. It opens the pool when it starts, and closes it when it stops.

    The writer is the caller's to start and to close: after the application has stopped.
    """
    metrics = Metrics(deps.writer)
    room = Room(
        deps=deps,
        keys=Keys(deps.pool, known_seconds=deps.key_known_seconds),
        ledger=Crossing(deps.writer),
        metrics=metrics,
        receivers=Receivers(deps.pool, deps.secrets_keys),
        providers=Providers(
            ProviderKeys(deps.pool, deps.secrets_keys), deps.stripe_api_url, deps.asaas_api_url
        ),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await deps.pool.open()
        async with answering(room):
            yield
        await room.providers.close()
        await deps.pool.close()

    app = FastAPI(
        title="Scrip",
        version=deps.version,
        lifespan=lifespan,
        redirect_slashes=False,
        openapi_url="/openapi.json",
        # The usual pages load their scripts from elsewhere; nothing here does.
        docs_url=None,
        redoc_url=None,
        exception_handlers={HTTPException: _not_routed},
    )
    document = describe(ROUTES, deps.version)
    app.openapi = lambda: document  # type: ignore[method-assign]
    resources = []
    for path in dict.fromkeys(route.path for route in ROUTES):
        here = [route for route in ROUTES if route.path == path]
        resources.append(PathRoute(path, Resource(path, here, room)))
    app.router.routes.extend(resources)
    return Edge(app, Paths(resources), metrics)


async def _not_routed(request: Request, error: Exception) -> Response:
    """Refuse what is asked for where nothing of ours stands: FastAPI's own route, or none."""
    assert isinstance(error, HTTPException)
    refusal: LedgerError = problems.RouteNotFound()
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        refusal = problems.MethodNotAllowed(allow="GET")
    reply = refused(refusal, trace_of(request.scope))
    response = Response(
        reply.body, status_code=reply.status, media_type=reply.content_type.decode()
    )
    response.raw_headers.extend(reply.headers)
    return response
