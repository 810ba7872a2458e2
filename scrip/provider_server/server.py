"""The pretended providers behind one port: `/v1/…` is Stripe's, `/v3/…` is Asaas'.

Where a customer would be sent to pay is a page of this server (`/pay/…`, `/c/…`), with a button.
"""

from __future__ import annotations

import contextlib
import html
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, Self

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from scrip.provider_server import asaas_book, asaas_routes, stripe_book, stripe_routes
from scrip.provider_server.asaas_book import AsaasBook
from scrip.provider_server.book import Book, Fault, Object, ProviderError, Reply, decode, encode
from scrip.provider_server.forms import parse_form
from scrip.provider_server.sending import Sender
from scrip.provider_server.stripe_book import StripeBook

HOST: Final = "127.0.0.1"
STRIPE_KEY: Final = "sk_test_local_provider_server_1"
ASAAS_KEY: Final = "$aact_hmlg_local_provider_server_1"
START_SECONDS_MAX: Final = 30.0
PAGE: Final = """<!doctype html><title>Pay</title><h1>{what}</h1>
<form method="post"><button>Pay</button></form><p>Nothing is charged: this page only pretends.</p>
"""


class ProviderServer:
    """Both providers, served from a thread of its own until the end of `with`."""

    def __init__(self, port: int = 0, clock: Callable[[], float] = time.time) -> None:
        """Listen on `port`, or on any that is free."""
        self._port = port
        self.sender = Sender()
        self.stripe = StripeBook(STRIPE_KEY, self.sender, clock)
        self.asaas = AsaasBook(ASAAS_KEY, self.sender, clock)
        self.base_url = ""
        self._stack = contextlib.ExitStack()

    @property
    def stripe_url(self) -> str:
        """What `SCRIP_STRIPE_API_URL` is to be."""
        return self.base_url

    @property
    def asaas_url(self) -> str:
        """What `SCRIP_ASAAS_API_URL` is to be."""
        return f"{self.base_url}/v3"

    def __enter__(self) -> Self:
        """Begin to listen. Raises OSError if the port is taken."""
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.create_server((HOST, self._port)))
            self.base_url = f"http://{HOST}:{listener.getsockname()[1]}"
            self.stripe.base_url = self.asaas.base_url = self.base_url
            stack.enter_context(self.sender)
            stack.enter_context(self._serving(listener))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._stack.close()

    @contextlib.contextmanager
    def _serving(self, listener: socket.socket) -> Iterator[None]:
        config = uvicorn.Config(
            self.app(), log_config=None, access_log=False, lifespan="off", ws="none"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listener]}, name="providers", daemon=True
        )
        thread.start()
        try:
            deadline = time.monotonic() + START_SECONDS_MAX
            while not server.started:
                assert time.monotonic() < deadline, "the server does not start"
                time.sleep(0.01)
            yield
        finally:
            server.should_exit = True
            thread.join()

    def app(self) -> Starlette:
        """Return the application."""
        return Starlette(
            routes=[
                Route("/v1/{path:path}", self._stripe, methods=["GET", "POST"]),
                Route("/v3/{path:path}", self._asaas, methods=["GET", "POST"]),
                Route("/pay/{id}", self._pay_stripe, methods=["GET", "POST"]),
                Route("/c/{id}", self._pay_asaas, methods=["GET", "POST"]),
            ]
        )

    async def _stripe(self, request: Request) -> Response:
        path = request.path_params["path"]
        headers = request.headers
        text = (await request.body()).decode() if request.method == "POST" else request.url.query

        def work() -> Reply:
            if stripe_routes.key_of(headers.get("authorization", "")) != self.stripe.key:
                raise stripe_book.refused(401, "Invalid API Key provided: ****")
            key = headers.get("idempotency-key")
            return stripe_routes.answer(self.stripe, request.method, path, parse_form(text), key)

        return await _answered(self.stripe, request, work, stripe_book.refused)

    async def _asaas(self, request: Request) -> Response:
        path = request.path_params["path"]
        token = request.headers.get("access_token")
        body = await request.body()

        def work() -> Reply:
            if token != self.asaas.key:
                raise asaas_book.refused(
                    401, "invalid_access_token", "A chave de API fornecida é inválida"
                )
            asked: Object = decode(body) if body else dict(request.query_params)
            return asaas_routes.answer(self.asaas, request.method, path, asked)

        return await _answered(
            self.asaas, request, work, lambda status, why: asaas_book.refused(status, "error", why)
        )

    async def _pay_stripe(self, request: Request) -> Response:
        id_ = request.path_params["id"]
        try:
            session = self.stripe.get("checkout/sessions", id_)
            if request.method == "GET":
                return HTMLResponse(_page(session["amount_total"], session["currency"]))
            later = "later" in request.query_params
            await run_in_threadpool(self.stripe.pay, id_, later=later)
        except ProviderError as error:
            return _response(error.reply)
        url = session["success_url"].replace("{CHECKOUT_SESSION_ID}", id_)
        return RedirectResponse(url, status_code=303)

    async def _pay_asaas(self, request: Request) -> Response:
        id_ = request.path_params["id"]
        try:
            link = self.asaas.link(id_)
            if request.method == "GET":
                return HTMLResponse(_page(round(link["value"] * 100), "brl"))
            await run_in_threadpool(self.asaas.pay, id_)
        except ProviderError as error:
            return _response(error.reply)
        callback = link["callback"] or {}
        if "successUrl" in callback:
            return RedirectResponse(callback["successUrl"], status_code=303)
        return HTMLResponse("<!doctype html><title>Paid</title><h1>Paid</h1>")


async def _answered(
    book: Book,
    request: Request,
    work: Callable[[], Reply],
    fault_of: Callable[[int, str], ProviderError],
) -> Response:
    """Do the work of one request, unless a fault is to come first."""
    book.requests.append((request.method, request.url.path))
    try:
        fault: Fault | None = book.faults.popleft() if book.faults else None
        if fault is not None and not fault.after_work:
            raise _failing(fault, fault_of)
        reply = await run_in_threadpool(work)
        if fault is not None:
            raise _failing(fault, fault_of)
    except ProviderError as error:
        reply = error.reply
    return _response(reply)


def _failing(fault: Fault, fault_of: Callable[[int, str], ProviderError]) -> ProviderError:
    why = "Too many requests" if fault.status == 429 else "Something went wrong"  # noqa: PLR2004
    told = fault_of(fault.status, why).reply
    return ProviderError(Reply(status=told.status, body=told.body, headers=fault.headers))


def _response(reply: Reply) -> Response:
    body = encode(reply.body)
    return Response(body, reply.status, headers=reply.headers, media_type="application/json")


def _page(amount: Any, currency: str) -> str:
    text = f"{amount // 100}.{amount % 100:02d} {currency.upper()}"
    return PAGE.format(what=html.escape(text))
