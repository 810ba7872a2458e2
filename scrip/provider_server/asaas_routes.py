"""The parts of Asaas' interface that Scrip uses: `/v3/…`, JSON in and out."""

from __future__ import annotations

import re
from typing import Any, Final

from scrip.provider_server.asaas_book import AsaasBook, day, refused
from scrip.provider_server.book import PAGE_MAX, Object, ProviderError, Reply

LIMIT_DEFAULT: Final = 10
FILTERS: Final = ("customer", "subscription", "externalReference", "status", "paymentLink")
_COMPARED: Final = re.compile(r"(dateCreated|paymentDate|dueDate)\[(ge|le)\]")
CHARGE_TYPES: Final = ("DETACHED", "RECURRENT", "INSTALLMENT")


def answer(book: AsaasBook, method: str, path: str, asked: Object) -> Reply:
    """Answer one request whose token has been checked. `path` is what comes after `/v3/`."""
    with book.lock:
        match method, path.split("/"):
            case "POST", ["paymentLinks"]:
                return Reply(body=_make_link(book, asked))
            case "GET", ["paymentLinks", id_]:
                return Reply(body=book.link(id_))
            case "GET", ["payments"]:
                return Reply(body=_page(book, asked))
            case "GET", ["payments", id_]:
                return Reply(body=book.payment(id_))
            case "POST", ["payments", id_, "refund"]:
                return Reply(body=book.refund(id_, asked.get("value")))
            case "POST", ["webhooks"]:
                return Reply(body=_make_webhook(book, asked))
        raise ProviderError(Reply(status=404, body={}))


def _make_link(book: AsaasBook, asked: Object) -> Object:
    for name in ("name", "billingType", "chargeType"):
        if not asked.get(name):
            raise refused(400, f"invalid_{name}", f"O campo {name} deve ser informado.")
    if asked["chargeType"] not in CHARGE_TYPES:
        raise refused(400, "invalid_chargeType", "O tipo de cobrança é inválido.")
    if asked["billingType"] in {"UNDEFINED", "BOLETO"} and not asked.get("dueDateLimitDays"):
        raise refused(400, "invalid_dueDateLimitDays", "Informe dueDateLimitDays.")
    if asked["chargeType"] == "RECURRENT" and not asked.get("subscriptionCycle"):
        raise refused(400, "invalid_subscriptionCycle", "Informe subscriptionCycle.")
    return book.add_link(asked)


def _make_webhook(book: AsaasBook, asked: Object) -> Object:
    if not asked.get("url"):
        raise refused(400, "invalid_url", "O campo url deve ser informado.")
    id_ = book.new_id("wh")
    made = {
        "id": id_,
        "name": asked.get("name"),
        "url": asked["url"],
        "enabled": asked.get("enabled", True),
        "interrupted": False,
        "sendType": asked.get("sendType", "SEQUENTIALLY"),
        "events": asked.get("events", []),
        "authToken": asked.get("authToken"),
    }
    book.webhooks[id_] = made
    return {name: value for name, value in made.items() if name != "authToken"} | {
        "hasAuthToken": made["authToken"] is not None
    }


def _page(book: AsaasBook, asked: Object) -> Object:
    offset = _number(asked.pop("offset", 0), "offset", 0, None)
    limit = _number(asked.pop("limit", LIMIT_DEFAULT), "limit", 1, PAGE_MAX)
    found = [
        payment
        for payment in reversed(book.payments.values())
        if all(_fits(payment, name, value) for name, value in asked.items())
    ]
    return {
        "object": "list",
        "hasMore": offset + limit < len(found),
        "totalCount": len(found),
        "limit": limit,
        "offset": offset,
        "data": found[offset : offset + limit],
    }


def _fits(payment: Object, name: str, value: Any) -> bool:
    compared = _COMPARED.fullmatch(name)
    if compared is not None:
        at = payment[compared[1]]
        if at is None:
            return False
        bound = day(value)
        return bool(at >= bound if compared[2] == "ge" else at <= bound)
    if name not in FILTERS:
        raise refused(400, "invalid_parameter", f"O parâmetro {name} é inválido.")
    return bool(payment[name] == value)


def _number(value: object, name: str, lowest: int, highest: int | None) -> int:
    text = str(value)
    if text.isdigit() and lowest <= int(text) and (highest is None or int(text) <= highest):
        return int(text)
    raise refused(400, f"invalid_{name}", f"O parâmetro {name} é inválido.")
