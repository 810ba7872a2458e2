"""A TCP proxy in front of PostgreSQL that can lose the answer to what it has passed on."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo

HOST = "127.0.0.1"


class Proxy:
    """Passes everything on; after `lose_next_answer`, ends a connection instead of answering."""

    def __init__(self, url: str) -> None:
        parts = conninfo_to_dict(url)
        self._port = int(str(parts["port"]))
        self._listener = socket.create_server((HOST, 0))
        port = self._listener.getsockname()[1]
        self.url = make_conninfo(**{**parts, "host": HOST, "port": port})
        self._losing = threading.Event()
        self.lost = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def lose_next_answer(self) -> None:
        """End the next connection on which the server answers, without passing the answer on."""
        self.lost.clear()
        self._losing.set()

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        # Shut down, not only closed: a thread that waits in accept or recv is woken.
        for one in (self._listener, *self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in (self._listener, *self._sockets):
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection((HOST, self._port))
            except OSError:
                return
            self._sockets += [client, server]
            for source, target, answers in ((client, server, False), (server, client, True)):
                thread = threading.Thread(target=self._pass_on, args=(source, target, answers))
                self._threads.append(thread)
                thread.start()

    def _pass_on(self, source: socket.socket, target: socket.socket, answers: bool) -> None:  # noqa: FBT001 - a thread's argument
        with suppress(OSError):
            while data := source.recv(65_536):
                if answers and self._losing.is_set():
                    self._losing.clear()
                    self.lost.set()
                    break
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
