"""API keys at payment providers over HTTP: for admins, who put them and never see them again."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct, structs
from psycopg import AsyncConnection
from pydantic import SecretStr

from api.problems import SecretsKeyMissing, invalid
from api.provider_problems import ProviderKeyNotFound
from api.providers.keys import (
    PROCESSORS,
    BadKey,
    KeyNote,
    Processor,
    delete_key,
    put_key,
    read_note,
)
from api.routes import ADMIN, Call, Change, Read

PATH = "/v1/providers/{payment_provider}"
ApiKey = Annotated[
    SecretStr,
    Meta(description="A secret or restricted key of Stripe, or an access token of Asaas."),
]


class ProviderIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """With which key the provider is asked."""

    api_key: ApiKey


class ProviderAnswer(KeyNote, frozen=True, kw_only=True):
    """What is shown of the key: how it begins and ends. `livemode` is the tenant's."""


class ProviderDeleted(Struct, frozen=True, kw_only=True):
    """The key is gone: the provider is asked for nothing more."""

    provider: Processor
    deleted: bool


def _provider(call: Call) -> Processor:
    name = call.path["payment_provider"]
    if name not in PROCESSORS:
        raise invalid("payment_provider", "invalid", f"must be {' or '.join(PROCESSORS)}")
    return name


def _answer(note: KeyNote) -> ProviderAnswer:
    return ProviderAnswer(**structs.asdict(note))


async def _put(call: Call, connection: AsyncConnection[Any], asked: ProviderIn) -> ProviderAnswer:
    provider, keys = _provider(call), call.room.deps.secrets_keys
    try:
        note = await put_key(
            connection, keys, tenant=call.tenant, provider=provider, value=asked.api_key
        )
    except BadKey as error:
        raise invalid("api_key", "invalid", str(error)) from None
    return _answer(note)


async def _read(call: Call, _: object) -> ProviderAnswer:
    provider = _provider(call)
    async with call.room.deps.pool.connection() as connection:
        return _answer(await read_note(connection, call.tenant, provider))


async def _delete(call: Call, connection: AsyncConnection[Any], _: object) -> ProviderDeleted:
    provider = _provider(call)
    await delete_key(connection, call.tenant, provider)
    return ProviderDeleted(provider=provider, deleted=True)


PUT_PROVIDER = Change(
    method="PUT",
    path=PATH,
    name="put_provider",
    tag="providers",
    summary="Put the API key with which a payment provider is asked",
    details="In the place of any before it, and in use at once. It is stored encrypted.",
    roles=ADMIN,
    refusals=(SecretsKeyMissing,),
    body=ProviderIn,
    handle=_put,
    answer=ProviderAnswer,
    holds_secret=True,
)
READ_PROVIDER = Read(
    method="GET",
    path=PATH,
    name="read_provider",
    tag="providers",
    summary="Read which key a payment provider is asked with, as a hint",
    roles=ADMIN,
    refusals=(ProviderKeyNotFound,),
    handle=_read,
    answer=ProviderAnswer,
)
DELETE_PROVIDER = Change(
    method="DELETE",
    path=PATH,
    name="delete_provider",
    tag="providers",
    summary="Remove the API key of a payment provider",
    roles=ADMIN,
    refusals=(ProviderKeyNotFound,),
    handle=_delete,
    answer=ProviderDeleted,
)
