"""The stream of a tenant itself: the rules of its catalog, and alerts, which stand between."""

from __future__ import annotations

from datetime import datetime

from ledger.domain.bounds import check_name
from ledger.domain.catalog import Catalog, decide_catalog, evolve_catalog
from ledger.domain.commands import RaiseAlert, TenantCommand
from ledger.domain.errors import InvalidCommand
from ledger.domain.tenant_events import AlertRaised, TenantEvent
from ledger.domain.values import TEXT_MAX, is_storable


def decide_tenant(catalog: Catalog, command: TenantCommand, now: datetime) -> TenantEvent:
    """Return what `command` makes happen at `now`. An alert is raised whatever is sold."""
    if isinstance(command, RaiseAlert):
        return _alert(command)
    return decide_catalog(catalog, command, now)


def evolve_tenant(catalog: Catalog, event: TenantEvent) -> None:
    """Change `catalog` by one event. An alert only counts: versions are places in the stream."""
    if isinstance(event, AlertRaised):
        catalog.version += 1
    else:
        evolve_catalog(catalog, event)


def _alert(command: RaiseAlert) -> AlertRaised:
    check_name("code", command.code)
    for field, text in (
        ("subject", command.subject),
        ("price", command.price or None),
        ("detail", command.detail or None),
    ):
        if text is not None and not is_storable(text):
            rule = f"must be 1 to {TEXT_MAX} characters, none of them NUL or a lone surrogate"
            raise InvalidCommand(field=field, rule=rule)
    return AlertRaised(
        code=command.code, subject=command.subject, price=command.price, detail=command.detail
    )
