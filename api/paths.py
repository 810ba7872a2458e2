"""Which resource stands at a path: one look-up a part, however many routes there are.

The routes are FastAPI's to hold; trying the pattern of each of them in turn would cost more than
all else that a request needs here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from starlette.routing import Route as PathRoute
from starlette.types import ASGIApp

SEPARATOR: Final = "/"


class _Place:
    """What can follow on one part of a path: words, or a name; and what stands here itself."""

    __slots__ = ("app", "name", "named", "words")

    def __init__(self) -> None:
        self.words: dict[str, _Place] = {}
        self.name = ""
        self.named: _Place | None = None
        self.app: ASGIApp | None = None


class Paths:
    """Finds the application at a path, and the names that the path holds."""

    def __init__(self, routes: Iterable[PathRoute]) -> None:
        """Know the places of `routes`. A part of a path is a word or a `{name}`, never either."""
        self._root = _Place()
        for route in routes:
            self._add(route)

    def _add(self, route: PathRoute) -> None:
        place = self._root
        for part in route.path.split(SEPARATOR)[1:]:
            if part.startswith("{"):
                place.named = place.named or _Place()
                place.name, place = part.strip("{}"), place.named
            else:
                place = place.words.setdefault(part, _Place())
        place.app = route.app

    def find(self, path: str) -> tuple[ASGIApp, dict[str, str]] | None:
        """Return what stands at `path`, whose escapes are undone, or None. No name is empty."""
        place = self._root
        names: dict[str, str] = {}
        parts = path.split(SEPARATOR)
        del parts[0]
        for part in parts:
            word = place.words.get(part)
            if word is not None:
                place = word
            elif place.named is not None and part:
                names[place.name] = part
                place = place.named
            else:
                return None
        return None if place.app is None else (place.app, names)
