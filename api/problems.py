"""Refusals as RFC 9457 problem documents, and the refusals that HTTP adds to those of the ledger.

One class per refusal: its docstring is the message for people, its code is for programs. Every code
is explained in docs/errors.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from ledger.domain.errors import InvalidCommand, LedgerError
from ledger.domain.values import format_decimal

CONTENT_TYPE: Final = b"application/problem+json"
TYPE_PREFIX: Final = "urn:scrip:problem:"
RETRY_AFTER_SECONDS: Final = 1


class FieldError(Struct, frozen=True):
    """What is wrong with one field of the body, one query parameter or one part of the path."""

    field: Annotated[str, Meta(examples=["amount"])]
    code: Annotated[str, Meta(examples=["invalid"])]
    message: Annotated[str, Meta(examples=["must be more than 0"])]


class Problem(Struct, kw_only=True):
    """Why a request was refused. Besides these members, it carries the facts of its `code`."""

    type: Annotated[str, Meta(description="The code as a URI.")]
    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: str
    code: Annotated[str, Meta(description="Stable: programs decide by it. See docs/errors.md.")]
    retryable: Annotated[bool, Meta(description="Whether the same request may succeed unaided.")]
    request_id: str
    errors: Annotated[list[FieldError], Meta(description="Only with `invalid_request`.")] = []


class MalformedRequest(LedgerError):
    """The body is not JSON in UTF-8 with distinct names."""

    code, status = "malformed_request", 400

    def __init__(self, what: str | None = None) -> None:
        """Say what is wrong with the bytes."""
        super().__init__()
        self._what = what

    @property
    def detail(self) -> str:
        """What is wrong with the bytes."""
        return self._what or super().detail


class IdempotencyKeyRequired(LedgerError):
    """There must be one Idempotency-Key header, of 1 to 255 visible ASCII characters."""

    code, status = "idempotency_key_required", 400


class Unauthenticated(LedgerError):
    """The request needs a valid API key: `Authorization: Bearer scrip_…`."""

    code, status = "unauthenticated", 401


class Forbidden(LedgerError):
    """The role of this API key does not allow this request."""

    code, status = "forbidden", 403


class WrongTenant(LedgerError):
    """The subject of this request names another tenant than the one of the API key."""

    code, status = "wrong_tenant", 403


class RouteNotFound(LedgerError):
    """There is nothing at this path."""

    code, status = "route_not_found", 404


class MethodNotAllowed(LedgerError):
    """This path does not take this method."""

    code, status = "method_not_allowed", 405


class BodyTooLarge(LedgerError):
    """The body is larger than this route takes."""

    code, status = "body_too_large", 413


class AnswerTooLarge(LedgerError):
    """What was asked for has been done; the answer is longer than NATS carries here."""

    code, status = "answer_too_large", 413


class UnsupportedMediaType(LedgerError):
    """The body must be sent as `Content-Type: application/json`, in UTF-8 and uncompressed."""

    code, status = "unsupported_media_type", 415


class InvalidRequest(LedgerError):
    """Some part of the request breaks a rule."""

    code, status = "invalid_request", 422

    def __init__(self, *errors: FieldError) -> None:
        """Name the fields and what is wrong with each."""
        super().__init__(errors=errors)

    @property
    def detail(self) -> str:
        """The first field and its rule."""
        first = self.facts["errors"][0]
        return f"{first.field} {first.message}"


class SecretsKeyMissing(LedgerError):
    """Scrip has no key to encrypt secrets with. Whoever runs it must set SCRIP_SECRETS_KEYS."""

    code, status = "secrets_key_missing", 422


class SecretsUnreadable(LedgerError):
    """The secret cannot be decrypted: a key is missing in SCRIP_SECRETS_KEYS."""

    code, status, retryable = "secrets_unreadable", 503, True


class WebhookMalformed(LedgerError):
    """This webhook can be read in two ways, or in none."""

    code, status = "webhook_malformed", 400


class WebhookUnproven(LedgerError):
    """Nothing proves who has sent this webhook."""

    code, status = "webhook_unproven", 401


class NatsUnavailable(LedgerError):
    """NATS is away, or did not say in time that it has stored the message."""

    code, status, retryable = "nats_unavailable", 503, True


class WebhookEndpointNotFound(LedgerError):
    """The tenant has no such webhook endpoint."""

    code, status = "webhook_endpoint_not_found", 404


class WebhookSecretNotFound(LedgerError):
    """The webhook endpoint has no such secret."""

    code, status = "webhook_secret_not_found", 404


class WebhookDeliveryNotFound(LedgerError):
    """The webhook endpoint has no such delivery, or has it no more."""

    code, status = "webhook_delivery_not_found", 404


class WebhookLimitReached(LedgerError):
    """The tenant has as many webhook endpoints, or the endpoint as many secrets, as may be."""

    code, status = "webhook_limit_reached", 409


class LinkNotFound(LedgerError):
    """The tenant has no link of this owner."""

    code, status = "link_not_found", 404


class PaymentNotFound(LedgerError):
    """The tenant has no such payment."""

    code, status = "payment_not_found", 404


class AlertNotFound(LedgerError):
    """The tenant has no such alert."""

    code, status = "alert_not_found", 404


class AccountKeyNotFound(LedgerError):
    """The account has no such key, or has it no more."""

    code, status = "account_key_not_found", 404


class ReferralNotFound(LedgerError):
    """Nobody is known to have brought this account."""

    code, status = "referral_not_found", 404


class ReferralExists(LedgerError):
    """The account was brought by another: that is said once, and for good."""

    code, status = "referral_exists", 409


class SelfReferral(LedgerError):
    """Nobody brings himself, by another account of the same customer or in a circle."""

    code, status = "self_referral", 409


class ProjectionBehind(LedgerError):
    """The read side has not come to this position yet. Ask again shortly."""

    code, status, retryable = "projection_behind", 503, True


def refusals(kind: type[LedgerError] = LedgerError) -> Iterator[type[LedgerError]]:
    """Yield every kind of refusal there is."""
    for child in kind.__subclasses__():
        yield child
        yield from refusals(child)


def invalid(field: str, code: str, message: str) -> InvalidRequest:
    """Return the refusal of one field."""
    return InvalidRequest(FieldError(field, code, message))


def title(code: str) -> str:
    """Return a code as words."""
    return code.replace("_", " ").capitalize()


def document(error: LedgerError, request_id: str) -> dict[str, Any]:
    """Return a refusal as a problem document."""
    return {
        "type": TYPE_PREFIX + error.code,
        "title": title(error.code),
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "retryable": error.retryable,
        "request_id": request_id,
        **_facts(error),
    }


def encode(error: LedgerError, request_id: str) -> bytes:
    """Return the bytes of a refusal's problem document."""
    return msgspec.json.encode(document(error, request_id))


def headers(error: LedgerError) -> list[tuple[bytes, bytes]]:
    """Return the headers that go with a refusal."""
    found = []
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        found.append((b"retry-after", str(RETRY_AFTER_SECONDS).encode()))
    if isinstance(error, Unauthenticated):
        found.append((b"www-authenticate", b"Bearer"))
    if isinstance(error, MethodNotAllowed):
        found.append((b"allow", str(error.facts["allow"]).encode()))
    return found


def _facts(error: LedgerError) -> Mapping[str, Any]:
    if isinstance(error, InvalidCommand):
        rule = FieldError(error.facts["field"], "invalid", error.facts["rule"])
        return {"errors": (rule,)}
    return {
        name: _fact(value, is_amount=name in error.amounts)
        for name, value in error.facts.items()
        if name not in Problem.__struct_fields__ or name == "errors"
    }


def _fact(value: Any, *, is_amount: bool) -> Any:
    if is_amount:
        return format_decimal(value)
    return value.astimezone(UTC) if isinstance(value, datetime) else value
