"""`scrip provider-server`, as a user runs it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys

import httpx

COMMAND = (sys.executable, "-m", "scrip", "provider-server", "--port")


def test_the_server_says_where_it_is_and_stops_when_told_to() -> None:
    with subprocess.Popen([*COMMAND, "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        told = json.loads(child.stdout.readline())
        prices = httpx.get(
            f"{told['stripe_api_url']}/v1/prices",
            headers={"authorization": f"Bearer {told['stripe_api_key']}"},
            trust_env=False,
        )
        payments = httpx.get(
            f"{told['asaas_api_url']}/payments",
            headers={"access_token": told["asaas_api_key"]},
            trust_env=False,
        )
        child.send_signal(signal.SIGINT)
        assert child.wait(30) == 0
    assert (prices.json()["data"], payments.json()["data"]) == ([], [])


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*COMMAND, str(port)], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 1
    assert done.stderr == f"cannot listen on port {port}: Address already in use\n"
