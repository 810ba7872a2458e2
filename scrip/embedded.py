"""Real PostgreSQL and nats-server, from wheels, on 127.0.0.1, with their data in a folder.

`EmbeddedPostgres(folder)` and `EmbeddedNats(folder)` are context managers. `start()` and `stop()`
serve tests; the supervisor uses `prepare()`, `command()`, `is_ready()` and `finish()` and runs the
process itself. Neither needs root, and neither server ever runs as root.
"""

from scrip.embedded_nats import EmbeddedNats
from scrip.embedded_postgres import DatabaseUrls, EmbeddedPostgres
from scrip.spawn import FolderInUseError, FolderLock, ServerStartError, free_port

__all__ = [
    "DatabaseUrls",
    "EmbeddedNats",
    "EmbeddedPostgres",
    "FolderInUseError",
    "FolderLock",
    "ServerStartError",
    "free_port",
]
