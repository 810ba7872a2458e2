"""The pretended providers, for one test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scrip.provider_server.server import ProviderServer


@pytest.fixture
def providers() -> Iterator[ProviderServer]:
    """Run Stripe and Asaas, with empty books."""
    with ProviderServer() as server:
        yield server
