"""An answer leaves in one piece, and everything else about a connection is as uvicorn has it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest
import uvloop
from starlette.types import Receive, Scope, Send

from scrip.processes import serve_app

BODY = b"x" * 700
HEAD = b"Host: a\r\n"

SECONDS_MAX = 60
_slow_begun = threading.Event()


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if scope["path"] == "/slow":
        _slow_begun.set()
        await asyncio.sleep(0.3)
    if scope["path"] == "/parts":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in (b"one", b"two"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
            await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": b""})
        return
    answer = BODY + body
    headers = [(b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


class _Served:
    """The server, in a thread with a loop of its own."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._serve()))
        self._thread.start()
        assert self._started.wait(SECONDS_MAX)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._started.set()
        await serve_app(_app, "", 0, self._stop, fd=self.listener.detach())

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(SECONDS_MAX)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=SECONDS_MAX)


@pytest.fixture
def served() -> Iterator[_Served]:
    served = _Served()
    yield served
    served.stop()


def _all_of(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def test_head_and_body_arrive_together(served: _Served) -> None:
    with served.connect() as connection:
        for _ in range(20):
            connection.sendall(b"GET / HTTP/1.1\r\n" + HEAD + b"\r\n")
            assert connection.recv(65_536).endswith(b"\r\n\r\n" + BODY)


def test_requests_sent_at_once_are_answered_in_their_order(served: _Served) -> None:
    posts = [
        b"POST / HTTP/1.1\r\n" + HEAD + b"Content-Length: 1\r\n\r\n" + str(n).encode()
        for n in range(5)
    ]
    last = b"GET / HTTP/1.1\r\n" + HEAD + b"Connection: close\r\n\r\n"
    with served.connect() as connection:
        connection.sendall(b"".join([*posts, last]))
        answers = _all_of(connection).split(BODY)
    assert [answer[:1] for answer in answers[1:]] == [b"0", b"1", b"2", b"3", b"4", b""]


def test_the_last_answer_arrives_whole_before_the_connection_closes(served: _Served) -> None:
    with served.connect() as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n" + HEAD + b"\r\n")
        assert _all_of(connection).endswith(BODY)


def test_an_answer_in_parts_and_what_is_no_http_at_all(served: _Served) -> None:
    with served.connect() as connection:
        connection.sendall(b"GET /parts HTTP/1.1\r\n" + HEAD + b"Connection: close\r\n\r\n")
        assert _all_of(connection).endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
    with served.connect() as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        assert _all_of(connection).startswith(b"HTTP/1.1 400 ")


def test_whoever_waits_to_send_a_body_is_told_to_go_on(served: _Served) -> None:
    head = HEAD + b"Content-Length: 1\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    with served.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\n" + head)
        assert connection.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"1")
        assert _all_of(connection).endswith(BODY + b"1")


def test_whoever_hangs_up_early_disturbs_nobody(served: _Served) -> None:
    for _ in range(20):
        with served.connect() as connection:
            connection.sendall(b"GET /slow HTTP/1.1\r\n" + HEAD + b"\r\n")
    with served.connect() as connection:
        connection.sendall(b"GET /slow HTTP/1.1\r\n" + HEAD + b"\r\n")
        assert connection.recv(65_536).endswith(BODY)


def test_a_request_that_is_being_answered_is_finished_at_the_end() -> None:
    served = _Served()
    with served.connect() as connection:
        _slow_begun.clear()
        connection.sendall(b"GET /slow HTTP/1.1\r\n" + HEAD + b"\r\n")
        assert _slow_begun.wait(SECONDS_MAX)
        stopping = threading.Thread(target=served.stop)
        stopping.start()
        assert _all_of(connection).endswith(BODY)
        stopping.join()
