"""Many commands in one request: each with its own answer, and none in the way of another."""

from __future__ import annotations

import httpx

from tests.api.room import MIB, Tenant


def _reserve(number: int, account: str, amount: str = "1") -> dict[str, str]:
    return {
        "op": "reserve",
        "account": account,
        "key": f"k{number}",
        "id": f"r{number}",
        "amount": amount,
    }


def test_a_thousand_commands_get_a_thousand_answers_in_order(tenant: Tenant) -> None:
    tenant.account("990", name="a")
    commands = [_reserve(number, "a") for number in range(1_000)]
    results = tenant.service.send("POST", "/v1/batch", {"commands": commands}).body["results"]
    assert [result["status"] for result in results] == [201] * 990 + [402] * 10
    assert [result["body"]["id"] for result in results[:990]] == [f"r{n}" for n in range(990)]
    assert results[-1]["body"]["code"] == "insufficient_credits"
    position = results[989]["body"]["position"]
    balance = tenant.service.get("/v1/accounts/a/balance", position=position).body
    assert (balance["available"], balance["reserved"]) == ("0", "990")


def test_the_same_batch_again_gets_the_same_bytes(tenant: Tenant) -> None:
    tenant.account("10", name="a")
    batch = {"commands": [_reserve(number, "a") for number in range(5)]}
    first = tenant.service.send("POST", "/v1/batch", batch)
    again = tenant.service.send("POST", "/v1/batch", batch)
    assert first.status == again.status == 200
    assert first.raw == again.raw
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    alone = tenant.service.post(
        "/v1/accounts/a/reservations", {"id": "r3", "amount": "1"}, key="k3"
    )
    assert alone.body == first.body["results"][3]["body"]
    assert alone.headers["idempotent-replayed"] == "true"


def test_a_bad_command_is_a_result_and_touches_no_other(tenant: Tenant) -> None:
    tenant.account("10", name="a")
    good = _reserve(1, "a")
    commands = [
        {**good, "amount": "-1"},
        {**good, "op": "rob"},
        {**good, "tenant": "x"},
        {name: value for name, value in good.items() if name != "key"},
        {**good, "key": "a b"},
        {**good, "account": "a/b"},
        {**good, "job": "\0"},
        5,
        {"op": "capture", "account": "a", "key": "c", "amount": "1"},
        {"op": "refund", "account": "a", "key": "f", "deduction": "d~x", "reason": "r"},
        {"op": "deduct", "account": "nobody", "key": "d", "amount": "1"},
        {"op": "adjust", "account": "a", "key": "j", "amount": "1", "reason": "r"},
        good,
    ]
    results = tenant.service.send("POST", "/v1/batch", {"commands": commands}).body["results"]
    statuses = [result["status"] for result in results]
    assert statuses == [422] * 10 + [404, 403, 201]
    fields = [result["body"]["errors"][0]["field"] for result in results[:10]]
    assert fields == [
        "amount",
        "op",
        "tenant",
        "key",
        "key",
        "account",
        "job",
        "body",
        "reservation",
        "deduction",
    ]


def test_every_command_there_is_goes_into_a_batch(tenant: Tenant) -> None:
    at = {"account": "a"}
    commands = [
        {"op": "put_account", **at, "label": "A"},
        {"op": "grant", **at, "id": "g", "amount": "10", "kind": "paid"},
        {"op": "reserve", **at, "id": "r", "amount": "4"},
        {"op": "extend", **at, "reservation": "r", "amount": "1"},
        {"op": "capture", **at, "reservation": "r", "amount": "2"},
        {"op": "refund", **at, "deduction": "r~1", "reason": "bad"},
        {"op": "reserve", **at, "id": "s", "amount": "1"},
        {"op": "release", **at, "reservation": "s"},
        {"op": "deduct", **at, "id": "d", "amount": "1"},
        {"op": "adjust", **at, "amount": "1", "reason": "r"},
        {"op": "revoke", **at, "grant": "g"},
    ]
    keyed = [{**command, "key": f"k{n}"} for n, command in enumerate(commands)]
    results = tenant.admin.send("POST", "/v1/batch", {"commands": keyed}).body["results"]
    statuses = [result["status"] for result in results]
    assert statuses == [201, 201, 201, 200, 200, 201, 201, 200, 201, 201, 200]
    assert results[-1]["body"]["balance"]["available"] == "1"


def test_a_batch_has_its_limits(tenant: Tenant) -> None:
    for commands in ([], [{}] * 1_001):
        answer = tenant.service.send("POST", "/v1/batch", {"commands": commands})
        assert (answer.status, answer.body["errors"][0]["field"]) == (422, "commands")
    large = tenant.service.send("POST", "/v1/batch", {"commands": ["x" * (3 * MIB)]})
    assert large.status == 200
    try:
        beyond = tenant.service.send("POST", "/v1/batch", {"commands": ["x" * (5 * MIB)]})
    except httpx.WriteError:
        return  # The server had hung up before it had it all.
    assert beyond.code == "body_too_large"
