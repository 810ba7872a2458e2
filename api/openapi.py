"""The description of the API in OpenAPI 3.1, made from the records that the routes are made of."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec

from api import examples, payment_examples
from api.fields import IdempotencyKey, Name, schema_hook
from api.problems import (
    BodyTooLarge,
    Forbidden,
    IdempotencyKeyRequired,
    InvalidRequest,
    MalformedRequest,
    Problem,
    RouteNotFound,
    Unauthenticated,
    UnsupportedMediaType,
    document,
)
from api.routes import READERS, Ask, Change, Hook, Nothing, Read, Route, Write
from ledger.domain.errors import (
    IdempotencyMismatch,
    InternalError,
    LedgerError,
    StoreUnavailable,
)

REF: Final = "#/components/schemas/{name}"
EXAMPLE_REF: Final = "#/components/examples/"
JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
ABOUT: Final = """\
Credits for products that sell generations: reserve, generate, capture.

Amounts are decimal strings with at most 6 places (numbers are taken where they are exact). Times
are RFC 3339 in UTC. Positions are strings: give the `position` that a write answered to a read, and
the read includes that write. Lists go on with `next_cursor` until it is null. Unknown fields and
parameters are errors. Whatever changes something takes an `Idempotency-Key`, unique per account for
ever, or per tenant where no account is concerned: the same key with the same content answers the
same again, with `Idempotent-Replayed: true`. Every answer has an `X-Request-Id`.
"""
TAGS: Final = {
    "accounts": "One balance each.",
    "grants": "Credits given, in lots.",
    "reservations": "Credits set aside for work in progress.",
    "deductions": "Spending in one step, and refunds.",
    "adjustments": "An operator's corrections.",
    "usage": "What was spent, on what, by whom.",
    "events": "The audit trail.",
    "batch": "Many commands at once.",
    "quotes": "Prices, without acting.",
    "catalog": "What features cost, and what is sold: plans and packs.",
    "webhooks": "Where payment providers send to, by which secrets they are known, and what came.",
    "links": "Which account somebody is whom a payment provider names.",
    "payments": "What was paid, what follows from it, and what a person has to put right.",
    "me": "What end users read of their own account, and the keys they do it with.",
    "providers": "What is asked of payment providers: the keys to them, and checkouts.",
    "health": "For those who run Scrip.",
}
PARTS: Final = {
    "account": ("The account's id.", "team_7"),
    "grant": ("The grant's id.", "welcome"),
    "reservation": ("The reservation's id.", "job_1"),
    "deduction": ("The deduction's id.", "job_1~1"),
    "feature": ("The feature's id.", "image"),
    "plan": ("The plan's key.", "pro"),
    "pack": ("The pack's key.", "credits_100"),
    "owner": ("Whom the provider names.", payment_examples.OWNER),
    "payment": ("The payment's key.", payment_examples.PAYMENT),
    "code": ("The alert's code.", "unknown_price"),
    "subject": ("What the alert is about.", payment_examples.PAYMENT),
    "key": ("The key's id.", payment_examples.ACCOUNT_KEY_ID),
    "endpoint": ("The webhook endpoint's id.", examples.ENDPOINT_ID),
    "secret": ("The secret's id.", examples.SECRET_ID),
    "delivery": ("The delivery's id.", examples.DELIVERY_ID),
    "payment_provider": ("The payment provider: `stripe` or `asaas`.", "stripe"),
    "provider": ("Who sends: `stripe`, `clerk`, `asaas` or `users`.", "users"),
}
MADE_PATTERNS: Final = {
    "deduction": r"^[A-Za-z0-9][A-Za-z0-9_.:@|+-]{0,127}(~[0-9]{1,9})?$",
    "grant": r"^[A-Za-z0-9][A-Za-z0-9_.:@|+-]{0,127}(~[a-z0-9]{1,12}){0,2}$",
}
HEADERS: Final = {
    "X-Request-Id": {
        "description": "The request's id: the caller's, if one was sent.",
        "schema": {"type": "string"},
    }
}
REPLAYED_HEADER: Final = {
    "description": "`true` if this is the first answer again.",
    "schema": {"type": "string", "enum": ["true"]},
}
RETRY_AFTER: Final = {
    "Retry-After": {
        "description": "Seconds to wait before asking again.",
        "schema": {"type": "integer"},
    }
}
LOCATION_HEADER: Final = {
    "description": "Where what was made can be read, if it can.",
    "schema": {"type": "string"},
}


def describe(routes: Sequence[Route], version: str) -> dict[str, Any]:
    """Return the OpenAPI document."""
    schemas = _components(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "Scrip", "version": version, "description": ABOUT},
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": about} for name, about in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "examples": _problem_examples(routes),
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key: `scrip_live_…` or `scrip_test_…`. Its tenant is"
                    " the only one it can see; its role says what it may do.",
                }
            },
        },
        "security": [{"key": []}],
    }
    as_sent: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(described))
    return as_sent


def _components(routes: Iterable[Route]) -> dict[str, Any]:
    kinds: list[Any] = [Problem]
    for route in routes:
        kinds += [kind for kind in _answers(route) if kind is not str]
        if isinstance(route, Write) or (isinstance(route, Change) and route.body is not Nothing):
            kinds.append(route.body)
        elif isinstance(route, Ask):
            kinds.append(route.description or route.body)
    _, schemas = msgspec.json.schema_components(
        dict.fromkeys(kinds), schema_hook=schema_hook, ref_template=REF
    )
    for name, example in examples.BY_TYPE.items():
        schemas[name]["examples"] = [example]
    # A problem also carries the facts of its code.
    schemas["Problem"]["additionalProperties"] = True
    return schemas


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "tags": [route.tag],
        "summary": route.summary,
        "description": _details(route),
        "parameters": [*_path_parameters(route), *_parameters(route)],
        "responses": {**_successes(route), **_problems(route)},
    }
    if route.roles is None:
        operation["security"] = []
    if isinstance(route, Write | Ask | Hook) or (
        isinstance(route, Change) and route.body is not Nothing
    ):
        operation["requestBody"] = _request_body(route)
    return operation


def _details(route: Route) -> str:
    roles = "Needs no key." if route.roles is None else f"Roles: {', '.join(sorted(route.roles))}."
    return f"{route.details} {roles}".strip()


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    name_schema = msgspec.json.schema(Name)
    parameters = []
    for part in re.findall(r"{(\w+)}", route.path):
        about, example = PARTS[part]
        made = MADE_PATTERNS.get(part)
        parameters.append(
            {
                "name": part,
                "in": "path",
                "required": True,
                "description": about,
                "schema": name_schema if made is None else {"type": "string", "pattern": made},
                "example": example,
            }
        )
    return parameters


def _parameters(route: Route) -> list[dict[str, Any]]:
    if isinstance(route, Read):
        return _query_parameters(route.query)
    if isinstance(route, Write | Change):
        schema = msgspec.json.schema(IdempotencyKey)
        about = schema.pop("description")
        if isinstance(route, Change):
            about = about.replace("account", "tenant")
        return [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": True,
                "description": about,
                "schema": schema,
                "example": "order-1042",
            }
        ]
    return []


def _query_parameters(query: type[Any]) -> list[dict[str, Any]]:
    _, components = msgspec.json.schema_components((query,), schema_hook=schema_hook)
    schema = components[query.__name__]
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            **({"description": member.pop("description")} if "description" in member else {}),
            "schema": _without_null(member),
        }
        for name, member in schema["properties"].items()
    ]


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter: one that is not given is not null, it is not there."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    rest = {name: value for name, value in schema.items() if name != "anyOf"}
    if rest.get("default", 0) is None:
        del rest["default"]
    if "enum" in rest:
        rest["enum"] = [value for value in rest["enum"] if value is not None]
    if len(kinds) == 1:
        return {**kinds[0], **rest}
    return {**rest, "anyOf": kinds} if kinds else rest


def _request_body(route: Write | Change | Ask | Hook) -> dict[str, Any]:
    if isinstance(route, Hook):
        schema = {"type": "object", "description": "As the sender has it."}
        return {"required": True, "content": {JSON: {"schema": schema}}}
    kind = (route.description or route.body) if isinstance(route, Ask) else route.body
    required = True if isinstance(route, Ask) else route.body_required
    content: dict[str, Any] = {"schema": {"$ref": REF.format(name=kind.__name__)}}
    example = examples.BY_TYPE.get(kind.__name__)
    if example is not None:
        content["example"] = example
    return {"required": required, "content": {JSON: content}}


def _answers(route: Route) -> tuple[Any, ...]:
    return route.answer if isinstance(route.answer, tuple) else (route.answer,)


def _successes(route: Route) -> dict[str, Any]:
    statuses = route.statuses if isinstance(route, Write) else (200,)
    if isinstance(route, Change):
        statuses = (route.status,)
    headers: dict[str, Any] = dict(HEADERS)
    if not isinstance(route, Read | Hook):
        headers["Idempotent-Replayed"] = REPLAYED_HEADER
    responses = {}
    for status in statuses:
        unlocated = isinstance(route, Change) and route.location is None
        located = status == HTTPStatus.CREATED and not unlocated
        extra = {"Location": LOCATION_HEADER} if located else {}
        responses[str(status)] = {
            "description": inspect.cleandoc(_answers(route)[0].__doc__ or "")
            if route.answer is not str
            else "Metrics, as Prometheus reads them.",
            "headers": {**headers, **extra},
            "content": _content(route),
        }
    if isinstance(route, Read) and not route.money and route.roles is not None:
        responses["304"] = {"description": "Nothing has changed since the ETag was given."}
    if route.name == "ready":
        responses["503"] = {"description": "Not ready.", "content": _content(route)}
    return responses


def _content(route: Route) -> dict[str, Any]:
    kinds = _answers(route)
    if kinds == (str,):
        return {"text/plain": {"schema": {"type": "string"}}}
    schemas = [{"$ref": REF.format(name=kind.__name__)} for kind in kinds]
    content: dict[str, Any] = {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
    example = examples.BY_TYPE.get(kinds[0].__name__)
    if example is not None:
        content["example"] = example
    return {JSON: content}


def refusals_of(route: Route) -> tuple[type[LedgerError], ...]:
    """Return every way in which a request to this route can be refused, bugs included."""
    found: list[type[LedgerError]] = []
    if route.roles is not None:
        found += [Unauthenticated, StoreUnavailable]
        if route.roles != READERS:
            found.append(Forbidden)
    if "{" in route.path:
        found.append(RouteNotFound)
    if isinstance(route, Write | Change | Ask):
        found += [MalformedRequest, UnsupportedMediaType, BodyTooLarge]
    if isinstance(route, Write | Change):
        found.append(IdempotencyKeyRequired)
    if isinstance(route, Change):
        found.append(IdempotencyMismatch)
    found += [InvalidRequest, *route.refusals, InternalError]
    return tuple(dict.fromkeys(found))


def _problems(route: Route) -> dict[str, Any]:
    by_status: dict[int, dict[str, type[LedgerError]]] = {}
    for refusal in refusals_of(route):
        by_status.setdefault(refusal.status, {})[refusal.code] = refusal
    return {
        str(status): {
            "description": " ".join(f"`{code}`: {_message(kinds[code])}" for code in kinds),
            "headers": HEADERS | (RETRY_AFTER if status == HTTPStatus.SERVICE_UNAVAILABLE else {}),
            "content": {
                PROBLEM: {
                    "schema": {"$ref": REF.format(name="Problem")},
                    "examples": {code: {"$ref": EXAMPLE_REF + code} for code in kinds},
                }
            },
        }
        for status, kinds in sorted(by_status.items())
    }


def _message(refusal: type[LedgerError]) -> str:
    return inspect.cleandoc(refusal.__doc__ or "").splitlines()[0]


def _problem_examples(routes: Iterable[Route]) -> dict[str, Any]:
    kinds = {kind.code: kind for route in routes for kind in refusals_of(route)}
    request_id = "req_6f1d2a9c04b7e8135a2c90de"
    return {
        code: {"value": document(examples.refusal(kind), request_id)}
        for code, kind in sorted(kinds.items())
    }
