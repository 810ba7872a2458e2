"""Logs: one line an event, JSON or in colour, to standard error. Other libraries' logs join in."""

import logging
import re
import sys
from collections.abc import Mapping
from typing import Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

MASK = "***"
SECRET_NAMES = re.compile(r"authorization|passw|secret|token(?!s)|api_key|cookie", re.IGNORECASE)
# An API key, or the password in a URL.
SECRET_TEXTS = re.compile(
    r"(?<=scrip_live_)\w+|(?<=scrip_test_)\w+|(?<=://)[^/\s:@]*:[^/\s@]*(?=@)"
)

# What these say at `info` repeats what the canonical line of a request or command says.
CHATTY = ("httpx", "httpcore", "uvicorn.access", "nats", "psycopg.pool")


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace what may be a secret: by the name of the field, or by its looks."""
    return {name: _masked(name, value) for name, value in event.items()}


def _masked(name: str, value: object) -> object:
    if SECRET_NAMES.search(name):
        return MASK
    if isinstance(value, str):
        return SECRET_TEXTS.sub(MASK, value)
    if isinstance(value, Mapping):
        return {key: _masked(str(key), inner) for key, inner in value.items()}
    if isinstance(value, BaseException):
        return SECRET_TEXTS.sub(MASK, f"{type(value).__name__}: {value}")
    return value


def configure_logging(
    level: str = "info", style: Literal["auto", "json", "console"] = "auto"
) -> None:
    """Send every log of this process to standard error, as JSON lines or for a person."""
    for_person = style == "console" or (style == "auto" and sys.stderr.isatty())
    # Exceptions become text before secrets are looked for.
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        mask_secrets,
    ]
    render: Processor = (
        structlog.dev.ConsoleRenderer(
            colors=True, timestamp_key="at", exception_formatter=structlog.dev.plain_traceback
        )
        if for_person
        else structlog.processors.JSONRenderer(default=str)
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    # uvicorn brings handlers of its own.
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
