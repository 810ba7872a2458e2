"""Logs: one line an event, JSON or in colour, to standard error. Other libraries' logs join in.

A line is made where it is logged and written a moment later, with its neighbours, by a thread of
its own: whoever serves requests waits for no pipe.
"""

import atexit
import json
import logging
import re
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Literal

import msgspec
import structlog
from structlog.typing import EventDict, WrappedLogger

MASK = "***"
SECRET_NAMES = re.compile(r"authorization|passw|secret|token(?!s)|api_key|cookie", re.IGNORECASE)
# An API key, or the password in a URL.
SECRET_TEXTS = re.compile(
    r"(?<=scrip_live_)\w+|(?<=scrip_test_)\w+|(?<=://)[^/\s:@]*:[^/\s@]*(?=@)"
)

# What these say at `info` repeats what the canonical line of a request or command says.
CHATTY = ("httpx", "httpcore", "uvicorn.access", "nats", "psycopg.pool")
LINES_MAX: Final = 10_000
"""Lines that may wait to be written. Past it they are lost, and counted: work goes on."""
WRITE_SECONDS: Final = 0.05
"""How long a line may wait for its neighbours; a warning or worse does not wait."""

Render = Callable[[EventDict], str | bytes]
_encoder = msgspec.json.Encoder(enc_hook=str)


class Lines:
    """Writes lines in their order from a thread of its own, to whatever takes bytes."""

    def __init__(self, write: Callable[[bytes], object], lines_max: int = LINES_MAX) -> None:
        """Start. What waits at the end of the process is written before it ends."""
        self._write = write
        self._lines_max = lines_max
        self._waiting: deque[bytes] = deque()
        self._lost = 0
        self._due = threading.Event()
        self._writing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @property
    def waiting(self) -> int:
        """How many lines are not being written yet."""
        return len(self._waiting)

    def put(self, line: bytes, *, is_urgent: bool = False) -> None:
        """Have a line written, without its end. Waits for nobody: beyond the bound it is lost."""
        if len(self._waiting) >= self._lines_max:
            self._lost += 1
            return
        self._waiting.append(line)
        if self._closed:
            self.flush()
        elif is_urgent:
            self._due.set()

    def flush(self) -> None:
        """Write all that waits, now."""
        with self._writing:
            count = len(self._waiting)
            lines = [self._waiting.popleft() for _ in range(count)]
            lost, self._lost = self._lost, 0
            if lost:
                line = {"at": datetime.now(UTC), "level": "warning", "logger": __name__}
                lines.append(_encoder.encode(line | {"event": "log.lines_lost", "count": lost}))
            if lines:
                # A standard error that is closed has nobody left to be told.
                with suppress(OSError, ValueError):
                    self._write(b"\n".join([*lines, b""]))

    def close(self) -> None:
        """Write what waits, and whatever still comes at once."""
        atexit.unregister(self.close)
        self._closed = True
        self._due.set()
        self._thread.join()
        self.flush()

    def _run(self) -> None:
        while not self._closed:
            self._due.wait(WRITE_SECONDS)
            self._due.clear()
            self.flush()


class _Logger:
    """What structlog hands a line to: the methods are the levels."""

    def __init__(self, lines: Lines, name: str) -> None:
        self.lines = lines
        self.name = name

    def info(self, line: bytes) -> None:
        self.lines.put(line)

    def warning(self, line: bytes) -> None:
        self.lines.put(line, is_urgent=True)

    debug = info
    error = critical = warning


class _Handler(logging.Handler):
    """What other libraries log, as lines of ours."""

    def __init__(self, lines: Lines, render: Render) -> None:
        super().__init__()
        self._lines = lines
        self._render_line = render

    def emit(self, record: logging.LogRecord) -> None:
        event: EventDict = {"event": record.getMessage(), "exc_info": record.exc_info}
        event = structlog.contextvars.merge_contextvars(None, "", event)
        line = _line(record.name, record.levelname.lower(), event)
        is_urgent = record.levelno >= logging.WARNING
        self._lines.put(_bytes(self._render_line(line)), is_urgent=is_urgent)


def _line(name: str, level: str, event: EventDict) -> EventDict:
    """Return an event as it is told: by whom, when, and without its secrets."""
    line = {"at": datetime.now(UTC), "level": level, "logger": name, "event": ""}
    if event.get("exc_info") or event.get("stack_info"):
        # Exceptions become text before secrets are looked for.
        event = structlog.processors.StackInfoRenderer()(None, level, event)
        event = structlog.processors.format_exc_info(None, level, event)
    else:
        event.pop("exc_info", None)
    for field, value in event.items():
        line[field] = _masked(field, value)
    return line


def _masked(name: str, value: object) -> object:
    """Replace what may be a secret: by the name of the field, or by its looks."""
    if _is_secret(name):
        return MASK
    if isinstance(value, str):
        # One of these stands in whatever the pattern finds, and is found much faster.
        may_hold_one = "scrip_" in value or "://" in value
        return SECRET_TEXTS.sub(MASK, value) if may_hold_one else value
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, Mapping):
        return {key: _masked(str(key), inner) for key, inner in value.items()}
    if isinstance(value, BaseException):
        return SECRET_TEXTS.sub(MASK, f"{type(value).__name__}: {value}")
    return value


@lru_cache(maxsize=4_096)
def _is_secret(name: str) -> bool:
    return SECRET_NAMES.search(name) is not None


def _json(line: EventDict) -> bytes | str:
    try:
        return _encoder.encode(line)
    except (UnicodeEncodeError, OverflowError, TypeError, ValueError):
        # Half a character, a number beyond 64 bits, a name that is no text: slower, but told.
        return json.dumps(line, default=str, skipkeys=True)


def _for_person() -> Render:
    console = structlog.dev.ConsoleRenderer(
        colors=True, timestamp_key="at", exception_formatter=structlog.dev.plain_traceback
    )

    def render(line: EventDict) -> str:
        return console(None, line["level"], {**line, "at": line["at"].isoformat()})

    return render


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "backslashreplace")


def _standard_error(data: bytes) -> None:
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()


def configure_logging(
    level: str = "info", style: Literal["auto", "json", "console"] = "auto"
) -> None:
    """Send every log of this process to standard error, as JSON lines or for a person."""
    for_person = style == "console" or (style == "auto" and sys.stderr.isatty())
    render: Render = _for_person() if for_person else _json
    lines = Lines(_standard_error)

    def finish(
        logger: WrappedLogger, method: str, event: EventDict
    ) -> tuple[tuple[Any], dict[str, Any]]:
        return (_bytes(render(_line(logger.name, method, event))),), {}

    root = logging.getLogger()
    root.handlers[:] = [_Handler(lines, render)]
    root.setLevel(level.upper())
    for name in CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    # uvicorn brings handlers of its own.
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, finish],
        logger_factory=lambda *names: _Logger(lines, *names),
        wrapper_class=structlog.make_filtering_bound_logger(root.level),
        cache_logger_on_first_use=True,
    )
