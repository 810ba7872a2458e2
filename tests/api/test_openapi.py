"""The description of the API says what the API does, and its examples are true."""

from __future__ import annotations

import re
from typing import Any

import jsonschema_rs
import pytest

from api.app import ROUTES
from api.examples import BY_TYPE
from api.openapi import describe, refusals_of
from api.routes import Ask, Change, Nothing, Read, Write
from tests.api.room import Tenant

DOCUMENT = describe(ROUTES, "0.1.0")
OPERATIONS = [
    (path, method, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]


def _validator(name: str) -> Any:
    schema = {
        "$ref": f"#/components/schemas/{name}",
        "components": {"schemas": DOCUMENT["components"]["schemas"]},
    }
    return jsonschema_rs.validator_for(schema)


def test_it_is_served_and_is_that_of_the_routes(tenant: Tenant) -> None:
    served = tenant.admin.send("GET", "/openapi.json", headers={"Authorization": ""})
    assert served.status == 200
    assert served.body == DOCUMENT
    assert {operation["operationId"] for _, _, operation in OPERATIONS} == {
        route.name for route in ROUTES
    }


def test_no_page_loads_scripts_from_elsewhere(tenant: Tenant) -> None:
    assert tenant.admin.get("/docs").status == 404
    assert tenant.admin.get("/redoc").status == 404


@pytest.mark.parametrize("name", BY_TYPE)
def test_an_example_is_what_its_schema_says(name: str) -> None:
    _validator(name).validate(BY_TYPE[name])


def test_problems_are_what_their_schema_says() -> None:
    validator = _validator("Problem")
    for code, example in DOCUMENT["components"]["examples"].items():
        validator.validate(example["value"])
        assert example["value"]["code"] == code


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_every_route_is_described_in_full(route: Any) -> None:
    operation = DOCUMENT["paths"][route.path][route.method.lower()]
    assert operation["summary"]
    assert operation["description"]
    for parameter in operation["parameters"]:
        assert parameter["schema"]
    parts = re.findall(r"{(\w+)}", route.path)
    described = [one["name"] for one in operation["parameters"] if one["in"] == "path"]
    assert described == parts
    statuses = set(operation["responses"])
    assert {str(refusal.status) for refusal in refusals_of(route)} <= statuses
    if isinstance(route, Write | Change):
        names = [one["name"] for one in operation["parameters"] if one.get("required")]
        assert "Idempotency-Key" in names
    if isinstance(route, Write) or (isinstance(route, Change) and route.body is not Nothing):
        assert "example" in operation["requestBody"]["content"]["application/json"]
    for status, response in operation["responses"].items():
        assert response["description"], status
        if status.startswith("2") and route.answer is not str:
            assert "example" in response["content"]["application/json"]
    if isinstance(route, Read | Ask) and route.roles is not None:
        assert "security" not in operation


def test_all_references_lead_somewhere() -> None:
    def refs(value: Any) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
            return own.union(*map(refs, value.values()))
        if isinstance(value, list):
            return set().union(*map(refs, value))
        return set()

    for ref in refs(DOCUMENT):
        place: Any = DOCUMENT
        for step in ref.removeprefix("#/").split("/"):
            place = place[step]
