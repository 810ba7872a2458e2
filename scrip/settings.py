"""Every setting, read once from the environment and passed down. Only `scrip` knows this file.

The three addresses have the names that hosting platforms give them; every other variable begins
with `SCRIP_` and says its unit. `.env.example` lists them all, and a test keeps it complete.
"""

import difflib
import os
import re
from collections.abc import Iterable
from typing import Annotated, Literal, Self

from annotated_types import Ge, Gt, Le
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "SCRIP_"
MISSING = "must be set; that of a running `scrip dev` or `scrip demo` is in .scrip/dev.json"
MEBIBYTE = 1 << 20

Port = Annotated[int, Ge(1), Le(65_535)]
Count = Annotated[int, Ge(1)]
Seconds = Annotated[float, Gt(0)]
Milliseconds = Annotated[int, Ge(1)]


class SettingsError(Exception):
    """The environment does not say what Scrip needs; the text names each variable, and no value."""


class Settings(BaseSettings):
    """How this process works. Frozen; secrets are masked wherever they are printed."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        validate_by_alias=True,
        validate_by_name=True,
    )

    database_url: SecretStr = Field(
        validation_alias="DATABASE_URL",
        description="PostgreSQL as the services' role, which may INSERT and SELECT events.",
    )
    database_owner_url: SecretStr | None = Field(
        default=None,
        validation_alias="DATABASE_OWNER_URL",
        description="PostgreSQL as the owner's role. For `scrip migrate`; services need none.",
    )
    nats_url: SecretStr | None = Field(
        default=None,
        validation_alias="NATS_URL",
        description="NATS with JetStream. The worker needs it; the API answers requests over it.",
    )

    secrets_keys: SecretStr | None = Field(
        default=None,
        description="Keys that encrypt secrets of others, as keyid:base64 of 32 bytes, with commas"
        " between; the first encrypts, all decrypt. Without one, no webhook endpoint can be made.",
    )

    stripe_api_url: str = Field(
        default="https://api.stripe.com", description="Where Stripe is asked, as its address."
    )
    asaas_api_url: str | None = Field(
        default=None,
        description="Where Asaas is asked, with the version; unset: at its own address, or that of"
        " its sandbox for tenants of mode test.",
    )

    reconcile_api_key: SecretStr | None = Field(
        default=None,
        description="The provider's API key for `scrip reconcile`, in the place of the tenant's.",
    )

    nats_monitor_url: str | None = Field(
        default=None,
        description="Where nats-server tells whether it writes to disk before it acknowledges.",
    )
    nats_refuse_lazy_sync: bool = Field(
        default=False,
        description="Refuse to start when NATS is seen to acknowledge before it writes to disk.",
    )

    http_host: str = Field(default="127.0.0.1", description="The address the API listens on.")
    http_port: Port = Field(default=8000, description="The port the API listens on.")
    http_fd: Annotated[int, Ge(3)] | None = Field(
        default=None,
        description="An open socket to listen on instead, as `scrip dev` hands it to its children.",
    )
    worker_http_port: Port = Field(
        default=8001, description="The port on which the worker answers /health and /metrics."
    )
    body_bytes_max: Count = Field(default=MEBIBYTE, description="The longest request body.")
    batch_bytes_max: Count = Field(
        default=4 * MEBIBYTE, description="The longest body of POST /v1/batch."
    )
    position_wait_ms: Milliseconds = Field(
        default=2_000, description="How long a read waits for the position it asks for."
    )
    ready_lag_events_max: Count = Field(
        default=100_000,
        description="How far a projection may be behind before /health/ready says no.",
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severe line that is logged."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="`auto` is `console` in a terminal and `json` elsewhere."
    )

    writer_queue_max: Count = Field(
        default=10_000, description="Commands that may wait; past it, 503 `overloaded`."
    )
    writer_batch_max: Count = Field(
        default=1_000, description="Commands that are written in one transaction."
    )
    command_timeout_seconds: Seconds = Field(
        default=10.0, description="How long a command may wait for its answer."
    )
    account_cache_max: Count = Field(
        default=100_000, description="Accounts that a process keeps in memory."
    )
    snapshot_every_events: Count = Field(
        default=500, description="Events of an account between two of its snapshots."
    )
    store_connections_max: Count = Field(
        default=5, description="Connections of one process that write and read events."
    )
    read_connections_max: Count = Field(
        default=10, description="Connections of one process that read projections."
    )
    statement_timeout_ms: Milliseconds = Field(
        default=5_000, description="How long PostgreSQL may work on one statement."
    )
    lock_timeout_ms: Milliseconds = Field(
        default=2_000, description="How long a statement may wait for a lock."
    )

    projection_batch_max: Count = Field(
        default=5_000, description="Events that a projection takes in one transaction."
    )
    projection_poll_ms: Milliseconds = Field(
        default=5, description="How often a projection looks for new events."
    )
    deadlines_poll_seconds: Seconds = Field(
        default=1.0, description="How often the worker looks for what is due."
    )

    webhook_payload_days: Annotated[int, Ge(1), Le(3_650)] = Field(
        default=30, description="How long deliveries of webhooks are kept to look into."
    )

    @field_validator("database_url", "database_owner_url")
    @classmethod
    def _is_of_postgresql(cls, url: SecretStr | None) -> SecretStr | None:
        try:
            if url is None or conninfo_to_dict(url.get_secret_value()):
                return url
        except ProgrammingError:
            pass
        message = "must be an address such as postgresql://role:password@host:5432/database"
        raise ValueError(message)

    @field_validator("stripe_api_url", "asaas_api_url")
    @classmethod
    def _is_an_address(cls, url: str | None) -> str | None:
        if url is None or re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#@]*)?", url):
            return url and url.rstrip("/")
        message = "must be an address such as https://api.example.com, without a query"
        raise ValueError(message)

    @field_validator("secrets_keys")
    @classmethod
    def _are_keys(cls, keys: SecretStr | None) -> SecretStr | None:
        if keys is not None:
            from api.sealing import SecretKeys  # noqa: PLC0415 - not before it is needed

            SecretKeys.parse(keys.get_secret_value())
        return keys

    @model_validator(mode="after")
    def _bounds_agree(self) -> Self:
        if self.lock_timeout_ms > self.statement_timeout_ms:
            message = "SCRIP_LOCK_TIMEOUT_MS must not be above SCRIP_STATEMENT_TIMEOUT_MS"
            raise ValueError(message)
        return self


def variable(field: str) -> str:
    """Return the environment variable of a field of Settings."""
    alias = Settings.model_fields[field].validation_alias
    return alias if isinstance(alias, str) else PREFIX + field.upper()


VARIABLES = tuple(variable(field) for field in Settings.model_fields)


def read_settings() -> Settings:
    """Read the environment. Raises SettingsError."""
    complaints = unknown_variables(os.environ)
    try:
        settings = Settings()  # type: ignore[call-arg] # The rest comes from the environment.
    except ValidationError as error:
        complaints += [
            f"{_place(problem['loc'])}{MISSING if problem['type'] == 'missing' else problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        ]
    if complaints:
        raise SettingsError("\n".join(complaints))
    return settings


def unknown_variables(names: Iterable[str]) -> list[str]:
    """Return a complaint about each variable that looks like a setting and is none."""
    complaints = []
    for name in sorted(names):
        if name.upper().startswith(PREFIX) and name.upper() not in VARIABLES:
            near = difflib.get_close_matches(name.upper(), VARIABLES, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            complaints.append(f"{name}: no such setting{hint}")
    return complaints


def _place(path: tuple[str | int, ...]) -> str:
    if not path:
        return ""
    name = str(path[0])
    return f"{variable(name) if name in Settings.model_fields else name}: "
