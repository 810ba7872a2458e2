import json
import logging
import subprocess
import sys
import threading
import time

from scrip.logging import Lines

PROGRAM = """
import logging, sys, structlog
from scrip.logging import configure_logging
configure_logging("info", sys.argv[1])
log = structlog.get_logger("ledger.writer")
with structlog.contextvars.bound_contextvars(request_id="req_1"):
    log.info("command.handled", outcome="ok", api_key="hush", input_tokens=3, by="scrip_live_hush",
             url="postgresql://scrip_app:hush@db/scrip", headers={"Authorization": "hush"})
logging.getLogger("foreign").warning("lost %s", "nats://scrip:hush@nats")
log.info("webhook", sent="whsec_hush+/hush=")
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
    handled, foreign, webhook, bug = (json.loads(line) for line in lines_of("json").splitlines())
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
    assert webhook["sent"] == "whsec_***"
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


def test_a_line_is_written_before_the_process_ends_however_it_ends() -> None:
    program = """
import sys, structlog
from scrip.logging import configure_logging
configure_logging("info", "json")
log = structlog.get_logger("scrip.api")
for number in range(5_000):
    log.info("request.handled", number=number)
raise SystemExit(3) if sys.argv[1] == "exit" else ZeroDivisionError
"""
    for how, code in (("exit", 3), ("crash", 1)):
        done = subprocess.run(
            [sys.executable, "-c", program, how], capture_output=True, text=True, check=False
        )
        lines = [line for line in done.stderr.splitlines() if line.startswith("{")]
        assert done.returncode == code
        assert [json.loads(line)["number"] for line in lines] == list(range(5_000))


def test_a_log_that_nobody_reads_stops_no_work_and_tells_what_is_missing() -> None:
    is_read = threading.Event()
    written: list[bytes] = []

    def write(data: bytes) -> None:
        is_read.wait(60)
        written.append(data)

    lines = Lines(write, lines_max=100)
    lines.put(b"first", is_urgent=True)
    while lines.waiting:
        time.sleep(0.01)
    for _ in range(150):
        lines.put(b"line")
    is_read.set()
    lines.close()
    lines.put(b"last words")
    told = b"".join(written).splitlines()
    assert told.count(b"line") == 100
    assert told[0] == b"first"
    assert told[-1] == b"last words"
    (lost,) = (json.loads(line) for line in told if b"lines_lost" in line)
    assert (lost["level"], lost["count"]) == ("warning", 50)


def test_what_json_cannot_say_is_told_all_the_same() -> None:
    program = """
import structlog
from scrip.logging import configure_logging
configure_logging("info", "json")
structlog.get_logger("x").info("odd", half=chr(0xD800), large=2**70, kind=object,
                             token="hush", by="scrip_live_hush")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    odd = json.loads(done.stderr)
    assert (odd["half"], odd["large"], odd["kind"]) == ("\ud800", 2**70, "<class 'object'>")
    assert (odd["token"], odd["by"]) == ("***", "scrip_live_***")
