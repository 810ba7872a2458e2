"""A webhook is answered 200 only once JetStream has it; else its sender is told to come again."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from nats.js import JetStreamContext

from consumers.streams import PAYMENT, ensure_streams
from scrip.embedded import DatabaseUrls, EmbeddedNats
from tests.api.nats_room import until_nats_is, way_to
from tests.api.receiving import (
    at_the_time_of_the_tests,
    endpoint_of,
    event,
    make_streams,
    messages,
    sent,
    signed,
    with_jetstream,
)
from tests.api.room import WAIT_SECONDS_MAX, Answer, Service, Tenant
from tests.api.webhooks.senders import OTHERS, headers_of


@pytest.fixture(scope="module")
def service(nats_service: Service, nats_server: EmbeddedNats) -> Iterator[Service]:
    """Let the tenants of these tests be of the service that has a way to NATS."""
    make_streams(nats_server.url)
    with at_the_time_of_the_tests(nats_service):
        yield nats_service


def _is_refused_for_now(answer: Answer) -> bool:
    assert (answer.status, answer.code) == (503, "nats_unavailable")
    return answer.body["retryable"] is True and answer.headers["retry-after"] == "1"


def test_what_jetstream_does_not_take_is_not_answered_200(
    service: Service, tenant: Tenant, nats_server: EmbeddedNats
) -> None:
    path, body = endpoint_of(tenant, "stripe"), event("stripe")
    headers = headers_of("stripe", body)

    async def fill(js: JetStreamContext) -> None:
        config = (await js.stream_info(PAYMENT)).config
        state = (await js.stream_info(PAYMENT)).state
        await js.update_stream(config, max_msgs=max(state.messages, 1))
        if not state.messages:
            await js.publish("scrip.x.payment.users", b"{}")

    with_jetstream(nats_server.url, fill)
    assert _is_refused_for_now(sent(tenant, path, headers, body))
    with_jetstream(nats_server.url, ensure_streams)
    assert sent(tenant, path, headers, body).status == 200
    with_jetstream(nats_server.url, lambda js: js.delete_stream(PAYMENT))
    assert _is_refused_for_now(sent(tenant, path, headers, body))
    with_jetstream(nats_server.url, ensure_streams)
    assert sent(tenant, path, headers, body).status == 200
    assert service.settings["nats"].state == "ok"


def test_while_nats_is_away_senders_are_told_to_come_again(
    own_database: DatabaseUrls, own_nats: EmbeddedNats
) -> None:
    with Service(own_database, nats=way_to(own_nats.url)) as service:
        until_nats_is(service)
        make_streams(own_nats.url)
        with at_the_time_of_the_tests(service):
            tenant = service.tenant()
            path, body = endpoint_of(tenant, "stripe"), event("stripe")
            headers = headers_of("stripe", body)
            own_nats.stop()
            assert _is_refused_for_now(sent(tenant, path, headers, body))
            own_nats.start()
            deadline = time.monotonic() + WAIT_SECONDS_MAX
            while (answer := sent(tenant, path, headers, body)).status != 200:
                assert _is_refused_for_now(answer)
                assert time.monotonic() < deadline
                time.sleep(0.05)
            (message,) = messages(own_nats.url, tenant.name)
            assert message.delivery == "evt_1"
            tenant.close()


def test_without_a_way_to_nats_no_webhook_is_taken(own_database: DatabaseUrls) -> None:
    with Service(own_database) as service, at_the_time_of_the_tests(service):
        tenant = service.tenant()
        assert _is_refused_for_now(signed(tenant, "stripe", event("stripe")))
        refused = signed(tenant, "stripe", event("stripe"), secret=OTHERS["stripe"])
        assert refused.status == 401
        tenant.close()
