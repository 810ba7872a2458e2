"""Ledger events as others read them: amounts as decimal strings, as everywhere in JSON.

What is an amount is said once, by the types of the events themselves (`Credits`, `Quantity`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

from msgspec import Struct, inspect

from ledger.domain.entities import Balance
from ledger.domain.events import BalanceAdjusted
from ledger.domain.values import format_decimal

AMOUNT_UNITS: Final = frozenset({"micro-credits", "millionths"})
SIGNED_AMOUNTS: Final = frozenset({(BalanceAdjusted, "amount")})
"""Amounts that may be below zero, and so are not of the type Credits."""

Render = Callable[[Any], Any]


def render(value: Struct) -> dict[str, Any]:
    """Return a record as JSON types, without what is at its default."""
    return {
        name: renderer(given)
        for name, renderer, default in _plan(type(value))
        if (given := getattr(value, name)) != default
    }


def render_balance(balance: Balance | None) -> dict[str, Any] | None:
    """Return a balance in full: a part that is 0 is stated too."""
    if balance is None:
        return None
    return {name: renderer(getattr(balance, name)) for name, renderer, _ in _plan(Balance)}


@cache
def _plan(kind: type[Struct]) -> tuple[tuple[str, Render, Any], ...]:
    """Return how each field of a record is written: worked out once for each kind."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return tuple(
        (
            field.name,
            _amount if (kind, field.name) in SIGNED_AMOUNTS else _renderer(field.type),
            field.default,
        )
        for field in info.fields
    )


def _renderer(kind: inspect.Type) -> Render:
    match kind:
        case inspect.Metadata(extra={"unit": unit}) if unit in AMOUNT_UNITS:
            return _amount
        case inspect.Metadata(type=inner):
            return _renderer(inner)
        case inspect.StructType():
            return render
        case inspect.VarTupleType(item_type=item):
            return _each(_renderer(item))
        case inspect.DictType(value_type=value):
            return _by_key(_renderer(value))
        case inspect.UnionType(types=types):
            return _optional(types)
        case _:
            return _as_is


def _optional(types: tuple[inspect.Type, ...]) -> Render:
    """Return the renderer of the one type that is not None; there is no other union in an event."""
    rest = [kind for kind in types if not isinstance(kind, inspect.NoneType)]
    assert len(rest) == 1
    inner = _renderer(rest[0])
    if inner is _as_is:
        return _as_is
    return lambda value: None if value is None else inner(value)


def _each(inner: Render) -> Render:
    return _as_is if inner is _as_is else lambda values: [inner(value) for value in values]


def _by_key(inner: Render) -> Render:
    if inner is _as_is:
        return _as_is
    return lambda values: {key: inner(value) for key, value in values.items()}


def _amount(millionths: int | None) -> str | None:
    return None if millionths is None else format_decimal(millionths)


def _as_is(value: Any) -> Any:
    return value
