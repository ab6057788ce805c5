"""What an error of PostgreSQL, psycopg or DuckDB's scanner means for a load, in one sentence without credentials."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from quayside.dataloader.errors import SourceRefusedError, SourceUnavailableError, UnsupportedTypeError
from quayside.dataloader.sources.failures import without_secrets
from quayside.dataloader.sources.postgresql_types import refusal
from quayside.foundation.errors import InputError, QuaysideError

if TYPE_CHECKING:
    import psycopg
    from psycopg.pq.abc import PGresult

    from quayside.dataloader.sources.postgresql_session import Table

#: SQLSTATE, or its class → what it means. Everything else that has one is the fault of the request.
_TRANSIENT: Final = ("08", "40", "53", "55P03", "57", "58", "XX", "72000")
_REFUSED: Final = ("28", "3D", "3F", "42501", "42P01", "42703", "0A", "25006")

#: Words of libpq and of the scanner, for errors that come without a SQLSTATE.
_LOST: Final = (
    "could not connect", "connection to server", "unable to connect", "server closed the connection", "ssl syscall",
    "terminating connection", "connection refused", "timeout expired", "canceling statement", "no route to host",
    "could not translate host name", "could not receive data", "connection reset", "too many clients",
    "the database system is", "no connection to the server", "remaining connection slots", "invalid snapshot",
    "lost synchronization", "broken pipe", "failed to resolve host",
)  # fmt: skip
_DENIED: Final = (
    "authentication failed", "no password supplied", "does not exist", "permission denied", "no pg_hba.conf entry",
    "not permitted to log in", "read-only transaction", "must be owner", "certificate verify failed",
    "does not support ssl", "root certificate file",
)  # fmt: skip
#: What DuckDB's scanner and libpq say, and nobody else.
_OURS: Final = re.compile(r"postgres|libpq|(?-i:\b(ERROR|FATAL):)|for COPY|" + "|".join(_LOST), re.IGNORECASE)


def of_connecting(error: psycopg.Error, source: str, fields: Mapping[str, str]) -> QuaysideError:
    """An error of the attempt to connect."""
    return of_text(str(error), source, fields)


def of_driver(error: psycopg.Error, source: str, fields: Mapping[str, str]) -> QuaysideError:
    """An error of a statement of ours."""
    primary = error.diag.message_primary or str(error)
    return _of(error.sqlstate, primary, source, fields)


def of_result(result: PGresult, source: str, fields: Mapping[str, str]) -> QuaysideError:
    """An error of a statement that was prepared."""
    from psycopg.pq import DiagnosticField

    state, primary = (
        (result.error_field(field) or b"").decode("utf-8", "replace")
        for field in (DiagnosticField.SQLSTATE, DiagnosticField.MESSAGE_PRIMARY)
    )
    return _of(state or None, primary, source, fields)


def of_text(text: str, source: str, fields: Mapping[str, str]) -> QuaysideError:
    """An error that is words alone."""
    words = text.lower()
    said = without_secrets(_plain(text), fields)
    if any(sign in words for sign in _DENIED):
        return SourceRefusedError(f"Source {source} refuses: {said}.")
    if any(sign in words for sign in _LOST):
        return SourceUnavailableError(f"Source {source} does not answer: {said}.")
    return InputError(f"Source {source} cannot be read: {said}.")


def of_reading(
    error: Exception, source: str, fields: Mapping[str, str], table: Table
) -> QuaysideError | None:
    """What an error of DuckDB means that came while a relation was read; None when it is not about the source."""
    text = str(error)
    if refused := refusal(text, [c.column.name for c in table.columns]):
        column, why = refused
        of = next(c.column for c in table.columns if c.column.name == column)
        return UnsupportedTypeError(
            f"Column {column!r} ({of.source_type}) of {table.name} in source {source} {why} in a query."
        )
    return of_text(text, source, fields) if _OURS.search(text) else None


def _of(state: str | None, primary: str, source: str, fields: Mapping[str, str]) -> QuaysideError:
    if state is None:
        return of_text(primary, source, fields)
    said = without_secrets(primary.strip().rstrip("."), fields)
    if state.startswith(_TRANSIENT):
        return SourceUnavailableError(f"Source {source} cannot answer now: {said}.")
    if state.startswith(_REFUSED):
        return SourceRefusedError(f"Source {source} refuses: {said}.")
    return InputError(f"Source {source} cannot be read: {said}.")


def _plain(text: str) -> str:
    """The first line that says what happened, without DuckDB's and libpq's prefixes."""
    text = re.sub(r'^.*?Unable to connect to Postgres at ".*?": ', "", text.strip(), count=1, flags=re.DOTALL)
    line: Any = next((line for line in text.splitlines() if "FATAL" in line or "ERROR" in line), None)
    line = line or (text.splitlines() or ["nothing was said"])[0]
    return re.sub(r"^.*?(FATAL|ERROR):\s+", "", line).strip().rstrip(".")
