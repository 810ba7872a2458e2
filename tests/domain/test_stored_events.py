"""Stored events: what was ever written can be read, and what is not understood is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger import codec
from ledger.codec import UnknownEvent, decode, encode
from ledger.domain.catalog_events import CatalogEvent
from ledger.domain.commands import PutAccount
from ledger.domain.events import NAMES, AccountOpened, CreditsGranted, Event

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "golden" / "events"
GOLDEN = sorted(FOLDER.glob("*.json"))
DOCUMENT = ROOT / "docs" / "events.md"


def name_of(path: Path) -> str:
    return path.name.rsplit(".", 2)[0]


@pytest.mark.parametrize("name", NAMES)
def test_every_event_has_golden_files_with_all_its_fields_and_with_the_fewest(name: str) -> None:
    mine = [path for path in GOLDEN if name_of(path) == name]
    of_its_own = {path: json.loads(path.read_bytes())["data"] for path in mine}
    least = of_its_own.pop(FOLDER / f"{name}.least.json")
    full = {field for data in of_its_own.values() for field in data}
    kind: Any = NAMES[name]
    fields = msgspec.structs.fields(kind)
    others = {"balance.adjusted.v1": {"grant"}}.get(name, set())  # Up or down, never both.
    assert full == {field.name for field in fields} - others
    assert set(least) - others == {field.name for field in fields if field.required}


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
def test_a_golden_file_is_read_and_written_again_to_the_same_bytes(path: Path) -> None:
    state = path.read_bytes()
    fact = decode(name_of(path), state)
    assert type(fact.event) is NAMES[name_of(path)]
    again = encode(
        fact.event,
        by=fact.by,
        reason=fact.reason,
        occurred_at=fact.occurred_at,
        balance=fact.balance,
    )
    assert again == state
    assert fact.balance is None or fact.balance.holds()


def test_what_says_no_zone_is_asked_and_stored_as_before_there_were_zones() -> None:
    assert msgspec.json.encode(PutAccount(label="a")) == b'{"type":"PutAccount","label":"a"}'
    assert msgspec.json.encode(AccountOpened(label="a")) == b'{"label":"a"}'


def test_names_are_permanent_unique_and_not_python_paths() -> None:
    assert len(codec.NAME_OF) == len(NAMES)
    for name in NAMES:
        noun, verb, version = name.split(".")
        assert noun.isidentifier()
        assert verb.isidentifier()
        assert version == f"v{codec.version_of(name)}"


def test_golden_files_belong_to_an_event_that_is_known() -> None:
    assert {name_of(path) for path in GOLDEN} == NAMES.keys() | codec.UPCASTS.keys()


STATE = (FOLDER / "credits.granted.v1.full.json").read_bytes()


@pytest.mark.parametrize(
    ("name", "known"),
    [("credits.granted.v2", "credits.granted.v1"), ("credits.burnt.v1", None), ("nonsense", None)],
)
def test_an_event_of_another_name_or_a_newer_version_is_refused(
    name: str, known: str | None
) -> None:
    with pytest.raises(UnknownEvent) as refusal:
        decode(name, STATE)
    assert refusal.value.name == name
    assert known is None or known in str(refusal.value)


@pytest.mark.parametrize(
    "place", [("extra",), ("data", "extra"), ("data", "source", "extra"), ("balance", "extra")]
)
def test_a_field_that_is_not_known_is_refused_wherever_it_stands(place: tuple[str, ...]) -> None:
    stored = json.loads(STATE)
    inner = stored
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = 1
    with pytest.raises(msgspec.ValidationError, match="unknown field `extra`"):
        decode("credits.granted.v1", json.dumps(stored).encode())


@pytest.mark.parametrize("path", [path for path in GOLDEN if ".full." in path.name], ids=name_of)
def test_an_unknown_field_is_refused_in_every_nested_record(path: Path) -> None:
    stored = json.loads(path.read_bytes())
    for inner in records(stored["data"]):
        inner["unheard_of"] = 1
        with pytest.raises(msgspec.ValidationError, match=r"unknown field|Expected `"):
            decode(name_of(path), json.dumps(stored).encode())
        del inner["unheard_of"]
    decode(name_of(path), json.dumps(stored).encode())


def records(value: object) -> list[dict[str, Any]]:
    """Return every object in some JSON but those that map names to strings or numbers freely."""
    if isinstance(value, list):
        return [inner for one in value for inner in records(one)]
    if not isinstance(value, dict):
        return []
    inside = [inner for key, one in value.items() if key != "metadata" for inner in records(one)]
    return [value, *inside]


@pytest.mark.parametrize("missing", ["grant", "amount", "kind", "priority", "effective_at"])
def test_a_field_that_is_missing_is_refused(missing: str) -> None:
    stored = json.loads(STATE)
    del stored["data"][missing]
    with pytest.raises(msgspec.ValidationError):
        decode("credits.granted.v1", json.dumps(stored).encode())


@pytest.mark.parametrize("amount", ["1.5", '"1"', "true", "null"])
def test_an_amount_that_is_no_whole_number_is_refused(amount: str) -> None:
    state = STATE.replace(b'"amount":100000000', f'"amount":{amount}'.encode())
    assert state != STATE
    with pytest.raises(msgspec.ValidationError):
        decode("credits.granted.v1", state)


def test_an_old_version_is_read_through_its_upcasts(monkeypatch: pytest.MonkeyPatch) -> None:
    def from_v0(data: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        return "credits.granted.v0a", {**data, "kind": "paid"}

    def from_v0a(data: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        scope = [data.pop("only_for")]
        return "credits.granted.v1", {**data, "priority": 100, "scope": scope}

    monkeypatch.setitem(codec.UPCASTS, "credits.granted.v0", from_v0)
    monkeypatch.setitem(codec.UPCASTS, "credits.granted.v0a", from_v0a)
    data = {
        "grant": "g",
        "amount": 5,
        "only_for": "image",
        "effective_at": "2026-03-01T12:00:00Z",
    }
    state = json.dumps({"by": "key:k_1", "data": data}).encode()
    fact = decode("credits.granted.v0", state)
    assert isinstance(fact.event, CreditsGranted)
    assert fact.event.scope == ("image",)
    assert fact.event.effective_at.isoformat() == "2026-03-01T12:00:00+00:00"
    # What is read so is the same as if it had been written today.
    assert decode("credits.granted.v1", encode(fact.event, by="key:k_1")).event == fact.event


def test_an_upcast_to_nowhere_names_the_event_that_was_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(codec.UPCASTS, "old.thing.v1", lambda data: ("gone.thing.v2", data))
    with pytest.raises(UnknownEvent, match=r"old\.thing\.v1"):
        decode("old.thing.v1", b'{"by":"key:k_1","data":{}}')


def test_every_event_and_every_field_is_documented() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    sections = {
        title.strip("# `"): body
        for title, _, body in (part.partition("\n") for part in document.split("\n### ")[1:])
    }
    assert list(sections) == list(NAMES)
    for name, kind in NAMES.items():
        any_kind: Any = kind
        for field in msgspec.structs.fields(any_kind):
            assert f"| `{field.name}` |" in sections[name], (name, field.name)


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_an_event_in_the_document_is_one_that_can_be_read(name: str) -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    example = document.split(f"\n### `{name}`\n")[1].split("```json\n")[1].split("```")[0]
    event: Event = decode(name, b'{"by":"key:k_1","data":' + example.encode() + b"}").event
    assert isinstance(event, NAMES[name])
    assert json.loads(msgspec.json.encode(event)) == json.loads(example)
    assert name.startswith("catalog.") == isinstance(event, CatalogEvent)
