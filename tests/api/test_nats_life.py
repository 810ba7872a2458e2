"""Being found, being cut off, being stopped: a service on NATS that can be relied on."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from typing import Any
from urllib.parse import urlparse

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError

from api.batch import BATCHED
from consumers.streams import LEDGER, LEDGER_SUBJECTS, ensure_streams, jetstream, ledger_subject
from scrip.embedded import DatabaseUrls, EmbeddedNats
from tests.api.nats_room import (
    REQUEST_SECONDS_MAX,
    RUN_SECONDS_MAX,
    Asker,
    answer_of,
    asking,
    headers_for,
    until_nats_is,
    way_to,
)
from tests.api.room import Service, Tenant

ENDPOINTS = sorted({*(str(write.op) for write in BATCHED), "batch", "balance"})


@pytest.fixture(scope="module")
def service(nats_service: Service) -> Service:
    """Let the tenants of these tests be of the service that answers over NATS."""
    return nats_service


# -- being found ----------------------------------------------------------------------------------


def srv(nats: Asker, verb: str) -> dict[str, Any]:
    subject = f"$SRV.{verb}.scrip-ledger"
    answer = nats.run(nats.client.request(subject, timeout=REQUEST_SECONDS_MAX))
    decoded: dict[str, Any] = msgspec.json.decode(answer.data)
    return decoded


def test_it_is_found_by_the_tools_of_nats(tenant: Tenant, nats: Asker) -> None:
    ping = srv(nats, "PING")
    assert (ping["type"], ping["version"]) == ("io.nats.micro.v1.ping_response", "0.1.0")
    info = srv(nats, "INFO")
    assert info["id"] == ping["id"]
    assert {one["name"] for one in info["endpoints"]} == set(ENDPOINTS)
    for one in info["endpoints"]:
        assert one["subject"] == f"scrip.*.ledger.{one['name']}"
        assert one["queue_group"] == "scrip"
        assert " /v1/" in one["metadata"]["http"]
    before = counts(nats, "release")
    for _ in range(3):
        nats.ask(tenant, "release", {"account": "none", "reservation": "none"})
    after = counts(nats, "release")
    assert after["num_requests"] - before["num_requests"] == 3
    assert after["num_errors"] - before["num_errors"] == 3
    assert after["last_error"] == "404:account_not_found"
    # The time of a request is that until its answer, not until it was handed on.
    assert after["average_processing_time"] > 100_000


def counts(nats: Asker, name: str) -> dict[str, Any]:
    (found,) = (one for one in srv(nats, "STATS")["endpoints"] if one["name"] == name)
    return dict(found)


def test_requests_are_counted_and_health_tells_of_the_connection(
    tenant: Tenant, nats: Asker
) -> None:
    nats.ask(tenant, "put_account", {"account": "a"})
    label = 'method="NATS",route="scrip.{tenant}.ledger.put_account",status="201"'
    metrics = tenant.admin.get("/metrics").body
    assert f"scrip_http_requests_total{{{label}}}" in metrics
    assert "scrip_nats_connected 1.0" in metrics
    ready = tenant.admin.get("/health/ready")
    assert (ready.status, ready.body["checks"]["nats"]) == (200, "ok")


# -- beside JetStream -----------------------------------------------------------------------------


def test_the_ledger_s_stream_swallows_no_request(tenant: Tenant, nats: Asker) -> None:
    async def prepare() -> int:
        js = jetstream(nats.client)
        await ensure_streams(js)
        await js.publish(ledger_subject(tenant.name, "credits.granted.v1"), b"{}")
        messages = (await js.stream_info(LEDGER)).state.messages
        assert messages > 0
        return messages

    async def stored() -> int:
        messages = (await jetstream(nats.client).stream_info(LEDGER)).state.messages
        await jetstream(nats.client).delete_stream(LEDGER)
        return messages

    before = nats.run(prepare())
    for _ in range(10):
        assert nats.ask(tenant, "put_account", {"account": "a"}).body["id"] == "a"
    assert nats.run(stored()) == before


def test_while_a_stream_would_swallow_requests_none_are_taken(
    own_database: DatabaseUrls, own_nats: EmbeddedNats
) -> None:
    with asking(own_nats.url) as asker:
        js = jetstream(asker.client)
        asker.run(js.add_stream(name=LEDGER, subjects=["scrip.*.ledger.>"]))
        with Service(own_database, nats=way_to(own_nats.url)) as service:
            why = "the stream LEDGER takes scrip.*.ledger.*, and JetStream would answer"
            until_nats_is(service, why)
            tenant = service.tenant()
            assert tenant.admin.get("/health/ready").body["checks"]["nats"] == why
            asker.run(js.update_stream(name=LEDGER, subjects=[LEDGER_SUBJECTS]))
            until_nats_is(service)
            asker.until_answered()
            assert asker.ask(tenant, "put_account", {"account": "a"}).status == 201
            # One that comes while requests are answered is noticed after a reconnect at last.
            asker.run(js.add_stream(name="ARCHIVE", subjects=["scrip.*.ledger.*"]))
            own_nats.stop()
            own_nats.start()
            until_nats_is(service, why.replace("LEDGER", "ARCHIVE"))
            asker.run(js.delete_stream("ARCHIVE"))
            until_nats_is(service)
            asker.until_answered()
            assert asker.ask(tenant, "put_account", {"account": "a"}).status == 200
            tenant.close()


# -- what is asked at once ------------------------------------------------------------------------


def flood(asker: Asker, tenant: Tenant, account: str, count: int) -> list[Any]:
    """Ask for `count` deductions at once; return the answers, or why there was none."""

    async def ask() -> list[Any]:
        return await asyncio.gather(
            *(
                asker.client.request(
                    f"scrip.{tenant.name}.ledger.deduct",
                    msgspec.json.encode({"account": account, "amount": "1"}),
                    timeout=REQUEST_SECONDS_MAX,
                    headers=headers_for(tenant, key=f"flood-{number}"),
                )
                for number in range(count)
            ),
            return_exceptions=True,
        )

    return asker.run(ask())


def test_two_processes_share_the_requests(
    own_database: DatabaseUrls, own_nats: EmbeddedNats
) -> None:
    with (
        Service(own_database, nats=way_to(own_nats.url)) as one,
        Service(own_database, nats=way_to(own_nats.url)) as other,
        asking(own_nats.url) as asker,
    ):
        until_nats_is(one)
        until_nats_is(other)
        tenant = one.tenant()
        account = tenant.account("1000").rpartition("/")[2]
        answers = [answer_of(message) for message in flood(asker, tenant, account, 200)]
        assert {answer.status for answer in answers} == {201}
        assert len({answer.body["position"] for answer in answers}) == 200
        assert one.writer.stats.commands > 20
        assert other.writer.stats.commands > 20
        tenant.close()


def test_more_requests_than_may_be_worked_on_are_refused_and_not_kept_waiting(
    own_database: DatabaseUrls, own_nats: EmbeddedNats
) -> None:
    with (
        Service(own_database, nats=way_to(own_nats.url, requests_max=10)) as service,
        asking(own_nats.url) as asker,
    ):
        until_nats_is(service)
        tenant = service.tenant()
        account = tenant.account("1000").rpartition("/")[2]
        answers = [answer_of(message) for message in flood(asker, tenant, account, 300)]
        refused = [answer for answer in answers if answer.status == 503]
        assert {answer.code for answer in refused} == {"overloaded"}
        assert {answer.headers["retry-after"] for answer in refused} == {"1"}
        done = len(answers) - len(refused)
        assert 0 < done < 300
        left = tenant.reader.get(f"/v1/accounts/{account}/balance", consistency="strong")
        assert left.body["available"] == str(1_000 - done)
        service.writer._backlog._most = 0
        full = asker.ask(tenant, "deduct", {"account": account, "amount": "1"})
        assert (full.status, full.code) == (503, "overloaded")
        tenant.close()


def test_what_has_been_asked_is_answered_before_the_end(
    own_database: DatabaseUrls, own_nats: EmbeddedNats
) -> None:
    with asking(own_nats.url) as asker:
        service = Service(own_database, nats=way_to(own_nats.url))
        with service:
            until_nats_is(service)
            tenant = service.tenant()
            account = tenant.account("1000000").rpartition("/")[2]
            asked: list[asyncio.Task[Msg]] = []
            ended = threading.Event()

            async def ask_on() -> list[Any]:
                while not (ended.is_set() and asked[-1].done()):
                    request = asker.client.request(
                        f"scrip.{tenant.name}.ledger.deduct",
                        msgspec.json.encode({"account": account, "amount": "1"}),
                        timeout=REQUEST_SECONDS_MAX,
                        headers=headers_for(tenant, key=f"k{len(asked)}"),
                    )
                    asked.append(asyncio.create_task(request))
                    await asyncio.sleep(0.001)
                return await asyncio.gather(*asked, return_exceptions=True)

            asking_on = asyncio.run_coroutine_threadsafe(ask_on(), asker.loop)
            while sum(task.done() for task in list(asked)) < 100:
                assert not asking_on.done(), asking_on.result()
                time.sleep(0.01)
        ended.set()
        results = asking_on.result(RUN_SECONDS_MAX)
        kinds = {type(result) for result in results}
        # Whoever asked later was told at once that nobody is there.
        assert NoRespondersError in kinds
        assert NatsTimeoutError not in kinds
        answers = [answer_of(one) for one in results if not isinstance(one, BaseException)]
        assert answers
        assert {answer.status for answer in answers} == {201}
        tenant.close()


# -- what comes and goes --------------------------------------------------------------------------


def test_nats_may_be_away_at_the_start_and_in_the_middle(
    own_database: DatabaseUrls, own_nats: EmbeddedNats
) -> None:
    own_nats.stop()
    with Service(own_database, nats=way_to(own_nats.url)) as service:
        tenant = service.tenant()
        account = tenant.account("10")
        ready = tenant.admin.get("/health/ready")
        assert (ready.status, ready.body["checks"]["nats"]) == (200, "is not connected")
        own_nats.start()
        until_nats_is(service)
        body = {"account": account.rpartition("/")[2], "amount": "1"}
        with asking(own_nats.url) as asker:
            asker.until_answered()
            first = asker.ask(tenant, "deduct", body, key="k")
            own_nats.stop()
            until_nats_is(service, "is not connected")
            assert tenant.service.post(f"{account}/deductions", {"amount": "1"}).status == 201
            assert "scrip_nats_connected 0.0" in tenant.admin.get("/metrics").body
            own_nats.start()
            until_nats_is(service)
            asker.until_answered()
            assert asker.ask(tenant, "deduct", body, key="k").raw == first.raw
        tenant.close()


def test_a_process_stops_at_once_while_nats_is_away(
    own_database: DatabaseUrls, own_nats: EmbeddedNats
) -> None:
    own_nats.stop()
    with Service(own_database, nats=way_to(own_nats.url)):
        began = time.monotonic()
    # It does not wait for NATS to come, which would be for ever.
    assert time.monotonic() - began < 30


# -- whatever comes -------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["account", "amount", "reservation", "commands", "op", "key"])
            | st.text(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
PAYLOADS = st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode())
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc",)), max_size=40)
HEADERS = st.dictionaries(
    st.sampled_from(["Authorization", "Idempotency-Key", "X-Request-Id", "x-request-id"]),
    TEXTS,
    max_size=3,
)


def test_what_cannot_be_read_stops_nobody(
    tenant: Tenant, nats: Asker, nats_server: EmbeddedNats
) -> None:
    """A subject that is not UTF-8 made the client deaf for 15 seconds."""
    url = urlparse(nats_server.url)
    assert url.hostname is not None
    assert url.port is not None
    login = msgspec.json.encode(
        {"user": url.username, "pass": url.password, "verbose": False, "headers": True}
    )
    with socket.create_connection((url.hostname, url.port)) as raw:
        raw.sendall(
            b"CONNECT " + login + b"\r\n"
            b"PUB scrip.a.ledger.deduct inb\xffox 2\r\n{}\r\n"
            b"PUB scrip.\xff.ledger.deduct inbox 2\r\n{}\r\n"
            b"HPUB scrip.a.ledger.deduct inbox 16 18\r\nNATS/1.0 \xff\xff\xff\r\n\r\n{}\r\n"
            b"HPUB scrip.a.ledger.deduct inbox 12 14\r\nNATS/1.0\r\n\r\n{}\r\n"
            b"HPUB scrip.a.ledger.deduct inbox 8 10\r\nNATS/1.0{}\r\n"
            b"PING\r\n"
        )
        while b"PONG" not in raw.recv(4_096):
            pass
    began = time.monotonic()
    answer = nats.ask(tenant, "deduct", {"account": "none", "amount": "1"})
    assert answer.code == "account_not_found"
    assert time.monotonic() - began < 8


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(name=st.sampled_from(ENDPOINTS), payload=PAYLOADS, headers=HEADERS, valid=st.booleans())
def test_whatever_comes_is_answered(
    tenant: Tenant,
    nats: Asker,
    name: str,
    payload: bytes,
    headers: dict[str, str],
    *,
    valid: bool,
) -> None:
    sent = headers | headers_for(tenant, role="admin") if valid else headers
    subject = f"scrip.{tenant.name}.ledger.{name}"
    asked = nats.client.request(subject, payload, timeout=REQUEST_SECONDS_MAX, headers=sent)
    answer = answer_of(nats.run(asked))
    assert 200 <= answer.status < 500, answer.body
    assert answer.headers["x-request-id"]
