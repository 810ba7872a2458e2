"""Requests that are repeated, with the same key, until they are answered for good."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from scrip.replay.http import Answer, Http

PATIENCE_SECONDS: Final = 120.0
"""How long a server may be away before a replay gives up."""

PAUSE_SECONDS_FIRST, PAUSE_SECONDS_MAX = 0.05, 1.0
PAUSE_DOUBLINGS_MAX: Final = 10
PAGE_ROWS: Final = 200
SERVER_ERROR: Final = 500
BUG_TRIES_MAX: Final = 5
"""How often a 500 is asked again: it is a bug, but perhaps a passing one."""
REFUSED: Final = 400


class GaveUp(Exception):
    """A server stayed away for longer than anybody should wait; the text says which, and how."""


class Refused(Exception):
    """A request was refused for good; the text says which, and why."""

    def __init__(self, request: str, answer: Answer) -> None:
        """Name the request and the answer it got."""
        super().__init__(f"{request} was answered {answer.status}: {_why(answer)}")
        self.answer = answer


def why_stopped(error: BaseException) -> str | None:
    """Return why a replay had to stop, of the error or group it raised; None if it was a bug."""
    if isinstance(error, GaveUp | Refused):
        return str(error)
    if isinstance(error, BaseExceptionGroup):
        return next((why for one in error.exceptions if (why := why_stopped(one))), None)
    return None


class Caller:
    """A client of the API with one key. Counts how often it had to repeat a request, and why."""

    def __init__(
        self, http: Http, secret: str, *, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        """Ask over `http` in the name of `secret`."""
        self._http = http
        self._headers = {"Authorization": f"Bearer {secret}"}
        self._patience_seconds = patience_seconds
        self.retries: Counter[str] = Counter()

    async def get(self, path: str, **query: str | int) -> Any:
        """Return what a read answers. Raises Refused, GaveUp."""
        return _accepted(f"GET {path}", await self.find(path, **query)).json

    async def find(self, path: str, **query: str | int) -> Answer:
        """Return the answer to a read, which may be a refusal. Raises GaveUp."""
        words = urlencode({name: value for name, value in query.items() if value != ""})
        target = f"{path}?{words}" if words else path
        return await self._until_answered("GET", target, self._headers, None)

    async def pages(self, path: str, **query: str | int) -> AsyncIterator[Mapping[str, Any]]:
        """Yield all rows of a list. Raises Refused, GaveUp."""
        cursor: str | None = ""
        while cursor is not None:
            page = await self.get(path, **query, cursor=cursor, limit=PAGE_ROWS)
            for row in page["data"]:
                yield row
            cursor = page["next_cursor"]

    async def change(self, method: str, path: str, key: str, body: Mapping[str, Any]) -> Answer:
        """Return the answer to a command, asked until it is there. Raises Refused, GaveUp."""
        headers = {**self._headers, "Idempotency-Key": key}
        content = msgspec.json.encode(body)
        answer = await self._until_answered(method, path, headers, content)
        return _accepted(f"{method} {path}", answer)

    async def _until_answered(
        self, method: str, target: str, headers: dict[str, str], body: bytes | None
    ) -> Answer:
        began = time.monotonic()
        tries = 0
        while True:
            try:
                answer = await self._http.request(method, target, headers, body)
            except OSError as error:
                why, full = type(error).__name__, f"{type(error).__name__}: {error}"
            else:
                if answer.status < SERVER_ERROR:
                    return answer
                if answer.status == SERVER_ERROR and tries >= BUG_TRIES_MAX:
                    return answer
                why, full = str(answer.status), f"{answer.status}, {_why(answer)}"
            self.retries[why] += 1
            if time.monotonic() - began > self._patience_seconds:
                seconds = round(self._patience_seconds)
                raise GaveUp(f"no answer to {method} {target} in {seconds} s; at last: {full}")
            pause = min(
                PAUSE_SECONDS_FIRST * 2.0 ** min(tries, PAUSE_DOUBLINGS_MAX), PAUSE_SECONDS_MAX
            )
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            tries += 1


def account_path(account: str, rest: str = "") -> str:
    """Return the path of an account, or of something it has."""
    return f"/v1/accounts/{quote(account, safe='')}{rest}"


def _accepted(request: str, answer: Answer) -> Answer:
    if answer.status >= REFUSED:
        raise Refused(request, answer)
    return answer


def _why(answer: Answer) -> str:
    try:
        problem = answer.json
        return f"{problem['code']}: {problem['detail']}"
    except (msgspec.DecodeError, LookupError, TypeError):
        return answer.body[:200].decode(errors="replace")
