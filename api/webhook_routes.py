"""Webhook endpoints over HTTP: for admins, who say where providers send to, and who they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from msgspec import UNSET, Meta, Struct, UnsetType, structs
from psycopg import AsyncConnection
from pydantic import SecretStr

from api.fields import Moment, Text, moment
from api.paging import bad_cursor
from api.problems import (
    SecretsKeyMissing,
    WebhookEndpointNotFound,
    WebhookLimitReached,
    WebhookSecretNotFound,
    invalid,
)
from api.routes import ADMIN, Call, Change, Read
from api.versions import EntriesPage
from api.webhook_endpoints import (
    SecretNote,
    State,
    WebhookEndpoint,
    add_secret,
    change_endpoint,
    create_endpoint,
    delete_endpoint,
    list_endpoints,
    read_endpoint,
    remove_secret,
)
from api.webhook_secrets import BadSecret, generate_secret
from ledger.domain.facts import Provider
from projections.cursors import InvalidCursor, decode_cursor, page

LIST: Final = "webhook-endpoints"
GENERATED: Final = "The secret, if it was made here, and only in the first answer: nobody can read"
GivenSecret = Annotated[
    SecretStr | None,
    Meta(description="As the provider shows it. For `users`, one is made if none is given."),
]
MadeSecret = Annotated[SecretStr | None, Meta(description=f"{GENERATED} it again.")]


class EndpointIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A webhook endpoint: who will send to it, and perhaps the secret it is known by."""

    provider: Provider
    label: Text | None = None
    secret: GivenSecret = None


class EndpointChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be changed of an endpoint."""

    label: Text | UnsetType | None = UNSET
    state: State | UnsetType = UNSET


class SecretIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One more secret, and until when it is good, if not for ever."""

    secret: GivenSecret = None
    expires_at: Moment | None = None


class WebhookEndpointAnswer(Struct, frozen=True, kw_only=True):
    """A webhook endpoint. `path` is what its provider sends to; of secrets, only hints are told."""

    id: str
    provider: Provider
    label: str | None
    state: State
    livemode: bool
    path: str
    secrets: tuple[SecretNote, ...]
    created_at: datetime
    updated_at: datetime


class WebhookEndpointMade(WebhookEndpointAnswer, frozen=True, kw_only=True):
    """The new endpoint, and its secret if that was made here."""

    secret: MadeSecret


class WebhookEndpointDeleted(Struct, frozen=True, kw_only=True):
    """The endpoint is gone, and its secrets with it."""

    id: str
    deleted: bool


class WebhookSecretMade(SecretNote, frozen=True, kw_only=True):
    """The new secret as it is shown, and itself if it was made here."""

    endpoint: str
    secret: MadeSecret


class WebhookEndpointList(Struct, frozen=True, kw_only=True):
    """Endpoints, the oldest first."""

    data: list[WebhookEndpointAnswer]
    next_cursor: str | None


def _members(endpoint: WebhookEndpoint) -> dict[str, Any]:
    shown = structs.asdict(endpoint)
    del shown["tenant"]
    return shown | {"path": endpoint.path}


async def _create(
    call: Call, connection: AsyncConnection[Any], asked: EndpointIn
) -> WebhookEndpointMade:
    keys = call.room.deps.secrets_keys
    made = generate_secret() if asked.secret is None and asked.provider == "users" else None
    async with _checked():
        endpoint = await create_endpoint(
            connection,
            keys,
            tenant=call.tenant,
            provider=asked.provider,
            label=asked.label,
            secret=made or asked.secret,
        )
    return WebhookEndpointMade(**_members(endpoint), secret=made)


async def _add_secret(
    call: Call, connection: AsyncConnection[Any], asked: SecretIn
) -> WebhookSecretMade:
    name, until = call.path["endpoint"], moment(asked.expires_at)
    provider = (await read_endpoint(connection, call.tenant, name)).provider
    if until is not None and until <= datetime.now(UTC):
        raise invalid("expires_at", "invalid", "must lie in the future")
    made = generate_secret() if asked.secret is None and provider == "users" else None
    secret = made or asked.secret
    if secret is None:
        raise invalid("secret", "required", f"must be given: {provider} shows it")
    async with _checked():
        note = await add_secret(
            connection,
            call.room.deps.secrets_keys,
            tenant=call.tenant,
            endpoint=name,
            secret=secret,
            expires_at=until,
        )
    return WebhookSecretMade(**structs.asdict(note), endpoint=name, secret=made)


@asynccontextmanager
async def _checked() -> AsyncIterator[None]:
    try:
        yield
    except BadSecret as error:
        raise invalid("secret", "invalid", str(error)) from None


async def _change(
    call: Call, connection: AsyncConnection[Any], asked: EndpointChange
) -> WebhookEndpointAnswer:
    endpoint = await change_endpoint(
        connection,
        tenant=call.tenant,
        endpoint=call.path["endpoint"],
        label=asked.label,
        state=None if isinstance(asked.state, UnsetType) else asked.state,
    )
    return WebhookEndpointAnswer(**_members(endpoint))


async def _delete(
    call: Call, connection: AsyncConnection[Any], _: object
) -> WebhookEndpointDeleted:
    name = call.path["endpoint"]
    await delete_endpoint(connection, call.tenant, name)
    return WebhookEndpointDeleted(id=name, deleted=True)


async def _remove_secret(
    call: Call, connection: AsyncConnection[Any], _: object
) -> WebhookEndpointAnswer:
    names = {"endpoint": call.path["endpoint"], "secret": call.path["secret"]}
    endpoint = await remove_secret(connection, tenant=call.tenant, **names)
    return WebhookEndpointAnswer(**_members(endpoint))


async def _read(call: Call, _: object) -> WebhookEndpointAnswer:
    async with call.room.deps.pool.connection() as connection:
        endpoint = await read_endpoint(connection, call.tenant, call.path["endpoint"])
    return WebhookEndpointAnswer(**_members(endpoint))


async def _list(call: Call, query: EntriesPage) -> WebhookEndpointList:
    after = None
    if query.cursor is not None:
        try:
            after = decode_cursor(LIST, tuple[datetime, str], query.cursor)
        except InvalidCursor as error:
            raise bad_cursor(error) from None
    async with call.room.deps.pool.connection() as connection:
        rows = await list_endpoints(connection, call.tenant, limit=query.limit + 1, after=after)
    found = page(LIST, rows, query.limit, lambda row: (row.created_at, row.id))
    data = [WebhookEndpointAnswer(**_members(row)) for row in found.data]
    return WebhookEndpointList(data=data, next_cursor=found.next_cursor)


CREATE_ENDPOINT = Change(
    method="POST",
    path="/v1/webhook-endpoints",
    name="create_webhook_endpoint",
    tag="webhooks",
    summary="Make a webhook endpoint for a payment provider or a user system",
    details="Stripe and Clerk show a secret once they know the address: add it then.",
    roles=ADMIN,
    refusals=(SecretsKeyMissing, WebhookLimitReached),
    body=EndpointIn,
    handle=_create,
    answer=WebhookEndpointMade,
    location=lambda made: f"/v1/webhook-endpoints/{made.id}",
    status=201,
    holds_secret=True,
)
LIST_ENDPOINTS = Read(
    method="GET",
    path="/v1/webhook-endpoints",
    name="list_webhook_endpoints",
    tag="webhooks",
    summary="List webhook endpoints, the oldest first",
    roles=ADMIN,
    query=EntriesPage,
    handle=_list,
    answer=WebhookEndpointList,
)
READ_ENDPOINT = Read(
    method="GET",
    path="/v1/webhook-endpoints/{endpoint}",
    name="read_webhook_endpoint",
    tag="webhooks",
    summary="Read a webhook endpoint",
    roles=ADMIN,
    refusals=(WebhookEndpointNotFound,),
    handle=_read,
    answer=WebhookEndpointAnswer,
)
CHANGE_ENDPOINT = Change(
    method="PATCH",
    path="/v1/webhook-endpoints/{endpoint}",
    name="change_webhook_endpoint",
    tag="webhooks",
    summary="Disable or enable a webhook endpoint, or label it anew",
    roles=ADMIN,
    refusals=(WebhookEndpointNotFound,),
    body=EndpointChange,
    handle=_change,
    answer=WebhookEndpointAnswer,
)
DELETE_ENDPOINT = Change(
    method="DELETE",
    path="/v1/webhook-endpoints/{endpoint}",
    name="delete_webhook_endpoint",
    tag="webhooks",
    summary="Remove a webhook endpoint and its secrets, for good",
    roles=ADMIN,
    refusals=(WebhookEndpointNotFound,),
    handle=_delete,
    answer=WebhookEndpointDeleted,
)
ADD_SECRET = Change(
    method="POST",
    path="/v1/webhook-endpoints/{endpoint}/secrets",
    name="add_webhook_secret",
    tag="webhooks",
    summary="Add a secret, good beside those that are there",
    details="To exchange one: add the new, change it at the provider, remove the old.",
    roles=ADMIN,
    refusals=(WebhookEndpointNotFound, SecretsKeyMissing, WebhookLimitReached),
    body=SecretIn,
    handle=_add_secret,
    answer=WebhookSecretMade,
    status=201,
    holds_secret=True,
)
REMOVE_SECRET = Change(
    method="DELETE",
    path="/v1/webhook-endpoints/{endpoint}/secrets/{secret}",
    name="remove_webhook_secret",
    tag="webhooks",
    summary="Remove a secret for good",
    roles=ADMIN,
    refusals=(WebhookEndpointNotFound, WebhookSecretNotFound),
    handle=_remove_secret,
    answer=WebhookEndpointAnswer,
)
