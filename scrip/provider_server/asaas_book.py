"""What the pretended Asaas keeps: payment links, and payments that come by them or otherwise."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from scrip.provider_server.book import Book, Object, ProviderError, Reply, encode
from scrip.provider_server.sending import Delivery

ZONE: Final = ZoneInfo("America/Sao_Paulo")
HEADER: Final = "asaas-access-token"
CENTS: Final = Decimal("0.01")


def refused(status: int, code: str, description: str) -> ProviderError:
    """Return an error as Asaas tells it."""
    errors = [{"code": code, "description": description}]
    return ProviderError(Reply(status=status, body={"errors": errors}))


def reais(value: Any) -> Decimal:
    """Return an amount as Asaas writes it: `94.51`, a number in its JSON."""
    return Decimal(str(value)).quantize(CENTS)


class AsaasBook(Book):
    """The books of an account at Asaas. All that changes a payment can send events."""

    def __init__(self, *args: Any, **more: Any) -> None:
        """Begin with nothing."""
        super().__init__(*args, **more)
        self.links: dict[str, Object] = {}
        self.payments: dict[str, Object] = {}
        self.webhooks: dict[str, Object] = {}

    def local(self) -> datetime:
        """Return the time on Asaas' clock."""
        return datetime.fromtimestamp(self.clock(), UTC).astimezone(ZONE)

    def link(self, id_: str) -> Object:
        """Return a payment link. Raises ProviderError."""
        return _found(self.links, id_)

    def payment(self, id_: str) -> Object:
        """Return a payment. Raises ProviderError."""
        return _found(self.payments, id_)

    def add_payment(self, value: Any, *, status: str = "PENDING", **more: Any) -> Object:
        """Add a payment of so many reais, without telling anybody."""
        today = self.local().date().isoformat()
        id_ = self.new_id("pay")
        made: Object = {
            "object": "payment",
            "id": id_,
            "dateCreated": today,
            "customer": self.new_id("cus"),
            "subscription": None,
            "installment": None,
            "paymentLink": None,
            "value": reais(value),
            "netValue": reais(reais(value) * Decimal("0.98")),
            "billingType": "PIX",
            "status": "PENDING",
            "dueDate": today,
            "confirmedDate": None,
            "paymentDate": None,
            "clientPaymentDate": None,
            "externalReference": None,
            "deleted": False,
            "refunds": None,
            "chargeback": None,
            **more,
        }
        with self.lock:
            self.payments[id_] = made
            self._set(made, status)
        return made

    def _set(self, payment: Object, status: str) -> None:
        payment["status"] = status
        today = self.local().date().isoformat()
        if status in {"CONFIRMED", "RECEIVED"}:
            payment["confirmedDate"] = payment["confirmedDate"] or today
            payment["clientPaymentDate"] = payment["clientPaymentDate"] or today
        if status == "RECEIVED":
            payment["paymentDate"] = payment["paymentDate"] or today

    def move(self, payment: str, status: str, event: str | None = None) -> Object:
        """Bring a payment into a state, and tell of it."""
        with self.lock:
            of = self.payment(payment)
            self._set(of, status)
            self.tell(event or f"PAYMENT_{status}", of)
            return of

    def pay(self, link: str, status: str = "RECEIVED") -> Object:
        """Let somebody pay by a link; that of a subscription begins one.

        The payment names the link, but not its reference: the documents do not say whether it does.
        """
        with self.lock:
            of = self.link(link)
            more: Object = {"paymentLink": link, "billingType": "PIX"}
            if of["chargeType"] == "RECURRENT":
                more["subscription"] = self.new_id("sub")
            made = self.add_payment(of["value"], **more)
            self.tell("PAYMENT_CREATED", made)
            return self.move(made["id"], status)

    def refund(self, payment: str, value: Any = None) -> Object:
        """Give money of a payment back: all of it, or so many reais."""
        with self.lock:
            of = self.payment(payment)
            given = reais(of["value"] if value is None else value)
            total = given + sum(one["value"] for one in of["refunds"] or ())
            if given <= 0 or total > of["value"]:
                raise refused(400, "invalid_value", "O valor do estorno é inválido.")
            when = self.local().strftime("%Y-%m-%d %H:%M:%S")
            one = {"dateCreated": when, "status": "DONE", "value": given, "description": None}
            of["refunds"] = [*(of["refunds"] or []), one]
            if total == of["value"]:
                return self.move(payment, "REFUNDED")
            self.tell("PAYMENT_PARTIALLY_REFUNDED", of)
            return of

    def dispute(self, payment: str) -> Object:
        """Let the payer's bank claim the money back."""
        with self.lock:
            self.payment(payment)["chargeback"] = {"status": "REQUESTED", "reason": "FRAUD"}
            return self.move(payment, "CHARGEBACK_REQUESTED")

    def tell(self, event: str, payment: Object) -> Object:
        """Make an event about a payment as it is now, and send it to all that want it."""
        number = self.new_id("evt").removeprefix("evt_")
        made = {
            "id": f"evt_{number.rjust(32, '0')}&{int(number)}",
            "event": event,
            "dateCreated": self.local().strftime("%Y-%m-%d %H:%M:%S"),
            "payment": copy.deepcopy(payment),
        }
        self.deliveries.append(made)
        self.send(made)
        return made

    def send(self, event: Object) -> None:
        """Send an event, perhaps again, to all webhooks that want it."""
        body = encode(event)
        for webhook in self.webhooks.values():
            if webhook["enabled"] and event["event"] in (webhook["events"] or [event["event"]]):
                headers = {HEADER: webhook["authToken"]} if webhook["authToken"] else {}
                self.sender.send(Delivery(url=webhook["url"], body=body, headers=headers))

    def add_link(self, asked: Object) -> Object:
        """Add a payment link."""
        id_ = self.new_id("link").removeprefix("link_")
        days = asked.get("dueDateLimitDays")
        made = {
            "id": id_,
            "name": asked["name"],
            "value": None if asked.get("value") is None else reais(asked["value"]),
            "active": True,
            "chargeType": asked["chargeType"],
            "url": f"{self.base_url}/c/{id_}",
            "billingType": asked["billingType"],
            "subscriptionCycle": asked.get("subscriptionCycle"),
            "description": asked.get("description"),
            "endDate": asked.get("endDate"),
            "deleted": False,
            "viewCount": 0,
            "maxInstallmentCount": asked.get("maxInstallmentCount", 1),
            "dueDateLimitDays": days,
            "notificationEnabled": asked.get("notificationEnabled", True),
            "isAddressRequired": asked.get("isAddressRequired", False),
            "externalReference": asked.get("externalReference"),
            "callback": asked.get("callback"),
        }
        self.links[id_] = made
        return made


def day(text: object) -> str:
    """Return a day of a query. Raises ProviderError."""
    try:
        return datetime.strptime(str(text), "%Y-%m-%d").replace(tzinfo=UTC).date().isoformat()
    except ValueError:
        raise refused(400, "invalid_date", "A data informada é inválida.") from None


def _found(kept: dict[str, Object], id_: str) -> Object:
    found = kept.get(id_)
    if found is None:
        raise ProviderError(Reply(status=404, body={}))
    return found
