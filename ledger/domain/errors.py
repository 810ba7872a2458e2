"""Every refusal of the ledger: its code, its HTTP status, and whether a retry can help."""

from __future__ import annotations

from typing import Any, ClassVar


class LedgerError(Exception):
    """A command was refused. Nothing has changed.

    The class docstring is the message for people; `facts` are the keyword arguments for programs.
    Facts that are amounts are named in `amounts` and hold micro-credits.
    """

    code: ClassVar[str]
    status: ClassVar[int]
    retryable: ClassVar[bool] = False
    amounts: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, **facts: Any) -> None:
        """Keep the facts that a client needs to act on the refusal."""
        super().__init__(self.code, facts)
        self.facts = facts

    @property
    def detail(self) -> str:
        """The refusal in one sentence."""
        return (type(self).__doc__ or self.code).strip().splitlines()[0]


class InsufficientCredits(LedgerError):
    """The account has fewer credits available for this feature than were asked for."""

    code, status = "insufficient_credits", 402
    amounts = frozenset({"required", "available", "shortfall"})


class AccountNotFound(LedgerError):
    """There is no such account. Open it with PUT /v1/accounts/{account}."""

    code, status = "account_not_found", 404


class GrantNotFound(LedgerError):
    """The account has no such grant."""

    code, status = "grant_not_found", 404


class ReservationNotFound(LedgerError):
    """The account has no such reservation."""

    code, status = "reservation_not_found", 404


class DeductionNotFound(LedgerError):
    """The account has no such deduction."""

    code, status = "deduction_not_found", 404


class CatalogEntryNotFound(LedgerError):
    """The catalog has no such entry or version."""

    code, status = "catalog_entry_not_found", 404


class GrantExists(LedgerError):
    """The account already has a grant with this id."""

    code, status = "grant_exists", 409


class OperationExists(LedgerError):
    """The account already has a reservation or deduction with this id."""

    code, status = "operation_exists", 409


class GrantClosed(LedgerError):
    """The grant has ended, so nothing is left to revoke; or it has been clawed back before."""

    code, status = "grant_closed", 409


class ReservationClosed(LedgerError):
    """The reservation is closed: it was captured in full, released, or a late capture closed it."""

    code, status = "reservation_closed", 409


class ReservationExpiredAlready(LedgerError):
    """The reservation has expired. A late capture needs an overage of `draw` or `debt`."""

    code, status = "reservation_expired", 409


class CaptureExceedsReservation(LedgerError):
    """The capture is more than what is still reserved, and its overage is `reject`."""

    code, status = "capture_exceeds_reservation", 409
    amounts = frozenset({"asked", "remaining"})


class RefundExceedsDeduction(LedgerError):
    """The refund is more than what is left to refund of this deduction."""

    code, status = "refund_exceeds_deduction", 409
    amounts = frozenset({"asked", "refundable"})


class LimitReached(LedgerError):
    """The account has as many of these as one account may have."""

    code, status = "limit_reached", 409


class PriceNotFound(LedgerError):
    """The catalog has no price for this feature and model. A missing price is never 0."""

    code, status = "price_not_found", 422


class InvalidCommand(LedgerError):
    """The command breaks a rule for one of its fields."""

    code, status = "invalid_request", 422

    @property
    def detail(self) -> str:
        """The field and its rule."""
        return f"{self.facts['field']} {self.facts['rule']}"


class IdempotencyMismatch(LedgerError):
    """The idempotency key has been used before with other content."""

    code, status = "idempotency_mismatch", 422


class AccountBusy(LedgerError):
    """Other writers kept coming first on this account. The same request may succeed soon."""

    code, status, retryable = "account_busy", 503, True


class Overloaded(LedgerError):
    """More commands are waiting than the service may queue. Nothing was done; try again shortly."""

    code, status, retryable = "overloaded", 503, True


class StoreUnavailable(LedgerError):
    """The ledger's store did not answer in time. Repeat with the same key to learn the outcome."""

    code, status, retryable = "store_unavailable", 503, True


class NewerEvents(LedgerError):
    """The account has events that this process is too old to understand. A newer one can."""

    code, status, retryable = "newer_events", 503, True


class InternalError(LedgerError):
    """Something is wrong in Scrip itself. Nothing has changed; the log tells more."""

    code, status = "internal_error", 500
