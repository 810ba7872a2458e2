"""Bodies and queries as Stripe takes them: `line_items[0][price]=price_1&metadata[a]=b`."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl

_PART = re.compile(r"\[([^\]]*)\]")


def parse_form(text: str) -> dict[str, Any]:
    """Return a form as nested objects; what is numbered 0, 1, 2 or not at all becomes a list."""
    found: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        head, _, _ = name.partition("[")
        _put(found, [head, *_PART.findall(name)], value)
    listed = _lists(found)
    assert isinstance(listed, dict)
    return listed


def _put(at: dict[str, Any], path: list[str], value: str) -> None:
    for part in path[:-1]:
        at = at.setdefault(part, {})
    last = path[-1] or str(len(at))
    at[last] = value


def _lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value and all(key.isdigit() for key in value):
        return [_lists(value[key]) for key in sorted(value, key=int)]
    return {key: _lists(inner) for key, inner in value.items()}
