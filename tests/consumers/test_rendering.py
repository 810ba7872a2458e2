"""What others are told of an event: all of it, and the same as everywhere else."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from consumers.rendering import cloud_event
from ledger.codec import UnknownEvent, decode
from ledger.rendering import render, render_balance

GOLDEN = sorted((Path(__file__).parents[1] / "golden" / "events").glob("*.json"))
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def row(name: str, state: bytes, account: str | None = "account-1") -> Any:
    return 7, 3, "acme", account, name, NOW, "key-1", state


@pytest.mark.parametrize("account", ["account-1", None])
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
def test_an_event_shown_from_its_stored_form_is_the_event_as_it_is_understood(
    path: Path, account: str | None
) -> None:
    name, state = path.name.rsplit(".", 2)[0], path.read_bytes()
    fact = decode(name, state)
    envelope = {
        "specversion": "1.0",
        "id": "7",
        "source": "/scrip/ledger",
        "type": name,
        "time": NOW,
        "datacontenttype": "application/json",
        **({} if account is None else {"subject": account}),
        "data": {
            "position": "7",
            "tenant": "acme",
            "account": account,
            "version": 3,
            "name": name,
            "recorded_at": NOW,
            "occurred_at": fact.occurred_at,
            "actor": fact.by,
            "reason": fact.reason,
            "key": "key-1",
            "data": render(fact.event),
            "balance": render_balance(fact.balance),
        },
    }
    assert cloud_event(row(name, state, account)) == msgspec.json.encode(envelope)


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"\xff",
        b'{"by":"service:test","data":',
        b'{"by":"service:test","data":[]}',
        b'{"by":"service:test","data":{"amount":"5","reservation":"r"}}',
        b'{"by":"service:test","data":{"amount":5,"draws":7}}',
        b'{"by":"service:test","data":{"amount":5,"draws":["grant"]}}',
        b'{"by":"service:test","data":{},"balance":{"granted":null}}',
    ],
)
def test_an_event_that_has_been_damaged_is_told_of_without_its_data(state: bytes) -> None:
    told = msgspec.json.decode(cloud_event(row("credits.reserved.v1", state)))
    assert (told["id"], told["type"]) == ("7", "credits.reserved.v1")
    assert told["data"]["account"] == "account-1"
    assert [told["data"][name] for name in ("actor", "data", "balance")] == [None, None, None]


def test_an_event_of_a_newer_version_is_left_to_a_newer_version() -> None:
    with pytest.raises(UnknownEvent):
        cloud_event(row("credits.reserved.v99", b'{"by":"service:test","data":{}}'))
