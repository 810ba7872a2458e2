"""How many histories are tried: `--hypothesis-profile=domain-long` tries twenty times as many."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "domain",
    max_examples=1_000,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("domain-long", settings.get_profile("domain"), max_examples=20_000)
