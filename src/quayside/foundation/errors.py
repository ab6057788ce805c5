"""The one exception tree.

Every error a person can meet is a `QuaysideError` whose text is one clear sentence: what is wrong, where, and what to
do. `PermanentError` stays wrong however often it is tried; `TransientError` may succeed when tried again, and every
retry path of the platform decides by that type alone.
"""

from __future__ import annotations


class QuaysideError(Exception):
    """Base of everything Quayside raises on purpose. ``str(error)`` is the sentence shown to a person."""

    exit_code = 1


class PermanentError(QuaysideError):
    """Trying again cannot help: the input, the configuration or the request has to change."""


class SettingsError(PermanentError):
    """A setting is missing, malformed or contradicts another."""

    exit_code = 2


class UsageError(PermanentError):
    """A command was called with arguments that do not make sense together."""

    exit_code = 2


class InputError(PermanentError):
    """Data given to us cannot be used: unreadable, malformed, contradictory or hostile."""


class NotFoundError(PermanentError):
    """Something asked for by name (a batch, a party, a table, a version) does not exist."""


class SchemaError(PermanentError):
    """A database schema is older or newer than this code can work with."""


class CheckFailedError(PermanentError):
    """A result was computed but broke a rule that guards against publishing it."""


class TransientError(QuaysideError):
    """Trying again later may succeed."""


class ServiceUnavailableError(TransientError):
    """A service (PostgreSQL, Valkey, S3, Slack …) did not answer or refused for now."""


class ConflictError(TransientError):
    """Another process changed the same thing at the same time, and the retries ran out."""


def sentence(error: BaseException) -> str:
    """First line of an error as one sentence, without the noise drivers add.

    Used wherever an error of somebody else's library has to be shown to a person.
    """
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].strip()
