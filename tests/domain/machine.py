"""Any history of commands, played against a target and the model at once.

`AnyHistory` names no target: a test says which by overriding `new_target`. Subclass it to play the
same histories against the rules in memory, or against a real store and writer.
"""

from __future__ import annotations

from datetime import timedelta

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from ledger.domain import commands as c
from ledger.domain.entities import Charge, GrantKind, Overage, Rates
from ledger.domain.errors import IdempotencyMismatch
from tests.domain.asking import Asking
from tests.domain.strategies import (
    AMOUNT,
    AT_LEAST,
    CATALOG,
    CHARGE,
    FEATURE,
    KIND,
    LIFE,
    MODELS,
    OFFSET,
    OR_DEFAULT,
    OVERAGE,
    PICK,
    PRICE,
    SCOPE,
    SECONDS,
    SMALL,
    YES,
)


def something_is_available(history: Asking) -> bool:
    """Do not ask to spend where nothing can be, but now and then."""
    return history.model.place("available") > 0 or history.keys % 5 == 0


def now_and_then(history: Asking) -> bool:
    """Keep what changes the terms from crowding out what is done under them."""
    return history.keys % 3 == 0


def something_is_open(history: Asking) -> bool:
    """Ask about open reservations where there are any."""
    return any(job.status == "open" for job in history.model.jobs.values())


def something_was_spent(history: Asking) -> bool:
    """Ask for refunds where there is anything to refund, or now and then where nothing is left."""
    spent = [one for job in history.model.jobs.values() for one in job.spent]
    return any(history.keys % 5 == 0 or one.refunded < one.amount for one in spent)


class AnyHistory(Asking):
    """Whatever is asked, in whatever order, no credit is made or lost."""

    @initialize(
        overdraft=st.sampled_from((0, 0, 15, 15, None)),
        price=st.tuples(PRICE, OVERAGE),
        models=MODELS,
        days=st.sampled_from((None, 1)),
        amount=AMOUNT,
    )
    def begin(
        self,
        overdraft: int | None,
        price: tuple[int, Overage],
        models: dict[str, Rates],
        days: int | None,
        amount: int,
    ) -> None:
        """Begin, as a rule, with an account and some prices."""
        cost, overage = price
        self.ask(c.SetFeature(feature="image", name="Image", unit_price=cost, overage=overage))
        self.ask(c.SetRateCard(feature="image", models=models))
        self.ask(c.SetRefundPolicy(regrant_days=days))
        if overdraft is not None:
            self.ask(c.PutAccount(overdraft_limit=overdraft))
            self.ask(c.GrantCredits(amount=amount + 10, kind="paid", expires_at=self.at(20)))

    # -- the terms ---------------------------------------------------------------------------------

    @precondition(now_and_then)
    @rule(overdraft=st.sampled_from((None, 0, 5, 30)))
    def put_account(self, overdraft: int | None) -> None:
        """Open the account or change its overdraft; or record only what time has done."""
        if overdraft is None:
            self.ask(c.Settle())
        else:
            self.ask(c.PutAccount(overdraft_limit=overdraft, metadata={"plan": "free"}))

    @precondition(now_and_then)
    @rule(command=CATALOG)
    def change_the_catalog(self, command: c.TenantCommand) -> None:
        """Put a price, a rate card or a refund policy; or raise an alert, which changes none."""
        self.ask(command)

    @rule(seconds=st.sampled_from((1, 1, 1, 4, 4, 5, 10, 86_400)))
    def wait(self, seconds: int) -> None:
        """Let time pass, whether or not anything is due."""
        self.now += timedelta(seconds=seconds)

    # -- grants ------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.model.lots) < 15)
    @rule(
        amount=st.integers(0, 60),
        kind=KIND,
        priority=st.sampled_from((100, 100, 100, 50)),
        scope=SCOPE,
        offset=OFFSET,
        life=LIFE,
        cost=st.sampled_from((None, None, 1, 2)),
        named=YES,
    )
    def grant(
        self,
        *,
        amount: int,
        kind: GrantKind,
        priority: int,
        scope: tuple[str, ...],
        offset: int | None,
        life: int | None,
        cost: int | None,
        named: bool,
    ) -> None:
        """Give credits."""
        self.ask(
            c.GrantCredits(
                id=self.name("grant", named=named),
                amount=amount,
                kind=kind,
                priority=priority,
                scope=scope,
                effective_at=self.at(offset),
                expires_at=self.at(life),
                cost_basis=cost,
            )
        )

    @precondition(lambda self: self.model.place("available") < 20)
    @rule(amount=st.integers(10, 100), offset=OFFSET, life=LIFE, scope=SCOPE)
    def plain_grant(
        self, amount: int, offset: int | None, life: int | None, scope: tuple[str, ...]
    ) -> None:
        """Give credits that tie with others in most of what the order looks at."""
        start, end = self.at(offset), self.at(life)
        self.ask(
            c.GrantCredits(
                amount=amount, kind="paid", scope=scope, effective_at=start, expires_at=end
            )
        )

    @precondition(lambda self: self.model.lots and now_and_then(self))
    @rule(pick=PICK, clawback=YES)
    def revoke(self, *, pick: int, clawback: bool) -> None:
        """Take a grant back."""
        self.ask(c.RevokeGrant(grant=self.some_grant(pick), clawback=clawback))

    @precondition(lambda self: self.model.place("consumed") + self.model.place("reserved"))
    @rule(pick=PICK)
    def claw_back_what_is_spent(self, pick: int) -> None:
        """Claw back a grant of which something is spent or set aside."""
        used = [one.grant for one in self.model.slices if one.place in {"consumed", "reserved"}]
        self.ask(c.RevokeGrant(grant=used[pick % len(used)], clawback=True))

    @precondition(lambda self: len(self.model.lots) < 15)
    @rule(
        new=YES,
        pick=PICK,
        amount=st.integers(0, 40),
        back=st.sampled_from((0, 0, 1, 5, 20, 40)),
        frozen=YES,
        newer=st.sampled_from((0, 1, 1, 2)),
        life=LIFE,
        kind=KIND,
        priority=st.sampled_from((100, 100, 50)),
        scope=SCOPE,
    )
    def apply_payment(
        self,
        *,
        new: bool,
        pick: int,
        amount: int,
        back: int,
        frozen: bool,
        newer: int,
        life: int | None,
        kind: GrantKind,
        priority: int,
        scope: tuple[str, ...],
    ) -> None:
        """Tell of a payment, or tell more of one."""
        paid = [lot for lot in self.model.lots.values() if lot.revision]
        lot = None if new or not paid else paid[-1 - pick % len(paid)]
        name = lot.id if lot else f"pay-{self.keys}"
        command = c.ApplyPayment(
            grant=self.some_grant(pick) if amount == 0 else name,
            revision=(lot.revision if lot else 1) + newer,
            amount=amount,
            reversed=back,
            frozen=frozen,
            kind=kind,
            priority=priority,
            scope=scope,
            expires_at=self.at(life),
        )
        self.ask(command)

    @precondition(lambda self: any(lot.revision for lot in self.model.lots.values()))
    @rule(pick=PICK, back=st.integers(0, 40), frozen=YES)
    def a_payment_goes_back(self, pick: int, *, back: int, frozen: bool) -> None:
        """Refund some or all of a payment, or dispute it, on the terms that it has."""
        paid = [lot for lot in self.model.lots.values() if lot.revision]
        lot = paid[-1 - pick % len(paid)]
        assert lot.kind in {"paid", "promotional"}
        command = c.ApplyPayment(
            grant=lot.id,
            revision=lot.revision + 1,
            amount=lot.amount,
            reversed=min(back, lot.amount),
            frozen=frozen,
            kind="paid" if lot.kind == "paid" else "promotional",
            priority=lot.priority,
            scope=lot.scope,
            expires_at=lot.expires_at,
        )
        self.ask(command)

    @precondition(now_and_then)
    @rule(amount=st.integers(-9, 20), life=LIFE, overage=OVERAGE)
    def adjust(self, amount: int, life: int | None, overage: Overage) -> None:
        """Correct the balance."""
        self.ask(c.Adjust(amount=amount, expires_at=self.at(life), overage=overage))

    # -- reservations ------------------------------------------------------------------------------

    @precondition(something_is_available)
    @rule(charge=CHARGE, at_least=AT_LEAST, ttl=SECONDS, named=YES)
    def reserve(self, *, charge: Charge, at_least: int | None, ttl: int, named: bool) -> None:
        """Set credits aside."""
        name = self.name("job", named=named)
        self.ask(c.Reserve(id=name, charge=charge, at_least=at_least, ttl_seconds=ttl, job="j"))

    @precondition(lambda self: self.model.place("available") + self.model.room())
    @rule(beyond=SMALL, feature=FEATURE, ttl=SECONDS)
    def reserve_all(self, beyond: int, feature: str | None, ttl: int) -> None:
        """Set aside all there is, and some of the overdraft."""
        amount = sum(
            self.model.place("available", lot.id) for lot in self.model.line(feature)
        ) + min(beyond, self.model.room())
        self.ask(c.Reserve(charge=Charge(amount=amount, feature=feature), ttl_seconds=ttl))

    @precondition(something_is_open)
    @rule(pick=PICK, amount=st.none() | SMALL, ttl=st.none() | SECONDS)
    def extend(self, pick: int, amount: int | None, ttl: int | None) -> None:
        """Set more aside, or for longer."""
        name = self.some_operation(pick)
        self.ask(c.Extend(reservation=name, amount=amount, ttl_seconds=ttl))

    @precondition(something_is_open)
    @rule(pick=PICK)
    def release(self, pick: int) -> None:
        """Give back what is set aside."""
        self.ask(c.Release(reservation=self.some_operation(pick)))

    # -- spending ----------------------------------------------------------------------------------

    @precondition(lambda self: self.model.jobs)
    @rule(pick=PICK, charge=CHARGE, final=YES, overage=OR_DEFAULT)
    def capture(self, *, pick: int, charge: Charge, final: bool, overage: Overage | None) -> None:
        """Spend of a reservation, in time or late."""
        name = self.some_operation(pick)
        self.ask(c.Capture(reservation=name, charge=charge, final=final, overage=overage))

    @precondition(something_is_open)
    @rule(pick=PICK, beyond=st.integers(-9, 9), final=YES, overage=OR_DEFAULT)
    def capture_about_all(
        self, *, pick: int, beyond: int, final: bool, overage: Overage | None
    ) -> None:
        """Spend a little less or more than what is reserved."""
        job = self.some_open(pick)
        assert job is not None
        charge = Charge(amount=max(0, job.remaining + beyond))
        self.ask(c.Capture(reservation=job.id, charge=charge, final=final, overage=overage))

    @rule(pick=PICK, new=YES, charge=CHARGE | st.none(), final=YES, ttl=SECONDS)
    def capture_up_to(
        self, *, pick: int, new: bool, charge: Charge | None, final: bool, ttl: int
    ) -> None:
        """Report a total, as messages do."""
        name = f"run-{self.keys}" if new else self.some_operation(pick)
        self.ask(c.CaptureUpTo(operation=name, charge=charge, final=final, ttl_seconds=ttl))

    @precondition(something_is_available)
    @rule(charge=CHARGE, at_least=AT_LEAST, overage=OR_DEFAULT, named=YES)
    def deduct(
        self, *, charge: Charge, at_least: int | None, overage: Overage | None, named: bool
    ) -> None:
        """Spend at once."""
        name = self.name("job", named=named)
        self.ask(c.Deduct(id=name, charge=charge, at_least=at_least, overage=overage))

    @precondition(something_was_spent)
    @rule(pick=PICK, amount=st.none() | AMOUNT)
    def refund(self, pick: int, amount: int | None) -> None:
        """Give spent credits back."""
        self.ask(c.Refund(deduction=self.some_deduction(pick), amount=amount))

    @precondition(something_was_spent)
    @rule(pick=PICK)
    def refund_all(self, pick: int) -> None:
        """Give back all that is left of a deduction."""
        self.ask(c.Refund(deduction=self.some_deduction(pick)))

    # -- retries -----------------------------------------------------------------------------------

    @precondition(lambda self: self.accepted and now_and_then(self))
    @rule(pick=PICK, same=YES)
    def retry(self, *, pick: int, same: bool) -> None:
        """Ask again: the same answer comes and nothing happens; other content is refused."""
        command, key, event = self.accepted[-1 - pick % len(self.accepted)]
        if same:
            assert self.target.execute(command, key, self.now) == event
            return
        other: c.Command = c.Adjust(amount=999, metadata={"other": "content"})
        if isinstance(command, c.TenantCommand):
            other = c.SetFeature(feature="image", name="other content")
        assert isinstance(self.target.execute(other, key, self.now), IdempotencyMismatch)

    @precondition(lambda self: self.refused and now_and_then(self))
    @rule(pick=PICK)
    def retry_what_was_refused(self, pick: int) -> None:
        """Ask again under the same key: a refusal has stored nothing, so it may succeed by now."""
        self.ask(*self.refused.pop(-1 - pick % len(self.refused)))
