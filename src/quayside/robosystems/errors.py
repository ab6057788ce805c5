"""Errors of credits and billing. Each is permanent or transient by its base, which is what retries decide by."""

from __future__ import annotations

from quayside.foundation.errors import CheckFailedError, ConflictError, NotFoundError, PermanentError


class InsufficientCreditsError(CheckFailedError):
    """The account holds fewer credits than the work costs, and may not overdraw."""


class UnknownAccountError(NotFoundError):
    """There is no credit account for this graph."""


class KeyReusedError(PermanentError):
    """An idempotency key that stands for one unit of work was given for another."""


class ReservationEndedError(PermanentError):
    """The reservation was captured, released or timed out before."""


class BooksError(CheckFailedError):
    """The books do not add up, or would not: nothing was written."""


class InvoiceStateError(ConflictError):
    """The invoice is in a state that does not allow this."""
