"""What the pretended Stripe keeps, and what happens there: somebody pays, somebody disputes."""

from __future__ import annotations

import copy
from typing import Any, Final, Literal

from scrip.provider_server import stripe_objects as objects
from scrip.provider_server.book import Book, Object, ProviderError, Reply, encode
from scrip.provider_server.sending import Delivery

KINDS: Final = {
    "prices": "price",
    "customers": "customer",
    "payment_methods": "payment_method",
    "payment_intents": "payment_intent",
    "charges": "charge",
    "refunds": "refund",
    "disputes": "dispute",
    "subscriptions": "subscription",
    "invoices": "invoice",
    "checkout/sessions": "checkout.session",
    "events": "event",
    "webhook_endpoints": "webhook_endpoint",
}
"""What the objects of a path are."""
DECLINED: Final = {
    "pm_card_chargeDeclined": ("card_declined", "Your card was declined."),
    "pm_card_authenticationRequired": (
        "authentication_required",
        "Your card was declined. This transaction requires authentication.",
    ),
}
"""Payment methods that never pay, by the names that Stripe's test mode has for such."""


def refused(
    status: int, message: str, *, code: str | None = None, type_: str = "invalid_request_error"
) -> ProviderError:
    """Return an error as Stripe tells it."""
    error: Object = {"type": type_, "message": message}
    if code is not None:
        error["code"] = code
    return ProviderError(Reply(status=status, body={"error": error}))


class StripeBook(Book):
    """The books of an account at Stripe. All that changes them can send events."""

    def __init__(self, *args: Any, **more: Any) -> None:
        """Begin with nothing."""
        super().__init__(*args, **more)
        self.kept: dict[str, dict[str, Object]] = {path: {} for path in KINDS}
        self.answered: dict[str, tuple[str, Reply]] = {}
        """What was answered under each idempotency key, and what had been asked."""

    # -- objects -----------------------------------------------------------------------------

    def get(self, path: str, id_: str, *, param: str | None = None) -> Object:
        """Return an object. Raises ProviderError."""
        found = self.kept[path].get(id_)
        if found is None:
            kind = KINDS[path].replace("_", " ")
            status = 404 if param is None else 400
            error = refused(status, f"No such {kind}: '{id_}'", code="resource_missing")
            if param is not None:
                error.reply.body["error"]["param"] = param
            raise error
        return found

    def keep(self, path: str, made: Object) -> Object:
        """Keep an object, and return it."""
        self.kept[path][made["id"]] = made
        return made

    def add_price(
        self, amount: int, currency: str = "usd", interval: str | None = None, id_: str = ""
    ) -> Object:
        """Add a price in the smallest unit; with an interval (`month`), a recurring one."""
        name = id_ or self.new_id("price")
        return self.keep("prices", objects.price(name, amount, currency, interval, self.now()))

    def add_customer(self, *, card: str | None = None, **metadata: str) -> Object:
        """Add a customer; `card`: with this payment method on file, used by default."""
        made = objects.customer(self.new_id("cus"), self.now(), metadata)
        with self.lock:
            self.keep("customers", made)
            if card is not None:
                self.save_card(made["id"], card)
        return made

    def save_card(self, customer: str, card: str = "") -> Object:
        """Put a card on file; one of `DECLINED` is kept under that name."""
        name = card or self.new_id("pm")
        made = objects.payment_method(name, customer, self.now())
        settings = self.get("customers", customer)["invoice_settings"]
        settings["default_payment_method"] = name
        return self.keep("payment_methods", made)

    # -- events ------------------------------------------------------------------------------

    def tell(self, type_: str, about: Object) -> Object:
        """Make an event about an object as it is now, and send it to all that want it."""
        event = {
            "id": self.new_id("evt"),
            "object": "event",
            "api_version": objects.API_VERSION,
            "created": self.now(),
            "data": {"object": copy.deepcopy(about)},
            "livemode": False,
            "pending_webhooks": 1,
            "request": {"id": None, "idempotency_key": None},
            "type": type_,
        }
        self.keep("events", event)
        self.deliveries.append(event)
        self.send(event)
        return event

    def send(self, event: Object) -> None:
        """Send an event, perhaps again, to all endpoints that want it."""
        body = encode(event)
        for endpoint in self.kept["webhook_endpoints"].values():
            wanted = endpoint["enabled_events"]
            if "*" in wanted or event["type"] in wanted:
                secret = endpoint["secret"]
                self.sender.send(Delivery(url=endpoint["url"], body=body, secret=secret))

    # -- what happens ------------------------------------------------------------------------

    def charge(self, intent: Object) -> Object:
        """Let an intent succeed, and return its charge."""
        made = self.keep("charges", objects.charge(self.new_id("ch"), intent, self.now()))
        intent.update(
            status="succeeded", amount_received=intent["amount"], latest_charge=made["id"]
        )
        self.tell("charge.succeeded", made)
        self.tell("payment_intent.succeeded", intent)
        return made

    def pay(self, session: str, *, later: bool = False) -> Object:
        """Let the customer pay a checkout session; `later`: the money comes by `arrive`."""
        with self.lock:
            paid = self.get("checkout/sessions", session)
            if paid["status"] != "open":
                raise refused(400, "This checkout session is not open.")
            if paid["customer"] is None and paid["customer_creation"] == "always":
                paid["customer"] = self.add_customer()["id"]
            paid["status"] = "complete"
            if paid["mode"] == "subscription":
                self._subscribe(paid)
            else:
                self._buy(paid, later=later)
            return paid

    def arrive(self, session: str) -> Object:
        """Let the money of a session that was to be paid later come."""
        with self.lock:
            paid = self.get("checkout/sessions", session)
            intent = self.get("payment_intents", paid["payment_intent"])
            paid["payment_status"] = "paid"
            self.charge(intent)
            self.tell("checkout.session.async_payment_succeeded", paid)
            return paid

    def _buy(self, session: Object, *, later: bool) -> None:
        data = session["_payment_intent_data"]
        made = objects.intent(
            self.new_id("pi"),
            session["amount_total"],
            session["currency"],
            self.now(),
            customer=session["customer"],
            metadata=data.get("metadata", {}),
            setup_future_usage=data.get("setup_future_usage"),
        )
        session["payment_intent"] = self.keep("payment_intents", made)["id"]
        if made["setup_future_usage"] and made["customer"]:
            self.save_card(made["customer"])
        if later:
            made["status"] = "processing"
        else:
            session["payment_status"] = "paid"
            self.charge(made)
        self.tell("checkout.session.completed", session)

    def _subscribe(self, session: Object) -> None:
        first = session["_line_items"][0]
        made = objects.subscription(
            self.new_id("sub"),
            item=self.new_id("si"),
            price_=first["price"],
            quantity=first["quantity"],
            customer_=session["customer"],
            start=self.now(),
        )
        made["metadata"] = session["_subscription_data"].get("metadata", {})
        session.update(subscription=self.keep("subscriptions", made)["id"], payment_status="paid")
        self.save_card(session["customer"])
        self.tell("customer.subscription.created", made)
        session["invoice"] = self.bill(made["id"], "subscription_create")["id"]
        self.tell("checkout.session.completed", session)

    def bill(self, subscription: str, reason: str = "subscription_cycle") -> Object:
        """Let the current period of a subscription be paid, and return the invoice."""
        with self.lock:
            of = self.get("subscriptions", subscription)
            id_ = self.new_id("in")
            lines = [objects.line(self.new_id("il"), of, id_)]
            made = self.keep("invoices", objects.invoice(id_, of, lines, reason, self.now()))
            of["latest_invoice"] = id_
            intent = objects.intent(
                self.new_id("pi"), made["amount_paid"], made["currency"], self.now()
            )
            intent["customer"] = of["customer"]
            charge = self.charge(self.keep("payment_intents", intent))
            payment = {"type": "payment_intent", "payment_intent": charge["payment_intent"]}
            inpay = {
                "id": self.new_id("inpay"),
                "object": "invoice_payment",
                "amount_paid": made["amount_paid"],
                "currency": made["currency"],
                "invoice": id_,
                "payment": payment,
                "status": "paid",
            }
            made["payments"] = objects.listed([inpay], f"/v1/invoice_payments?invoice={id_}")
            shown = {name: value for name, value in made.items() if name != "payments"}
            for type_ in ("invoice.paid", "invoice.payment_succeeded"):
                self.tell(type_, shown)
            self.tell("invoice_payment.paid", inpay)
            return made

    def renew(self, subscription: str) -> Object:
        """Let the next period of a subscription begin and be paid; return the invoice."""
        with self.lock:
            of = self.get("subscriptions", subscription)
            for item in of["items"]["data"]:
                start = item["current_period_end"]
                seconds = objects.PERIOD_SECONDS[item["price"]["recurring"]["interval"]]
                item.update(current_period_start=start, current_period_end=start + seconds)
            self.tell("customer.subscription.updated", of)
            return self.bill(subscription)

    def end(self, subscription: str) -> Object:
        """Let a subscription end now."""
        with self.lock:
            of = self.get("subscriptions", subscription)
            of.update(status="canceled", canceled_at=self.now(), ended_at=self.now())
            self.tell("customer.subscription.deleted", of)
            return of

    def refund(self, charge: str, amount: int | None = None) -> Object:
        """Give money of a charge back: all that is left of it, or `amount`."""
        with self.lock:
            of = self.get("charges", charge)
            left = of["amount"] - of["amount_refunded"]
            given = left if amount is None else amount
            if not 0 < given <= left:
                raise refused(400, "Refund amount is greater than unrefunded amount on charge.")
            of["amount_refunded"] += given
            of["refunded"] = of["amount_refunded"] == of["amount"]
            id_ = self.new_id("re")
            made = self.keep("refunds", objects.refund(id_, of, given, self.now()))
            self.tell("refund.created", made)
            self.tell("charge.refunded", of)
            return made

    def dispute(self, charge: str, amount: int | None = None) -> Object:
        """Let the bank of a customer open a dispute, and take the money for now."""
        with self.lock:
            of = self.get("charges", charge)
            of["disputed"] = True
            disputed = amount or of["amount"]
            id_ = self.new_id("dp")
            made = objects.dispute(id_, of, disputed, "needs_response", self.now())
            self.keep("disputes", made)
            self.tell("charge.dispute.created", made)
            self.tell("charge.dispute.funds_withdrawn", made)
            return made

    def close_dispute(self, dispute: str, status: Literal["won", "lost"]) -> Object:
        """Let a dispute end."""
        with self.lock:
            of = self.get("disputes", dispute)
            of["status"] = status
            self.tell("charge.dispute.closed", of)
            if status == "won":
                self.tell("charge.dispute.funds_reinstated", of)
            return of
