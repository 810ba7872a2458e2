"""Auto top-up: accounts that are short are topped up, once for each shortfall.

Where this may crash, and what follows:

    before the attempt is written    nothing was asked: the shortfall is found again
    before or after the provider is  the attempt is open: it is looked for at the provider, and
    asked, or before its answer is   asked for again under the same key only if it is not there;
    written                          a while later, one that is not there has failed
    after it is paid                 the credits come with the webhook, whatever happens here

Any number of processes may do it. Who writes an attempt's row makes it; whoever takes an open one
up counts its tries up, and what another has found out meanwhile is not written over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import psycopg
import structlog
from msgspec import Struct
from psycopg.rows import class_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from consumers import top_up_rows as rows
from consumers.charging import Charge
from consumers.health import Part
from consumers.writing import submit_all
from ledger.domain.catalog import pack_at
from ledger.domain.commands import RaiseAlert
from ledger.domain.errors import LedgerError
from ledger.domain.top_ups import (
    AttemptState,
    Charged,
    Credit,
    Due,
    Idle,
    TopUp,
    Why,
    attempt_id,
    judge,
    month_of,
)
from ledger.domain.values import TEXT_MAX, derived_id
from ledger.records import Order, View
from ledger.writer import Writer

log = structlog.get_logger(__name__)
T = TypeVar("T")

BY: Final = "service:top-ups"
POLL_SECONDS: Final = 1.0
PAGE_MAX: Final = 100
AT_ONCE: Final = 8
LOOK_AGAIN: Final = timedelta(minutes=1)
"""When an account is looked at again that is short, and not topped up."""
TRY_AGAIN_FIRST: Final = timedelta(minutes=1)
TRY_AGAIN_MAX: Final = timedelta(minutes=15)
ASK_FOR: Final = timedelta(hours=1)
"""How long an attempt may be asked for again: Stripe knows its key for a day."""
GONE_AFTER: Final = timedelta(hours=1)
"""After so long, what was asked for and is not there will never be."""
LONG: Final = timedelta(hours=1)
"""When people are told of an attempt that has not ended."""
QUIET: Final[frozenset[Why]] = frozenset({"in_flight", "backing_off"})
"""Why nobody needs to be told: the attempt itself says it."""
ALERTS: Final = (
    "top_up_declined",
    "top_up_failed",
    "top_up_skipped",
    "top_up_stopped",
    "top_up_unsettled",
)
"""What people are told of an account. Its credits, once they come, put all of it right."""
OFF: Final[frozenset[Why]] = frozenset({"payment_reversed"})
"""After which only a person can switch it on again."""


class NotTold(Exception):
    """The ledger does not take an alert now: the text is the code of the refusal."""


class TopUps(Struct, frozen=True):
    """What the part works with. Without `charge`, nothing is charged."""

    pool: AsyncConnectionPool[Any]
    writer: Writer
    charge: Charge | None

    async def round(self, part: Part) -> None:
        """Do all that is to be done now, once. Raises psycopg.OperationalError."""
        if self.charge is None:
            return
        await _gather(self._to_try(), self._try_again, part)
        await self._granted()
        await _gather(self._short(), lambda names: self.look(*names), part)
        await self._tell_of_long()

    async def look(self, tenant: str, account: str) -> None:
        """Top an account up, if it is short and that is to be done."""
        assert self.charge is not None
        now = self.writer.clock()
        async with self.pool.connection() as connection:
            settings = await rows.settings_of(connection, tenant, account, month_of(now))
            attempts = await rows.recent(connection, tenant, account)
            customer = await rows.customer_of(connection, tenant, account)
        if settings is None:
            return
        # After the attempts: the credits of one that is granted are in what is read now.
        view = await asyncio.wrap_future(self.writer.view(tenant, account))
        catalog = await asyncio.wrap_future(self.writer.catalog(tenant))
        pack = pack_at(catalog, settings.pack, now)
        found = judge(
            settings.asked,
            attempts,
            spent=settings.spent,
            credit=_credit(view),
            pack=pack,
            now=now,
        )
        if not isinstance(found, Due):
            await self._note(tenant, account, settings, found, now)
            return
        if customer is None:
            await self._note(tenant, account, settings, Idle("customer_unknown"), now)
            return
        card = await self.charge.card(tenant, customer)
        if card.id is None:
            assert card.why is not None
            await self._note(tenant, account, settings, Idle(card.why), now)
            return
        top_up = TopUp(
            id=attempt_id(tenant, account, settings.put_at, found.number),
            tenant=tenant,
            account=account,
            customer=customer,
            card=card.id,
            price=found.price,
            money=found.money,
            started_at=now,
        )
        await self._make(top_up, found.number, settings.version)

    async def _make(self, top_up: TopUp, number: int, version: int) -> None:
        assert self.charge is not None
        async with self.pool.connection() as connection:
            ours = await rows.begin(
                connection, top_up, number=number, version=version, pause=TRY_AGAIN_FIRST
            )
        if not ours:
            return
        charged = await self.charge.charge(top_up)
        await self._take(top_up, 1, charged, first=True)

    async def _try_again(self, attempt: rows.ToTry) -> None:
        """Learn what became of an attempt, and ask for it again if the provider has none such."""
        assert self.charge is not None
        now = self.writer.clock()
        pause = min(TRY_AGAIN_FIRST * 2 ** min(attempt.tries, 8), TRY_AGAIN_MAX)
        async with self.pool.connection() as connection:
            taken = await rows.take_up(connection, attempt, now + pause)
        if taken is None:
            return
        tries, wanted = taken
        top_up = attempt.top_up
        charged = await self.charge.find(top_up, attempt.intent)
        if charged.state == "nothing" and wanted and now < attempt.started_at + ASK_FOR:
            async with self.pool.connection() as connection:
                again = await rows.ask_again(connection, top_up.id, tries, now)
            if again:
                charged = await self.charge.charge(top_up)
        if charged.state == "nothing" and now < attempt.asked_at + GONE_AFTER:
            return
        await self._take(top_up, tries, charged, first=False)

    async def _take(self, top_up: TopUp, tries: int, charged: Charged, *, first: bool) -> None:
        """Write down what was learnt."""
        now = self.writer.clock()
        state: AttemptState | None = None
        if charged.state == "declined":
            state = "declined"
        elif charged.state == "nothing" or (charged.state == "refused" and first):
            # Nothing was asked before the first time, so its refusal says that there is nothing.
            state = "failed"
        log.info(
            "top_up.charged",
            tenant=top_up.tenant,
            account=top_up.account,
            attempt=top_up.id,
            outcome=charged.state,
            code=charged.code,
        )
        if state is not None:
            await self._tell(top_up.tenant, f"top_up_{state}", top_up.account, top_up.id, charged)
        async with self.pool.connection() as connection:
            if charged.state == "paid":
                await rows.paid(connection, top_up.id, charged)
            elif state is not None:
                await rows.end(connection, top_up.id, tries, charged, state=state, now=now)
            else:
                await rows.wait(connection, top_up.id, tries, charged)

    async def _note(
        self,
        tenant: str,
        account: str,
        settings: rows.Settings,
        found: Idle | None,
        now: datetime,
    ) -> None:
        """Write down why an account is not topped up; tell people of each reason once."""
        why = None if found is None else found.why
        if why is None and settings.why is None:
            return
        if why is not None and why != settings.why and why not in QUIET:
            about = f"{account}\0{settings.put_at.isoformat()}\0{settings.version}\0{now.date()}"
            code = "top_up_stopped" if why in OFF else "top_up_skipped"
            await self._tell(tenant, code, account, about, Charged(state="refused", code=why))
        asked = {
            "tenant": tenant,
            "account": account,
            "version": settings.version,
            "why": why,
            "now": now,
            "look_at": now if found is None else now + LOOK_AGAIN,
        }
        async with self.pool.connection() as connection:
            await connection.execute(rows.SWITCH_OFF if why in OFF else rows.NOTE, asked)

    async def _granted(self) -> None:
        async with self.pool.connection() as connection:
            asked = {"now": self.writer.clock(), "codes": list(ALERTS)}
            await connection.execute(rows.GRANTED, asked)

    async def _tell_of_long(self) -> None:
        now = self.writer.clock()
        async with self.pool.connection() as connection:
            asked = {"before": now - LONG, "limit": PAGE_MAX}
            found = await (await connection.execute(rows.SELECT_LONG, asked)).fetchall()
        for attempt, tenant, account in found:
            try:
                said = Charged(state="unknown", code="unsettled")
                await self._tell(tenant, "top_up_unsettled", account, attempt, said)
            except NotTold:
                return  # Soon.
            async with self.pool.connection() as connection:
                await connection.execute(rows.TOLD, {"id": attempt, "now": now})

    async def _tell(
        self, tenant: str, code: str, account: str, about: str, charged: Charged
    ) -> None:
        """Put an alert into the ledger and the list, once for what it is about. Raises NotTold."""
        detail = f"{charged.code}: {charged.message}" if charged.message else charged.code
        order = Order(
            tenant=tenant,
            account=None,
            command=RaiseAlert(code=code, subject=account, detail=detail[:TEXT_MAX]),
            key=derived_id("alert", f"{code}\0{about}\0{charged.code}"),
            by=BY,
        )
        (answer,) = await submit_all(self.writer, [order])
        if isinstance(answer, LedgerError):
            if answer.retryable:
                raise NotTold(answer.code)
            log.warning("alert.refused", tenant=tenant, code=answer.code)
        async with self.pool.connection() as connection:
            row = {"tenant": tenant, "code": code, "subject": account}
            await connection.execute(rows.UPSERT_ALERT, row)

    async def _to_try(self) -> AsyncIterator[list[rows.ToTry]]:
        # Those that are taken up are not due any more, so the first page is the only one.
        asked = {"now": self.writer.clock(), "limit": PAGE_MAX}
        async with (
            self.pool.connection() as connection,
            connection.cursor(row_factory=class_row(rows.ToTry)) as cursor,
        ):
            found = await (await cursor.execute(rows.SELECT_TO_TRY, asked)).fetchall()
        yield found

    async def _short(self) -> AsyncIterator[list[tuple[str, str]]]:
        tenant = account = ""
        now = self.writer.clock()
        while True:
            asked = {"now": now, "tenant": tenant, "account": account, "limit": PAGE_MAX}
            async with self.pool.connection() as connection:
                found = await (await connection.execute(rows.SELECT_SHORT, asked)).fetchall()
            yield found
            if len(found) < PAGE_MAX:
                return
            tenant, account = found[-1]


async def top_up_accounts(
    top_ups: TopUps, part: Part, stop: asyncio.Event, poll_seconds: float = POLL_SECONDS
) -> None:
    """Top up what is short, every `poll_seconds`, until `stop`."""
    part.running()
    while not stop.is_set():
        await top_ups.round(part)
        part.alive()
        with suppress(TimeoutError):
            async with asyncio.timeout(poll_seconds):
                await stop.wait()


async def _gather(
    pages: AsyncIterator[list[T]], do: Callable[[T], Awaitable[None]], part: Part
) -> None:
    """Do something for each, some at once; one that fails keeps no other from it."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(what: T) -> None:
        try:
            async with room:
                await do(what)
        except (psycopg.OperationalError, PoolTimeout):
            raise
        except (NotTold, LedgerError) as error:
            log.info("top_up.waits", why=str(error))
        except Exception:
            log.exception("top_up.failed")
        part.alive()

    async for page in pages:
        await asyncio.gather(*(one(what) for what in page))


def _credit(view: View) -> Credit:
    return Credit(
        available=view.balance.available,
        reversed=sum([grant.reversed for grant in view.grants]),
        frozen=any(grant.status == "frozen" for grant in view.grants),
    )
