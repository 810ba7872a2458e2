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
from msgspec import Struct
from structlog.typing import EventDict

MASK = "***"
SECRET_NAMES = re.compile(r"authorization|passw|secret|token(?!s)|api_key|cookie", re.IGNORECASE)
# An API key, a webhook's secret, or the password in a URL.
SECRET_TEXTS = re.compile(
    r"(?<=scrip_live_)\w+|(?<=scrip_test_)\w+|(?<=whsec_)[\w+/=-]+"
    r"|(?<=://)[^/\s:@]*:[^/\s@]*(?=@)"
)

# What these say at `info` repeats what the canonical line of a request or command says.
CHATTY = ("httpx", "httpcore", "uvicorn.access", "nats", "psycopg.pool")
LINES_MAX: Final = 10_000
"""Lines that may wait to be written. Past it they are lost, and counted: work goes on."""
WRITE_SECONDS: Final = 0.05
"""How long a line may wait for its neighbours; a warning or worse does not wait."""

PLAIN_TYPES: Final = frozenset({str, int, float, bool, type(None), datetime})
Render = Callable[[EventDict], bytes]
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


class _Source(Struct):
    """Where the lines of one logger go, and what of them."""

    name: str
    level: int
    lines: Lines
    render: Render


class _Log(structlog.BoundLoggerBase):
    """What `structlog.get_logger` gives: one method a level. It keeps structlog's ways to bind.

    The chain of processors is not used: a request would pay more for it than for its line.
    """

    _logger: _Source

    def debug(self, event: str, **fields: Any) -> None:
        self._tell(logging.DEBUG, "debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._tell(logging.INFO, "info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._tell(logging.WARNING, "warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._tell(logging.ERROR, "error", event, fields)

    def critical(self, event: str, **fields: Any) -> None:
        self._tell(logging.CRITICAL, "critical", event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        self.error(event, **{"exc_info": True, **fields})

    def _tell(self, number: int, level: str, event: str, fields: EventDict) -> None:
        source = self._logger
        if number >= source.level:
            bound = structlog.contextvars.get_contextvars()
            if bound or self._context:
                fields = {**bound, **self._context, **fields}
            line = source.render(_line(source.name, level, event, fields))
            source.lines.put(line, is_urgent=number >= logging.WARNING)


class _Handler(logging.Handler):
    """What other libraries log, as lines of ours."""

    def __init__(self, lines: Lines, render: Render) -> None:
        super().__init__()
        self._lines = lines
        self._render_line = render

    def emit(self, record: logging.LogRecord) -> None:
        fields: EventDict = {**structlog.contextvars.get_contextvars()}
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        line = _line(record.name, record.levelname.lower(), record.getMessage(), fields)
        self._lines.put(self._render_line(line), is_urgent=record.levelno >= logging.WARNING)


def _line(name: str, level: str, event: str, fields: EventDict) -> EventDict:
    """Return an event as it is told: when, how bad, by whom. It still has its secrets."""
    if fields.get("exc_info"):
        # Exceptions become text before secrets are looked for.
        fields = structlog.processors.format_exc_info(None, level, fields)
    return {"at": datetime.now(UTC), "level": level, "logger": name, "event": event, **fields}


def _is_plain(line: EventDict) -> bool:
    """Tell, fast, whether no field of a line can be a secret but by how its text looks."""
    return _are_plain(tuple(line)) and PLAIN_TYPES.issuperset(map(type, line.values()))


@lru_cache(maxsize=4_096)
def _are_plain(names: tuple[str, ...]) -> bool:
    return not any(SECRET_NAMES.search(name) for name in names)


def _masked(name: str, value: object) -> object:
    """Replace what may be a secret: by the name of the field, or by its looks."""
    if SECRET_NAMES.search(name):
        return MASK
    if isinstance(value, str):
        return SECRET_TEXTS.sub(MASK, value)
    if isinstance(value, Mapping):
        return {key: _masked(str(key), inner) for key, inner in value.items()}
    if isinstance(value, BaseException):
        return SECRET_TEXTS.sub(MASK, f"{type(value).__name__}: {value}")
    return value


def _without_secrets(line: EventDict) -> EventDict:
    return {name: _masked(name, value) for name, value in line.items()}


def _json(line: EventDict) -> bytes:
    try:
        if _is_plain(line):
            text = _encoder.encode(line)
            # One of these stands in whatever SECRET_TEXTS finds.
            if b"scrip_" not in text and b"://" not in text and b"whsec_" not in text:
                return text
        line = _without_secrets(line)
        return _encoder.encode(line)
    except (UnicodeEncodeError, OverflowError, TypeError, ValueError):
        # Half a character, a number beyond 64 bits, a name that is no text: slower, but told.
        return json.dumps(_without_secrets(line), default=str, skipkeys=True).encode()


def _for_person() -> Render:
    console = structlog.dev.ConsoleRenderer(
        colors=True, timestamp_key="at", exception_formatter=structlog.dev.plain_traceback
    )

    def render(line: EventDict) -> bytes:
        told = _without_secrets(line)
        text = console(None, line["level"], {**told, "at": line["at"].isoformat()})
        return text.encode("utf-8", "backslashreplace")

    return render


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
        processors=[],
        logger_factory=lambda name: _Source(name, root.level, lines, render),
        wrapper_class=_Log,
        cache_logger_on_first_use=True,
    )
