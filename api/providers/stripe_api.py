"""Stripe, asked through its official library. Everything here may be asked twice.

What makes something at Stripe takes an idempotency key, under which it is made once. Answers are
plain objects, as in a webhook.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime
from functools import cache
from types import ModuleType
from typing import Any, Final, Literal

from msgspec import Struct
from pydantic import SecretStr

from api.provider_problems import PaymentDeclined, ProviderRefused, ProviderUnavailable, told
from api.providers.patience import SHORT, Patience, patiently, retry_after

URL: Final = "https://api.stripe.com"
TIMEOUT_SECONDS: Final = 10.0
PAGE_MAX: Final = 100
SERVER_ERRORS: Final = 500
CONFLICT: Final = 409
Object = dict[str, Any]
Kind = Literal["invoices", "refunds", "disputes", "charges", "sessions", "payment_intents"]
EXPANDED: Final[dict[Kind, list[str]]] = {
    "invoices": ["data.payments"],
    "sessions": ["data.line_items"],
}
"""What a list of these leaves out unless it is asked for, and what a fact needs."""


class Page(Struct, frozen=True):
    """Objects, the newest first, and whether there are more."""

    data: list[Object]
    has_more: bool


@cache
def library() -> ModuleType:
    """Return the library. Its import takes a second, which only who asks Stripe should wait."""
    import stripe  # noqa: PLC0415 - see above

    # Nobody needs to know on what machine this runs, or how fast it is.
    stripe.enable_telemetry = False
    return stripe


class StripeHttp:
    """Connections to Stripe, for all tenants of one event loop."""

    def __init__(self, url: str = URL) -> None:
        """Connect to `url` when somebody asks."""
        self.url = url
        self._http: Any = None

    def client(self, key: SecretStr) -> Any:
        """Return the library's client for an API key."""
        stripe = library()
        if self._http is None:
            self._http = stripe.HTTPXClient(timeout=TIMEOUT_SECONDS)
        return stripe.StripeClient(
            key.get_secret_value(),
            base_addresses={"api": self.url},
            http_client=self._http,
            max_network_retries=0,  # `Patience` says how often: one place for both providers.
        )

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.close_async()


class StripeApi:
    """One tenant's account at Stripe. Everything raises ProviderRefused, ProviderUnavailable."""

    def __init__(self, http: StripeHttp, key: SecretStr, patience: Patience = SHORT) -> None:
        """Ask with `key`."""
        self._client = http.client(key)
        self._patience = patience

    async def create_session(self, params: Mapping[str, Any], key: str) -> Object:
        """Make a checkout session, once for `key`."""
        sessions = self._client.v1.checkout.sessions
        return await self._make(sessions.create_async, params, key)

    async def create_intent(self, params: Mapping[str, Any], key: str) -> Object:
        """Make a payment intent, once for `key`. Raises PaymentDeclined, which is kept as well."""
        return await self._make(self._client.v1.payment_intents.create_async, params, key)

    async def customer(self, customer: str) -> Object:
        """Return a customer."""
        return await self._ask(lambda: self._client.v1.customers.retrieve_async(customer))

    async def cards(self, customer: str) -> list[Object]:
        """Return the first cards that a customer has on file."""
        params = {"type": "card", "limit": 10}
        service = self._client.v1.customers.payment_methods
        listed = await self._ask(lambda: service.list_async(customer, params))
        return list(listed["data"])

    async def get(self, kind: Kind, id_: str) -> Object:
        """Return one object."""
        expand = [name.removeprefix("data.") for name in EXPANDED.get(kind, [])]
        service = self._service(kind)
        return await self._ask(lambda: service.retrieve_async(id_, {"expand": expand}))

    async def page(
        self,
        kind: Kind,
        *,
        starting_after: str | None = None,
        since: datetime | None = None,
        limit: int = PAGE_MAX,
        **filters: Any,
    ) -> Page:
        """Return a page of objects made at `since` or later, the newest first."""
        params: dict[str, Any] = {"limit": limit, "expand": EXPANDED.get(kind, []), **filters}
        if starting_after is not None:
            params["starting_after"] = starting_after
        if since is not None:
            params["created"] = {"gte": int(since.timestamp())}
        service = self._service(kind)
        listed = await self._ask(lambda: service.list_async(params))
        try:
            return Page(list(listed["data"]), bool(listed["has_more"]))
        except (KeyError, TypeError):
            raise ProviderUnavailable(provider="stripe") from None

    async def pages(
        self,
        kind: Kind,
        *,
        starting_after: str | None = None,
        since: datetime | None = None,
        **filters: Any,
    ) -> AsyncIterator[list[Object]]:
        """Yield all pages. Whoever stops goes on after the last object seen."""
        while True:
            found = await self.page(kind, starting_after=starting_after, since=since, **filters)
            if found.data:
                yield found.data
                starting_after = found.data[-1]["id"]
            if not found.has_more or not found.data:
                return

    def _service(self, kind: Kind) -> Any:
        services = self._client.v1
        return services.checkout.sessions if kind == "sessions" else getattr(services, kind)

    async def _make(
        self, create: Callable[..., Awaitable[Any]], params: Mapping[str, Any], key: str
    ) -> Object:
        options = {"idempotency_key": key}
        return await self._ask(lambda: create(params, options))

    async def _ask(self, ask: Callable[[], Awaitable[Any]]) -> Object:
        async def once() -> Object:
            try:
                found = await ask()
            except library().StripeError as error:
                raise refusal_of(error) from None
            answer: Object = found.to_dict()
            return answer

        return await patiently(self._patience, once)


def refusal_of(error: Any) -> ProviderRefused | ProviderUnavailable | PaymentDeclined:
    """Return how an error of the library is told. What it holds of the request stays there."""
    stripe = library()
    status = error.http_status
    if isinstance(error, stripe.RateLimitError):
        seconds = retry_after(error.headers.get("retry-after"))
        waits = {} if seconds is None else {"retry_after_seconds": seconds}
        return ProviderUnavailable(provider="stripe", **waits)
    unsaid = isinstance(error, stripe.APIConnectionError) or status is None
    if unsaid or status >= SERVER_ERRORS or status == CONFLICT:
        return ProviderUnavailable(provider="stripe")
    reason = {
        "provider": "stripe",
        "provider_code": error.code,
        "message": told(error.user_message),
    }
    if isinstance(error, stripe.CardError):
        return PaymentDeclined(**reason)
    return ProviderRefused(**reason)
