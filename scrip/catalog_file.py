"""A tenant's catalog as a TOML file: read and checked, written, and compared with what is so.

An entry of the file says what the body of its route would, and is read by the same rules. A file
says what shall be so of the entries that it names, and nothing of any other.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgspec
import tomlkit
from msgspec import Struct, structs

from api.catalog import FeatureIn, RateCardIn, RefundPolicyIn
from api.catalog_receipts import rates_out
from api.decoding import Decoder
from api.fields import NAME_RULE
from api.packs import PackIn
from api.plans import PlanIn
from api.referral_reward import ReferralRewardIn
from api.routes import Asked
from api.versions import changes_between
from ledger.domain.catalog import Catalog, decide_catalog, evolve_catalog
from ledger.domain.catalog_events import CatalogEvent, RateCardSet
from ledger.domain.commands import CatalogCommand
from ledger.domain.entities import Rates
from ledger.domain.errors import LedgerError
from ledger.domain.values import is_name
from ledger.records import Order
from ledger.rendering import render

FILE_BYTES_MAX: Final = 4 << 20
KEYED: Final[Mapping[str, type[Asked]]] = {
    "features": FeatureIn,
    "rate_cards": RateCardIn,
    "plans": PlanIn,
    "packs": PackIn,
}
"""The sections that hold entries by key, and what the body of an entry is."""
SINGLE: Final[Mapping[str, type[Asked]]] = {
    "refund_policy": RefundPolicyIn,
    "referral_reward": ReferralRewardIn,
}
KEYS: Final = {"features": "feature", "rate_cards": "feature", "plans": "plan", "packs": "pack"}
# TOML has no null: left out, it says that slices lapse.
DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {"refund_policy": {"regrant_days": None}}
# The file says these even where they are nothing.
ALWAYS: Final[Mapping[str, Mapping[str, Any]]] = {
    "referral_reward": {"referrer": "0", "referred": "0"}
}
BY: Final = "service:catalog"
_encoder = msgspec.json.Encoder(decimal_format="number")
_decoders: Final = {section: Decoder[Asked](kind) for section, kind in {**KEYED, **SINGLE}.items()}


class CatalogFileError(Exception):
    """The file cannot be applied; `complaints` name each entry and its fault."""

    def __init__(self, complaints: Sequence[str]) -> None:
        """Keep what is wrong, one sentence each."""
        super().__init__("\n".join(complaints))
        self.complaints = complaints


class Wanted(Struct, frozen=True):
    """What a file says of one entry: where it stands in the file, and the command to have it so."""

    section: str
    key: str | None
    command: CatalogCommand

    @property
    def place(self) -> str:
        """Its place in the file, such as `plans.pro`."""
        return self.section if self.key is None else f"{self.section}.{self.key}"


class Change(Struct, frozen=True, kw_only=True):
    """One entry that differs, the version that would be put, and its fields that would change."""

    place: str
    command: CatalogCommand
    version: int
    fields: list[tuple[str, Any, Any]]
    """The path, what was so, what is so then; None where it is absent."""

    def order(self, tenant: str, reason: str | None) -> Order:
        """Return the order that makes the change.

        Its key comes of what is put and of the version that it would be: to ask for it again does
        nothing, to come back to what was so once is another change.
        """
        order = Order(
            tenant=tenant, account=None, command=self.command, key=None, by=BY, reason=reason
        )
        content = b"%s\0%d\0%s" % (self.place.encode(), self.version, order.content())
        return structs.replace(order, key=f"catalog:{hashlib.sha256(content).hexdigest()}")


def read_file(text: str) -> list[Wanted]:
    """Return what a file says, in its order. Raises CatalogFileError with every fault in it."""
    try:
        document = tomllib.loads(text, parse_float=Decimal)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise CatalogFileError([f"this is not TOML: {error}"]) from None
    wanted: list[Wanted] = []
    complaints: list[str] = []
    for section, entries in document.items():
        if section in SINGLE:
            found: Mapping[Any, Any] = {None: entries}
        elif section in KEYED and isinstance(entries, dict):
            found = entries
        else:
            known = ", ".join((*KEYED, *SINGLE))
            complaints.append(f"{section}: is no section; there are {known}")
            continue
        for key, entry in found.items():
            try:
                wanted.append(_wanted(section, key, entry))
            except CatalogFileError as fault:
                complaints += fault.complaints
    if complaints:
        raise CatalogFileError(complaints)
    return wanted


def _wanted(section: str, key: str | None, entry: Any) -> Wanted:
    place = section if key is None else f"{section}.{key}"
    if key is not None and not is_name(key):
        raise CatalogFileError([f"{place}: the key {NAME_RULE}"])
    if not isinstance(entry, dict):
        raise CatalogFileError([f"{place}: must be a table"])
    if "reason" in entry:
        raise CatalogFileError([f"{place}: reason is given to `apply`, not in the file"])
    try:
        body = _encoder.encode({**DEFAULTS.get(section, {}), **entry})
        command = _decoders[section].decode(body).command(key)
    except OverflowError:
        raise CatalogFileError([f"{place}: holds a number that is too large"]) from None
    except LedgerError as refusal:
        raise CatalogFileError([f"{place}: {refusal.detail}"]) from None
    assert isinstance(command, CatalogCommand)
    return Wanted(section, key, command)


def changes_to(catalog: Catalog, wanted: Sequence[Wanted], now: datetime) -> list[Change]:
    """Return what has to be put for `catalog` to be as the file says, in an order that works.

    What gives up a price id comes before what takes it. Raises CatalogFileError if it cannot be.
    """
    catalog = catalog.copy()
    changes: list[Change] = []
    left = [one for one in wanted if not _is_so(_newest(catalog, one), one.command)]
    while left:
        refused: list[Wanted] = []
        complaints: list[str] = []
        for one in left:
            try:
                event = decide_catalog(catalog, one.command, now)
            except LedgerError as refusal:
                refused.append(one)
                complaints.append(f"{one.place}: {refusal.detail}")
                continue
            changes.append(_change(one, _newest(catalog, one), event))
            evolve_catalog(catalog, event)
        if len(refused) == len(left):
            raise CatalogFileError(complaints)
        left = refused
    return changes


def _versions(catalog: Catalog, section: str) -> Any:
    """Return the versions of a section, by key; or those of the one entry that it is."""
    names = {"refund_policy": "refund_policies", "referral_reward": "referral_rewards"}
    return getattr(catalog, names.get(section, section))


def _newest(catalog: Catalog, wanted: Wanted) -> CatalogEvent | None:
    versions = _versions(catalog, wanted.section)
    if wanted.key is not None:
        versions = versions.get(wanted.key)
    newest: CatalogEvent | None = versions[-1] if versions else None
    return newest


def _is_so(newest: CatalogEvent | None, command: CatalogCommand) -> bool:
    """Tell whether an entry is as it shall be; a time that is not stated may be any."""
    if newest is None:
        return False
    return all(
        getattr(command, field.name) == getattr(newest, field.name)
        for field in structs.fields(command)
        if field.name != "effective_at" or getattr(command, field.name) is not None
    )


def _change(wanted: Wanted, before: CatalogEvent | None, after: CatalogEvent) -> Change:
    is_dated = getattr(wanted.command, "effective_at", None) is not None
    old: dict[str, Any] = {}
    if before is not None:
        old = _entry(wanted.section, before, is_dated=is_dated)
    new = _entry(wanted.section, after, is_dated=is_dated)
    return Change(
        place=wanted.place,
        command=wanted.command,
        version=after.version,
        fields=changes_between(old, new),
    )


def write_file(catalog: Catalog, now: datetime) -> str:
    """Return the newest version of every entry as a file that `read_file` reads.

    A time is written where a version is in force only later: who edits the file then does not
    change what has been so.
    """
    document: dict[str, Any] = {}
    for section in ("features", "rate_cards", *SINGLE, "plans", "packs"):
        versions = _versions(catalog, section)
        if section in SINGLE:
            if versions:
                document[section] = _file_entry(section, versions[-1], now)
        elif versions:
            document[section] = {
                key: _file_entry(section, versions[key][-1], now) for key in sorted(versions)
            }
    return tomlkit.dumps(document)


def _file_entry(section: str, event: CatalogEvent, now: datetime) -> dict[str, Any]:
    effective_at = getattr(event, "effective_at", now)
    return _entry(section, event, is_dated=effective_at > now)


def _entry(section: str, event: CatalogEvent, *, is_dated: bool) -> dict[str, Any]:
    """Return a version as a file has it: without what is at its default."""
    said = render(event)
    entry = {**ALWAYS.get(section, {}), **said, **said.get("terms", {})}
    for name in ("version", "terms", KEYS.get(section)):
        entry.pop(name, None)
    if not is_dated:
        entry.pop("effective_at", None)
    if isinstance(event, RateCardSet):
        entry["models"] = {
            model: {**said, **_by_cost(event.models[model])}
            for model, said in entry["models"].items()
        }
    if "providers" in entry:
        entry["providers"] = {provider: list(ids) for provider, ids in entry["providers"].items()}
    return entry


def _by_cost(rates: Rates) -> dict[str, Any]:
    """Return what a file says of the provider's price and the markup on it: decimals, in USD."""
    shown = msgspec.to_builtins(rates_out(rates))
    return {name: shown[name] for name in ("provider", "cost_plus") if name in shown}
