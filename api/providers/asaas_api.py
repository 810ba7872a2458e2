"""Asaas, asked over httpx. Amounts are reais with two places, and stay exact both ways.

Asaas has no idempotency keys: what is made twice is there twice. So nothing is made here that does
anything by itself: a payment link is only worth what somebody pays by it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date
from decimal import Decimal
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import httpx
import msgspec
from msgspec import Struct
from pydantic import SecretStr

from api.provider_problems import ProviderRefused, ProviderUnavailable, told
from api.providers.patience import SHORT, Patience, patiently, retry_after

LIVE_URL: Final = "https://api.asaas.com/v3"
TEST_URL: Final = "https://api-sandbox.asaas.com/v3"
TIMEOUT_SECONDS: Final = 10.0
PAGE_MAX: Final = 100
Object = dict[str, Any]
_encode = msgspec.json.Encoder(decimal_format="number").encode
_decode = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode


class Page(Struct, frozen=True):
    """Payments, and from which offset on there are more: None, if there are none."""

    data: list[Object]
    next_offset: int | None


class AsaasApi:
    """One tenant's account at Asaas. Everything raises ProviderRefused, ProviderUnavailable."""

    def __init__(
        self, http: httpx.AsyncClient, url: str, key: SecretStr, patience: Patience = SHORT
    ) -> None:
        """Ask `url`, which ends in `/v3`, with `key`."""
        self._http = http
        self._url = url
        self._key = key
        self._patience = patience

    async def create_link(self, params: Object) -> Object:
        """Make a payment link."""
        return await self._ask("POST", "/paymentLinks", body=params)

    async def link(self, id_: str) -> Object:
        """Return a payment link."""
        return await self._ask("GET", f"/paymentLinks/{quote(id_, safe='')}")

    async def payment(self, id_: str) -> Object:
        """Return a payment as it is now."""
        return await self._ask("GET", f"/payments/{quote(id_, safe='')}")

    async def page(
        self,
        *,
        offset: int = 0,
        since: date | None = None,
        limit: int = PAGE_MAX,
        **filters: Any,
    ) -> Page:
        """Return a page of payments made on the day `since` or later."""
        params: dict[str, str | int] = {"offset": offset, "limit": limit, **filters}
        if since is not None:
            params["dateCreated[ge]"] = since.isoformat()
        listed = await self._ask("GET", "/payments", params=params)
        try:
            data, has_more = list(listed["data"]), bool(listed["hasMore"])
        except (KeyError, TypeError):
            raise ProviderUnavailable(provider="asaas") from None
        return Page(data, offset + len(data) if has_more and data else None)

    async def pages(
        self, *, offset: int = 0, since: date | None = None, **filters: Any
    ) -> AsyncIterator[list[Object]]:
        """Yield all pages, the newest payments first: what comes meanwhile moves the others on."""
        following: int | None = offset
        while following is not None:
            found = await self.page(offset=following, since=since, **filters)
            if found.data:
                yield found.data
            following = found.next_offset

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        body: Object | None = None,
        params: dict[str, str | int] | None = None,
    ) -> Object:
        return await patiently(self._patience, lambda: self._once(method, path, body, params))

    async def _once(
        self, method: str, path: str, body: Object | None, params: dict[str, str | int] | None
    ) -> Object:
        headers = {"access_token": self._key.get_secret_value(), "user-agent": "scrip"}
        if body is not None:
            headers["content-type"] = "application/json"
        content = None if body is None else _encode(body)
        try:
            response = await self._http.request(
                method, self._url + path, content=content, params=params, headers=headers
            )
        except httpx.HTTPError:
            raise ProviderUnavailable(provider="asaas") from None
        if not response.is_success:
            raise _refusal_of(response)
        try:
            return _decode(response.content)
        except msgspec.DecodeError:
            # A page of somebody in between, who answers in its place.
            raise ProviderUnavailable(provider="asaas") from None


def _refusal_of(response: httpx.Response) -> ProviderRefused | ProviderUnavailable:
    status = response.status_code
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        named = response.headers.get("retry-after") or response.headers.get("ratelimit-reset")
        seconds = retry_after(named)
        waits = {} if seconds is None else {"retry_after_seconds": seconds}
        return ProviderUnavailable(provider="asaas", **waits)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ProviderUnavailable(provider="asaas")
    first = _first_error(response.content)
    return ProviderRefused(
        provider="asaas",
        provider_code=first.get("code") or str(status),
        message=told(first.get("description") or response.reason_phrase),
    )


def _first_error(body: bytes) -> dict[str, Any]:
    try:
        errors = _decode(body).get("errors")
    except msgspec.DecodeError:
        return {}
    first = errors[0] if isinstance(errors, list) and errors else {}
    return first if isinstance(first, dict) else {}
