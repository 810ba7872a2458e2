"""The example in docs/nats.md, word for word."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from api.nats_endpoints import endpoints
from consumers.streams import token_of
from scrip.embedded import EmbeddedNats
from tests.api.nats_room import Asker
from tests.api.room import Service

ENDPOINTS = {endpoint.name for endpoint in endpoints()}
DOCUMENT = Path(__file__).parents[2] / "docs" / "nats.md"
HEADING = "## Commands: request and reply"


def section() -> str:
    """Return the part of the document that is about requests."""
    return DOCUMENT.read_text().split(HEADING)[1].split("\n## ")[0]


def test_the_example_reserves(
    nats_service: Service, nats_server: EmbeddedNats, nats: Asker, tmp_path: Path
) -> None:
    tenant = nats_service.tenant("demo")
    tenant.account("10", "acct-7")
    (tmp_path / ".scrip").mkdir()
    (tmp_path / ".scrip" / "dev.json").write_text(
        json.dumps(
            {
                "nats_url": nats_server.url,
                "tenant": "demo",
                "keys": {"service": tenant.service.secret},
            }
        )
    )
    (example,) = re.findall(r"```python\n(.*?)```", section(), re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("201 {'id': 'job-4711', 'account': 'acct-7', 'status': 'open'")

    # What the command line sends in the next example.
    ((subject, body, key),) = re.findall(
        r"nats request (\S+) '(.*?)'.*Idempotency-Key: (\S+?)\"", section(), re.DOTALL
    )
    assert subject == f"scrip.{token_of(tenant.name)}.ledger.capture"
    captured = nats.ask(tenant, "capture", json.loads(body), key=key)
    assert (captured.status, captured.body["reservation"]["status"]) == (200, "captured")
    tenant.close()


def test_every_header_and_subject_of_the_tables_is_one() -> None:
    told = set(re.findall(r"^\| `scrip\.<tenant>\.ledger\.(\w+)`", section(), re.MULTILINE))
    (others,) = re.findall(r"^The other commands of a batch — (.*) — are", section(), re.MULTILINE)
    told |= set(re.findall(r"`(\w+)`", others))
    source = (DOCUMENT.parents[1] / "api" / "nats_requests.py").read_text()
    headers = re.findall(r"^\| `([A-Z][\w-]+)`(?:, `([A-Z][\w-]+)`)? \|", section(), re.MULTILINE)
    answered = {name for pair in headers for name in pair if name} - {
        "Authorization",
        "Idempotency-Key",
    }
    assert told == ENDPOINTS
    assert [name for name in answered if f'"{name}"' not in source] == []
