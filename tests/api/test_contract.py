"""Whatever is sent, the answer is one that the description of the API announces."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.app import ROUTES
from api.openapi import describe
from tests.api.room import Service, Tenant

DOCUMENT = describe(ROUTES, "0.1.0")
EXAMPLES_MAX = 12
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
schema = schemathesis.openapi.from_dict(DOCUMENT)


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    """Return one session for all requests: else each opens a connection of its own."""
    with requests.Session() as session:
        yield session


@pytest.fixture(scope="module")
def known(service: Service) -> Iterator[Tenant]:
    """Return a tenant that has what the examples name."""
    tenant = service.tenant()
    account = tenant.account("1000000", name="team_7")
    tenant.service.post(f"{account}/reservations", {"id": "job_1", "amount": "10"})
    tenant.service.post(f"{account}/grants", {"id": "welcome", "amount": "1", "kind": "paid"})
    tenant.service.post(f"{account}/reservations/job_1/capture", {"amount": "1", "final": False})
    tenant.admin.put("/v1/catalog/features/image", {"name": "Image", "unit_price": "1"})
    yield tenant
    tenant.close()


@schema.parametrize()
@settings(
    max_examples=EXAMPLES_MAX,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_one_that_was_announced(
    case: schemathesis.Case, service: Service, known: Tenant, session: requests.Session
) -> None:
    headers = {"Authorization": f"Bearer {known.admin.secret}"}
    case.call_and_validate(
        base_url=service.base_url, headers=headers, session=session, checks=CHECKS
    )
