"""Events of a user system of the tenant's own to facts: its users are the accounts.

`user.created`, `user.updated`, `user.deleted`: `data.id` is the account. `credits.delta`: `data.id`
is the id of the change, `data.account` the account, `data.delta` a decimal text such as "-2.5".
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from api.fields import Moment
from api.webhooks.reading import Part, Unreadable
from ledger.domain.facts import Content, CreditsDelta, PaymentFact, User, UserChange, fact
from ledger.domain.values import NAME_MAX, parse_decimal

_USERS: Final[dict[str, UserChange]] = {
    "user.created": "created",
    "user.updated": "updated",
    "user.deleted": "deleted",
}


def facts(delivery_id: str, type: str, payload: dict[str, Any]) -> tuple[PaymentFact, ...]:  # noqa: A002 - the provider's word
    """Return what an event of a user system tells: nothing, if its type is none of ours.

    `payload` is the whole event. Raises Unreadable where a field that is needed is not there.
    """
    event = Part(payload)
    data = event.part("data")
    content: Content
    if type in _USERS:
        account = _account(data, "id")
        content = User(user=f"account:{account}", change=_USERS[type])
        refs: set[str] = set()
    elif type == "credits.delta":
        account = _account(data, "account")
        delta = f"users:delta:{data.needed_id('id')}"
        content = CreditsDelta(delta=delta, amount=_delta(data))
        refs = {delta}
    else:
        return ()
    return (
        fact(
            provider="users",
            delivery=delivery_id,
            type=type,
            occurred_at=_time(event),
            refs=refs,
            owners={f"account:{account}"},
            content=content,
        ),
    )


def _account(data: Part, name: str) -> str:
    account = data.name(name)
    if account is None:
        rule = f"must be 1 to {NAME_MAX} letters, digits and _ . : @ | + -"
        raise Unreadable(data.field(name), rule)
    return account


def _delta(data: Part) -> int:
    told = data.get("delta")
    if not isinstance(told, str):
        raise Unreadable(data.field("delta"), 'must be a text such as "12.5"')
    try:
        return parse_decimal(told, signed=True)
    except ValueError as error:
        raise Unreadable(data.field("delta"), str(error)) from None


def _time(event: Part) -> datetime:
    try:
        return Moment.parse(event.get("timestamp")).value
    except ValueError as error:
        raise Unreadable(event.field("timestamp"), str(error)) from None
