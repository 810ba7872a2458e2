"""Events of Clerk to payment facts: its users, and its billing, which is in beta and may change."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from api.webhooks.reading import Part, refs
from ledger.domain.facts import (
    Content,
    Item,
    Line,
    PaymentFact,
    PeriodPaid,
    Subscription,
    SubscriptionStatus,
    User,
    UserChange,
    fact,
)
from ledger.domain.offers import Money

_MILLIS: Final = 1_000
_USERS: Final[dict[str, UserChange]] = {
    "user.created": "created",
    "user.updated": "updated",
    "user.deleted": "deleted",
}
_STATUSES: Final[dict[str, SubscriptionStatus]] = {
    "incomplete": "incomplete",
    "upcoming": "upcoming",
    "active": "active",
    "past_due": "past_due",
    "pastDue": "past_due",
    "canceled": "active",  # It is had until its period ends.
    "ended": "ended",
    "expired": "ended",
    "abandoned": "ended",
}


def facts(delivery_id: str, type: str, payload: dict[str, Any]) -> tuple[PaymentFact, ...]:  # noqa: A002 - the provider's word
    """Return what an event of Clerk tells: nothing, if its type is none of ours.

    `payload` is the whole event, `delivery_id` its `svix-id`. Raises Unreadable where a field that
    is needed is not there.
    """
    event = Part(payload)
    data = event.part("data")
    if type in _USERS:
        told = [_user(_USERS[type], data)]
    elif type.startswith("subscription."):
        told = list(_subscription(data))
    elif type.startswith("subscriptionItem."):
        told = list(_item(data, data))
    elif type.startswith("paymentAttempt."):
        told = list(_attempt(data))
    else:
        return ()
    if not told:
        return ()
    at = event.time("timestamp", per_second=_MILLIS)
    if at is None:
        at = data.needed_time("updated_at", per_second=_MILLIS)
    return tuple(
        [
            fact(
                provider="clerk",
                delivery=delivery_id,
                type=type,
                # When it was paid is its period's start, in however many events it is told.
                occurred_at=content.lines[0].starts_at if isinstance(content, PeriodPaid) else at,
                refs=named,
                owners=owners,
                content=content,
            )
            for named, owners, content in told
        ]
    )


_Told = tuple[set[str], set[str], Content]


def _user(change: UserChange, user: Part) -> _Told:
    id_ = user.needed_id("id")
    owners = refs(clerk_user=id_)
    external = user.name("external_id")
    if external:
        owners.add(f"account:{external}")
    return set(), owners, User(user=f"clerk:user:{id_}", change=change)


def _owners(*parts: Part) -> set[str]:
    for part in parts:
        payer = part.part("payer")
        # Whoever acts for an organisation, it is the organisation that pays.
        if payer.id("organization_id"):
            return refs(clerk_organization=payer.id("organization_id"))
        if payer.id("user_id"):
            return refs(clerk_user=payer.id("user_id"))
    return set()


def _items(part: Part) -> Iterator[Part]:
    yield from part.parts("items")
    yield from part.parts("subscription_items")


def _subscription(subscription: Part) -> Iterator[_Told]:
    for item in _items(subscription):
        yield from _item(item, subscription, subscription.id("id"))


def _attempt(attempt: Part) -> Iterator[_Told]:
    if attempt.text("status") != "paid":
        return
    for item in _items(attempt):
        paid = _paid(item)
        if paid is not None:
            named = refs(clerk_item=item.id("id"), clerk_payment=attempt.id("payment_id"))
            yield named, _owners(item, attempt), paid


def _item(item: Part, around: Part, subscription: str | None = None) -> Iterator[_Told]:
    status = _STATUSES.get(item.text("status"))
    if status is None:
        return  # Of another kind than any that is documented: nothing is known of it.
    id_ = item.needed_id("id")
    subscription = subscription or item.id("subscription_id")
    named = refs(clerk_item=id_, clerk_subscription=subscription)
    owners = _owners(item, around)
    ends_at = item.time("period_end", per_second=_MILLIS)
    if status == "active" and _is_trial(item):
        status = "trialing"
    yield (
        named,
        owners,
        Subscription(
            subscription=f"clerk:item:{id_}",
            status=status,
            items=(
                Item(
                    id=id_,
                    price=_plan(item),
                    starts_at=item.time("period_start", per_second=_MILLIS),
                    ends_at=ends_at,
                ),
            ),
            cancel_at=ends_at if item.text("status") == "canceled" else None,
            ended_at=_ended_at(item) if status == "ended" else None,
            free=_is_free(item),
        ),
    )
    paid = _paid(item)
    if paid is not None:
        yield named, owners, paid


def _paid(item: Part) -> PeriodPaid | None:
    """Return the period that an item is paid for: an item that is active, and is none for free."""
    if item.text("status") != "active" or _is_free(item) or _is_trial(item):
        return None
    id_ = item.needed_id("id")
    starts_at = item.needed_time("period_start", per_second=_MILLIS)
    ends_at = item.needed_time("period_end", per_second=_MILLIS)
    money = item.part("amount").money("amount") or item.part("plan").needed_money("amount")
    period = f"{id_}:{item.whole('period_start')}"
    return PeriodPaid(
        payment=f"clerk:period:{period}",
        subscription=f"clerk:item:{id_}",
        money=Money(money.amount, money.currency),
        lines=(
            Line(
                id=period,
                item=id_,
                price=_plan(item),
                amount=money.amount,
                starts_at=starts_at,
                ends_at=ends_at,
            ),
        ),
    )


def _plan(item: Part) -> str | None:
    return item.part("plan").id("id") or item.id("plan_id")


def _is_free(item: Part) -> bool:
    plan = item.part("plan")
    if plan.get("is_default") is True:
        return True
    amount = item.part("amount").whole("amount")
    return (plan.whole("amount") if amount is None else amount) == 0


def _is_trial(item: Part) -> bool:
    return item.get("is_free_trial") is True


def _ended_at(item: Part) -> datetime | None:
    return item.time("ended_at", per_second=_MILLIS) or item.time("period_end", per_second=_MILLIS)
