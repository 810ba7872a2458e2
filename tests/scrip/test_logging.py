import json
import logging
import subprocess
import sys

PROGRAM = """
import logging, sys, structlog
from scrip.logging import configure_logging
configure_logging("info", sys.argv[1])
log = structlog.get_logger("ledger.writer")
with structlog.contextvars.bound_contextvars(request_id="req_1"):
    log.info("command.handled", outcome="ok", api_key="hush", input_tokens=3, by="scrip_live_hush",
             url="postgresql://scrip_app:hush@db/scrip", headers={"Authorization": "hush"})
logging.getLogger("foreign").warning("lost %s", "nats://scrip:hush@nats")
logging.getLogger("nats").info("chatter")
log.debug("too.fine")
try:
    raise ValueError("postgresql://scrip_app:hush@db/scrip")
except ValueError:
    log.exception("bug")
"""


def lines_of(style: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, style], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    return done.stderr


def test_a_line_is_one_json_object_with_what_was_bound_at_the_edge() -> None:
    handled, foreign, bug = (json.loads(line) for line in lines_of("json").splitlines())
    assert handled.pop("at").endswith("Z")
    assert handled == {
        "event": "command.handled",
        "level": "info",
        "logger": "ledger.writer",
        "request_id": "req_1",
        "outcome": "ok",
        "api_key": "***",
        "input_tokens": 3,
        "by": "scrip_live_***",
        "url": "postgresql://***@db/scrip",
        "headers": {"Authorization": "***"},
    }
    assert (foreign["logger"], foreign["event"]) == ("foreign", "lost nats://***@nats")
    assert "ValueError: postgresql://***@db/scrip" in bug["exception"]


def test_no_secret_is_logged_in_any_style() -> None:
    for style in ("json", "console", "auto"):
        text = lines_of(style)
        assert "command.handled" in text
        assert "hush" not in text


def test_auto_is_json_where_nobody_watches() -> None:
    assert json.loads(lines_of("auto").splitlines()[0])["event"] == "command.handled"


def test_the_test_process_keeps_its_own_logging() -> None:
    assert not any(
        type(handler.formatter).__name__ == "ProcessorFormatter"
        for handler in logging.getLogger().handlers
    )
