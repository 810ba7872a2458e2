"""A command in one piece: the body of its route, and beside it what a path would say."""

from __future__ import annotations

from typing import Any

import msgspec

from api.endpoint import MADE, check_names
from api.fields import Name
from api.problems import Forbidden
from api.routes import Asked, Call, Route, Write
from ledger.records import Order

ACCOUNT = "account"


def item_of(
    base: type[Any],
    suffix: str,
    target: str | None = None,
    fields: tuple[tuple[str, Any], ...] = (),
    **options: Any,
) -> type[Any]:
    """Return `base` with the account, `fields`, and the `target` that a path names besides.

    `options` are those of msgspec. What Scrip has named may hold a `~`: see `check_names`.
    """
    named: list[tuple[str, Any]] = [(ACCOUNT, Name), *fields]
    if target is not None:
        named.append((target, str if target in MADE else Name))
    return msgspec.defstruct(
        base.__name__.removesuffix("In").removesuffix("Query") + suffix,
        named,
        bases=(base,),
        kw_only=True,
        frozen=True,
        forbid_unknown_fields=True,
        **options,
    )


def check_role(call: Call, route: Route) -> None:
    """Refuse what the role of the key does not allow."""
    assert route.roles is not None
    if call.principal.role not in route.roles:
        raise Forbidden(role=call.principal.role, needed=sorted(route.roles))


def order_of(call: Call, write: Write, item: Any, key: str) -> Order:
    """Return the order that an item of `write` is. Raises the LedgerError that refuses it."""
    assert isinstance(item, Asked)
    target = None
    if write.target is not None:
        target = getattr(item, write.target)
        check_names({write.target: target})
    return Order(
        tenant=call.tenant,
        account=getattr(item, ACCOUNT),
        command=item.command(target),
        key=key,
        by=call.by,
        reason=item.why,
    )
