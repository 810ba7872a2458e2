"""The parts of Stripe's interface that Scrip uses: `/v1/…`, forms in, JSON out."""

from __future__ import annotations

import json
import re
import secrets
from typing import Any, Final
from urllib.parse import quote

from scrip.provider_server import stripe_objects as objects
from scrip.provider_server.book import PAGE_MAX, Object, Reply
from scrip.provider_server.stripe_book import DECLINED, KINDS, StripeBook, refused

LIMIT_DEFAULT: Final = 10
SESSION_SECONDS: Final = 86_400
FILTERS: Final = ("customer", "charge", "payment_intent", "subscription", "status", "type")
COMPARED: Final = {
    "gte": int.__ge__,
    "gt": int.__gt__,
    "lte": int.__le__,
    "lt": int.__lt__,
}
_BEARER = re.compile(r"Bearer (\S+)")


def answer(book: StripeBook, method: str, path: str, asked: Object, key: str | None) -> Reply:
    """Answer one request whose API key has been checked. `path` is what comes after `/v1/`.

    With an idempotency key, a request is done once, and its answer is kept: also a refusal of the
    payment itself, but not of a request that makes no sense.
    """
    with book.lock:
        if method != "POST" or key is None:
            return _answer(book, method, path, asked)
        question = json.dumps([path, asked], sort_keys=True)
        if key in book.answered:
            before, kept = book.answered[key]
            if before != question:
                message = (
                    "Keys for idempotent requests can only be used with the same parameters they "
                    "were first used with. Try using a key other than "
                    f"'{key}' if you meant to execute a different request."
                )
                raise refused(400, message, type_="idempotency_error")
            return Reply(
                status=kept.status, body=kept.body, headers={"Idempotent-Replayed": "true"}
            )
        made = _answer(book, method, path, asked)
        # As it was: the object that it shows will change.
        kept = Reply(status=made.status, body=json.loads(json.dumps(made.body)))
        book.answered[key] = (question, kept)
        return made


def key_of(authorization: str) -> str | None:
    """Return the API key of a request, in either of the ways that Stripe takes it."""
    found = _BEARER.fullmatch(authorization)
    return None if found is None else found[1]


def _answer(book: StripeBook, method: str, path: str, asked: Object) -> Reply:
    if method == "POST":
        make = _MAKERS.get(path)
        if make is None:
            raise refused(404, f"Unrecognized request URL (POST: /v1/{path}).")
        return make(book, asked)
    expand = asked.pop("expand", [])
    of_customer = re.fullmatch(r"customers/([^/]+)/payment_methods", path)
    if of_customer is not None:
        book.get("customers", of_customer[1])
        return Reply(body=_page(book, "payment_methods", {**asked, "customer": of_customer[1]}))
    if path in KINDS:
        found = _page(book, path, asked)
        inner = [name.removeprefix("data.") for name in expand if name.startswith("data.")]
        return Reply(body={**found, "data": [shown(one, inner) for one in found["data"]]})
    kind, _, id_ = path.rpartition("/")
    if kind not in KINDS:
        raise refused(404, f"Unrecognized request URL (GET: /v1/{path}).")
    return Reply(body=shown(book.get(kind, id_), expand))


def shown(one: Object, expand: list[str]) -> Object:
    """Return an object as an answer shows it: what is only shown when asked for is left out."""
    visible = {name: value for name, value in one.items() if not name.startswith("_")}
    if one["object"] == "checkout.session" and "line_items" in expand:
        url = f"/v1/checkout/sessions/{one['id']}/line_items"
        visible["line_items"] = objects.listed(one["_line_items"], url)
    if one["object"] == "invoice" and "payments" not in expand:
        visible.pop("payments", None)
    if one["object"] == "webhook_endpoint":
        visible.pop("secret", None)
    return visible


def _page(book: StripeBook, path: str, asked: Object) -> Object:
    """Return a page of a list, the newest first."""
    limit = _number(asked.pop("limit", LIMIT_DEFAULT))
    if not 1 <= limit <= PAGE_MAX:
        raise refused(
            400, f"Invalid limit: must be between 1 and {PAGE_MAX}", code="parameter_invalid"
        )
    after = asked.pop("starting_after", None)
    created = asked.pop("created", {})
    unknown = [name for name in asked if name not in FILTERS]
    if unknown:
        raise refused(400, f"Received unknown parameter: {unknown[0]}", code="parameter_unknown")
    found = sorted(
        (one for one in book.kept[path].values() if _fits(one, asked, created)),
        key=lambda one: (one.get("created", 0), one["id"]),
        reverse=True,
    )
    if after is not None:
        book.get(path, after, param="starting_after")
        last = book.kept[path][after]
        before = (last.get("created", 0), after)
        found = [one for one in found if (one.get("created", 0), one["id"]) < before]
    return objects.listed(found[:limit], f"/v1/{path}", has_more=len(found) > limit)


def _fits(one: Object, asked: Object, created: Any) -> bool:
    if isinstance(created, str):
        created = {"gte": created, "lte": created}
    return all(one.get(name) == value for name, value in asked.items()) and all(
        COMPARED[name](one["created"], _number(value)) for name, value in created.items()
    )


def _number(value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise refused(400, f"Invalid integer: {value}", code="parameter_invalid_integer") from None


def _required(asked: Object, name: str) -> Any:
    if not asked.get(name):
        raise refused(400, f"Missing required param: {name}.", code="parameter_missing")
    return asked[name]


def _make_price(book: StripeBook, asked: Object) -> Reply:
    amount = _number(_required(asked, "unit_amount"))
    interval = asked.get("recurring", {}).get("interval")
    return Reply(body=book.add_price(amount, _required(asked, "currency"), interval))


def _make_customer(book: StripeBook, asked: Object) -> Reply:
    return Reply(body=book.add_customer(**asked.get("metadata", {})))


def _make_endpoint(book: StripeBook, asked: Object) -> Reply:
    made = {
        "id": book.new_id("we"),
        "object": "webhook_endpoint",
        "api_version": None,
        "created": book.now(),
        "enabled_events": _required(asked, "enabled_events"),
        "livemode": False,
        "secret": f"whsec_{secrets.token_hex(16)}",
        "status": "enabled",
        "url": _required(asked, "url"),
    }
    # The secret is in this answer alone.
    return Reply(body=book.keep("webhook_endpoints", made))


def _make_refund(book: StripeBook, asked: Object) -> Reply:
    charge = asked.get("charge")
    if charge is None:
        intent = book.get("payment_intents", _required(asked, "payment_intent"), param="charge")
        charge = intent["latest_charge"]
    amount = asked.get("amount")
    given = None if amount is None else _number(amount)
    return Reply(body=book.refund(charge, given))


def _make_session(book: StripeBook, asked: Object) -> Reply:
    mode = _required(asked, "mode")
    items = [_line_item(book, mode, item) for item in _required(asked, "line_items")]
    customer = asked.get("customer")
    if customer is not None:
        book.get("customers", customer, param="customer")
    creation = asked.get("customer_creation")
    if creation is not None and (mode != "payment" or customer is not None):
        raise refused(400, "`customer_creation` can only be used in `payment` mode.")
    if mode == "subscription" and "payment_intent_data" in asked:
        raise refused(400, "You can not pass `payment_intent_data` in `subscription` mode.")
    if mode == "payment" and "subscription_data" in asked:
        raise refused(400, "You can not pass `subscription_data` in `payment` mode.")
    total = sum(item["amount_total"] for item in items)
    id_ = book.new_id("cs_test")
    made = {
        "id": id_,
        "object": "checkout.session",
        "amount_subtotal": total,
        "amount_total": total,
        "cancel_url": asked.get("cancel_url"),
        "client_reference_id": asked.get("client_reference_id"),
        "created": book.now(),
        "currency": items[0]["price"]["currency"],
        "customer": customer,
        "customer_creation": "always" if mode == "subscription" else creation or "if_required",
        "expires_at": book.now() + SESSION_SECONDS,
        "invoice": None,
        "livemode": False,
        "metadata": asked.get("metadata", {}),
        "mode": mode,
        "payment_intent": None,
        "payment_status": "unpaid",
        "status": "open",
        "subscription": None,
        "success_url": _required(asked, "success_url"),
        "url": f"{book.base_url}/pay/{quote(id_)}",
        "_line_items": items,
        "_payment_intent_data": asked.get("payment_intent_data", {}),
        "_subscription_data": asked.get("subscription_data", {}),
    }
    return Reply(body=shown(book.keep("checkout/sessions", made), []))


def _line_item(book: StripeBook, mode: str, item: Object) -> Object:
    price = book.get("prices", _required(item, "price"), param="line_items[0][price]")
    if mode == "payment" and price["type"] == "recurring":
        message = (
            "You specified `payment` mode but passed a recurring price. Either switch to "
            "`subscription` mode or use only one-time prices."
        )
        raise refused(400, message)
    if mode == "subscription" and price["type"] != "recurring":
        raise refused(400, "You must provide at least one recurring price in `subscription` mode.")
    quantity = _number(item.get("quantity", 1))
    return {
        "id": book.new_id("li"),
        "object": "item",
        "amount_subtotal": price["unit_amount"] * quantity,
        "amount_total": price["unit_amount"] * quantity,
        "currency": price["currency"],
        "price": price,
        "quantity": quantity,
    }


def _make_intent(book: StripeBook, asked: Object) -> Reply:
    amount = _number(_required(asked, "amount"))
    made = objects.intent(book.new_id("pi"), amount, _required(asked, "currency"), book.now())
    made["metadata"] = asked.get("metadata", {})
    customer = asked.get("customer")
    if customer is not None:
        made["customer"] = book.get("customers", customer, param="customer")["id"]
    card = asked.get("payment_method")
    if card is not None:
        book.get("payment_methods", card, param="payment_method")
        made.update(payment_method=card, status="requires_confirmation")
    book.keep("payment_intents", made)
    if asked.get("confirm") != "true":
        return Reply(body=made)
    if card is None:
        raise refused(400, "You must provide a payment method to confirm this PaymentIntent.")
    if card not in DECLINED:
        book.charge(made)
        return Reply(body=made)
    code, message = DECLINED[card]
    error: Object = {"type": "card_error", "code": code, "message": message}
    if code == "card_declined":
        error["decline_code"] = "generic_decline"
    made.update(payment_method=None, status="requires_payment_method", last_payment_error=error)
    book.tell("payment_intent.payment_failed", made)
    return Reply(status=402, body={"error": {**error, "payment_intent": made}})


_MAKERS: Final = {
    "prices": _make_price,
    "customers": _make_customer,
    "webhook_endpoints": _make_endpoint,
    "refunds": _make_refund,
    "checkout/sessions": _make_session,
    "payment_intents": _make_intent,
}
