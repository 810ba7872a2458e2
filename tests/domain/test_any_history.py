"""Any history of commands, in memory: 4 parts, side by side, of 1 000 with up to 50 steps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.domain.machine import AnyHistory
from tests.domain.targets import InMemory, Target

PARTS = 4


class AnyHistoryInMemory(AnyHistory):
    """The rules alone."""

    def new_target(self) -> Target:
        """Return the rules without a store."""
        return InMemory()


@pytest.fixture(name="profile")
def _profile() -> Any:
    long = settings.get_current_profile_name() == "domain-long"
    return settings.get_profile("domain-long" if long else "domain")


@pytest.mark.timeout(0)
@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_is_asked_no_credit_is_made_or_lost(part: int, profile: settings) -> None:
    kind = type(f"AnyHistory{part}", (AnyHistoryInMemory,), {})
    run_state_machine_as_test(kind, settings=profile)
