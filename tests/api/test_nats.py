"""Requests over NATS: the commands and the answers of HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from nats.errors import NoRespondersError

from api.batch import BATCHED
from api.problems import CONTENT_TYPE
from scrip.embedded import EmbeddedNats, EmbeddedPostgres
from tests.api.nats_room import (
    REQUEST_SECONDS_MAX,
    Asker,
    answer_of,
    asking,
    headers_for,
    until_nats_is,
    way_to,
)
from tests.api.room import MIB, Service, Tenant, fresh
from tests.api.writes import USES

OPS = {write.op: write for write in BATCHED}


@pytest.fixture(scope="module")
def service(nats_service: Service) -> Service:
    """Let the tenants of these tests be of the service that answers over NATS."""
    return nats_service


def request_of(op: str, account: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return the body of a route, and beside it the names in its path."""
    write = OPS[op]
    names = {"account": account.rpartition("/")[2]}
    if write.target is not None:
        at = USES[write.name].at(account).removeprefix(account).split("/")
        names[write.target] = at[2]
    return {**names, **body}


# -- the same as over HTTP ------------------------------------------------------------------------


@pytest.mark.parametrize("op", OPS)
def test_a_command_is_answered_with_the_bytes_of_http(tenant: Tenant, nats: Asker, op: str) -> None:
    write = OPS[op]
    use = USES[write.name]
    account = tenant.account("10")
    use.prepare(tenant, account)
    key = fresh("key")
    first = nats.ask(tenant, op, request_of(op, account, use.body), key=key, role="admin")
    over_http = tenant.admin.send(write.method, use.at(account), use.body, key=key)
    again = nats.ask(tenant, op, request_of(op, account, use.body), key=key, role="admin")
    assert first.status in write.statuses
    assert first.raw == over_http.raw == again.raw
    assert first.status == over_http.status == again.status
    assert "idempotent-replayed" not in first.headers
    assert over_http.headers["idempotent-replayed"] == "true"
    assert again.headers["idempotent-replayed"] == "true"
    assert "nats-service-error-code" not in again.headers


@pytest.mark.parametrize("op", OPS)
def test_what_was_done_over_http_is_found_again_by_its_key(
    tenant: Tenant, nats: Asker, op: str
) -> None:
    write = OPS[op]
    use = USES[write.name]
    account = tenant.account("10")
    use.prepare(tenant, account)
    key = fresh("key")
    first = tenant.admin.send(write.method, use.at(account), use.body, key=key)
    again = nats.ask(tenant, op, request_of(op, account, use.body), key=key, role="admin")
    assert (again.status, again.raw) == (first.status, first.raw)
    other = nats.ask(tenant, op, request_of(op, account, use.other), key=key, role="admin")
    assert (other.status, other.code) == (422, "idempotency_mismatch")


def test_a_batch_is_answered_with_the_bytes_of_http(tenant: Tenant, nats: Asker) -> None:
    name = tenant.account("10").rpartition("/")[2]
    commands = [
        {"op": "reserve", "account": name, "key": "b1", "id": "r", "amount": "2"},
        {"op": "capture", "account": name, "key": "b2", "reservation": "r", "amount": "1"},
        {"op": "deduct", "account": name, "key": "b3", "amount": "100"},
    ]
    request_id = {"X-Request-Id": "one"}
    first = nats.ask(tenant, "batch", {"commands": commands}, headers=request_id)
    over_http = tenant.service.send("POST", "/v1/batch", {"commands": commands}, headers=request_id)
    assert [result["status"] for result in first.body["results"]] == [201, 200, 402]
    assert first.raw == over_http.raw
    again = nats.ask(tenant, "batch", {"commands": commands[:2]})
    assert again.headers["idempotent-replayed"] == "true"


def test_a_balance_can_be_read_as_of_a_position(tenant: Tenant, nats: Asker) -> None:
    account = tenant.account("10")
    name = account.rpartition("/")[2]
    position = nats.ask(tenant, "deduct", {"account": name, "amount": "3"}).body["position"]
    for more in ({"position": position}, {"position": int(position)}, {"consistency": "strong"}):
        answer = nats.ask(tenant, "balance", {"account": name, **more}, role="reader")
        assert (answer.status, answer.body["available"]) == (200, "7")
    over_http = tenant.reader.get(f"{account}/balance", position=position)
    assert {**over_http.body, "as_of": None} == {**answer.body, "as_of": None}


def test_a_tenant_with_a_dot_is_one_token(service: Service, nats: Asker) -> None:
    tenant = service.tenant(f"{fresh('acme')}.eu")
    assert nats.ask(tenant, "put_account", {"account": "a"}).status == 201
    tenant.close()


# -- refusals -------------------------------------------------------------------------------------


def refuse(op: str, body: object, **sent: Any) -> tuple[str, object, dict[str, Any]]:
    return op, body, sent


REFUSED = {
    "idempotency_key_required": refuse("deduct", {"amount": "1"}, key="two words"),
    "unauthenticated": refuse("deduct", {"amount": "1"}, headers={"Authorization": "Bearer no"}),
    "forbidden": refuse("deduct", {"amount": "1"}, role="reader"),
    "malformed_request": refuse("deduct", b'{"amount": "1", "amount": "2"}'),
    "body_too_large": refuse("deduct", b" " * (MIB // 2 + 1)),
    "insufficient_credits": refuse("deduct", {"amount": "11"}),
    "invalid_request": refuse("deduct", {"amount": "1", "amuont": "1"}),
    "reservation_not_found": refuse("release", {"reservation": "none"}),
}


@pytest.fixture(scope="module")
def strict(
    postgres_server: EmbeddedPostgres, api_template: str, own_nats_module: EmbeddedNats
) -> Iterator[tuple[Service, Asker]]:
    """Run a service that takes short bodies only, and ask it over NATS."""
    urls = postgres_server.create_database(fresh("api_nats"), api_template)
    settings = {"nats": way_to(own_nats_module.url), "body_bytes_max": MIB // 2}
    with Service(urls, **settings) as running, asking(own_nats_module.url) as asker:
        until_nats_is(running)
        yield running, asker
    postgres_server.drop_database(urls.name)


@pytest.fixture(scope="module")
def own_nats_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedNats]:
    """Run a nats-server that no other service answers on."""
    with EmbeddedNats(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.mark.parametrize("code", REFUSED)
def test_a_refusal_is_the_problem_of_http(strict: tuple[Service, Asker], code: str) -> None:
    service, asker = strict
    tenant = service.tenant()
    account = tenant.account("10")
    op, body, sent = REFUSED[code]
    payload, over_http = body, body
    if isinstance(body, dict):
        payload = {"account": account.rpartition("/")[2], **body}
        over_http = {name: value for name, value in body.items() if name != "reservation"}
    headers = {"X-Request-Id": "one", **sent.get("headers", {})}
    role, key = sent.get("role", "service"), sent.get("key", "k")
    answer = asker.ask(tenant, op, payload, role=role, key=key, headers=headers)
    path = {"deduct": "/deductions", "release": "/reservations/none/release"}[op]
    more = {"content": over_http} if isinstance(over_http, bytes) else {"json": over_http}
    expected = tenant.as_role(role).send(
        "POST",
        account + path,
        key=key,
        headers={"Content-Type": "application/json", **headers},
        **more,
    )
    assert (answer.code, answer.status) == (code, expected.status)
    assert answer.raw == expected.raw
    assert answer.headers["nats-service-error-code"] == str(expected.status)
    assert answer.headers["nats-service-error"] == code
    assert answer.headers["content-type"] == CONTENT_TYPE.decode()
    assert answer.headers["x-request-id"] == "one"
    tenant.close()


def test_a_key_opens_no_other_tenant(service: Service, tenant: Tenant, nats: Asker) -> None:
    other = service.tenant()
    name = other.account("10").rpartition("/")[2]
    stolen = headers_for(tenant)
    answer = nats.ask(other, "deduct", {"account": name, "amount": "1"}, headers=stolen)
    assert (answer.status, answer.code) == (403, "wrong_tenant")
    read = nats.ask(other, "balance", {"account": name}, headers=stolen)
    assert (read.status, read.code) == (403, "wrong_tenant")
    assert (
        other.reader.get(f"/v1/accounts/{name}/balance", consistency="strong").body["available"]
        == "10"
    )
    other.close()


def test_a_request_without_headers_is_refused(tenant: Tenant, nats: Asker) -> None:
    subject = f"scrip.{tenant.name}.ledger.reserve"
    answer = answer_of(nats.run(nats.client.request(subject, b"{}", timeout=REQUEST_SECONDS_MAX)))
    assert (answer.status, answer.code) == (401, "unauthenticated")
    answer = nats.ask(tenant, "reserve", {"amount": "1"}, headers={"Idempotency-Key": ""})
    assert (answer.status, answer.code) == (400, "idempotency_key_required")


@pytest.mark.parametrize(
    ("op", "body", "wrong"),
    [
        ("reserve", {"amount": "1"}, ("account", "required")),
        ("capture", {"account": "a", "amount": "1"}, ("reservation", "required")),
        ("reserve", {"account": "a/b", "amount": "1"}, ("account", "invalid")),
        ("refund", {"account": "a", "deduction": "d~x", "reason": "r"}, ("deduction", "invalid")),
        ("reserve", {"account": "a", "key": "k", "amount": "1"}, ("key", "unknown")),
        ("reserve", [], ("body", "invalid")),
        ("batch", {"commands": []}, ("commands", "invalid")),
        ("balance", {}, ("account", "required")),
        ("balance", {"account": 5}, ("account", "invalid")),
        ("balance", {"account": "a", "position": None}, ("position", "invalid")),
        ("balance", {"account": "a", "positoin": "1"}, ("positoin", "unknown")),
        ("balance", [], ("body", "invalid")),
    ],
)
def test_what_is_wrong_with_the_body_is_named(
    tenant: Tenant, nats: Asker, op: str, body: object, wrong: tuple[str, str]
) -> None:
    answer = nats.ask(tenant, op, body)
    assert (answer.status, answer.code) == (422, "invalid_request")
    assert (answer.body["errors"][0]["field"], answer.body["errors"][0]["code"]) == wrong


def test_names_of_headers_may_be_in_any_case(tenant: Tenant, nats: Asker) -> None:
    name = tenant.account("10").rpartition("/")[2]
    headers = {key.lower(): value for key, value in headers_for(tenant).items()}
    subject = f"scrip.{tenant.name}.ledger.deduct"
    body = msgspec.json.encode({"account": name, "amount": "1"})
    asked = nats.client.request(subject, body, timeout=REQUEST_SECONDS_MAX, headers=headers)
    assert answer_of(nats.run(asked)).status == 201


def test_an_unknown_command_has_no_responder(tenant: Tenant, nats: Asker) -> None:
    with pytest.raises(NoRespondersError):
        nats.ask(tenant, "spend", {})


def test_an_answer_that_nats_does_not_carry_says_so(tenant: Tenant, nats: Asker) -> None:
    name = tenant.account("1000").rpartition("/")[2]
    commands = [
        {
            "op": "reserve",
            "account": name,
            "key": f"k{number}",
            "amount": "1",
            "metadata": {"note": "x" * 400, "more": "x" * 300},
        }
        for number in range(1_000)
    ]
    answer = nats.ask(tenant, "batch", {"commands": commands})
    assert (answer.status, answer.code) == (413, "answer_too_large")
    parts = [
        nats.ask(tenant, "batch", {"commands": commands[place : place + 500]}) for place in (0, 500)
    ]
    for part in parts:
        assert part.headers["idempotent-replayed"] == "true"
        assert {result["status"] for result in part.body["results"]} == {201}


def test_a_bug_tells_nothing_and_is_an_answer(
    service: Service, tenant: Tenant, nats: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    body = {"account": "a"}
    monkeypatch.setattr(service.writer, "pending", broken)
    monkeypatch.setattr(service.writer, "view", broken)
    for op in ("put_account", "balance"):
        answer = nats.ask(tenant, op, body)
        assert (answer.status, answer.code) == (500, "internal_error")
        assert "secret" not in str(answer.body)


# -- what nobody could read ------------------------------------------------------------------------


def test_a_command_whose_answer_nobody_could_read_is_not_done(tenant: Tenant, nats: Asker) -> None:
    """With the address of another's request for its answer, Scrip would have published that."""
    account = tenant.account("10")
    body = msgspec.json.encode({"account": account.rpartition("/")[2], "amount": "1"})

    async def publish() -> None:
        for reply in ("", "$JS.API.STREAM.PURGE.GENERATION", "scrip.x.generation.started"):
            await nats.client.publish(
                f"scrip.{tenant.name}.ledger.deduct", body, reply=reply, headers=headers_for(tenant)
            )

    nats.run(publish())
    # Of one subject, requests come in their order.
    done = nats.ask(tenant, "deduct", {**msgspec.json.decode(body), "amount": "2"})
    assert done.body["balance"]["available"] == "8"
