"""Errors of loads. Each is permanent or transient by its base, which is what retries decide by."""

from __future__ import annotations

from quayside.foundation.errors import (
    CheckFailedError,
    ConflictError,
    InputError,
    PermanentError,
    ServiceUnavailableError,
)


class FencedError(ConflictError):
    """The control row has moved on: this attempt was given up and must not write any more."""


class SourceUnavailableError(ServiceUnavailableError):
    """The source database does not answer, or refuses for now."""


class SourceRefusedError(PermanentError):
    """The source refuses: wrong password, no permission, no such table or column."""


class UnsupportedTypeError(InputError):
    """A column's type cannot arrive as documented."""


class SchemaContractError(PermanentError):
    """The source's schema changed in a way the row's contract forbids."""


class CountMismatchError(CheckFailedError):
    """What was written is not what was read."""


class DriverMissingError(PermanentError):
    """The driver of a source is not installed; the sentence says which extra brings it."""


class CancelledError(ConflictError):
    """The load was told to stop."""
