"""What an error of PostgreSQL, psycopg or DuckDB's scanner means for a load, in one sentence without credentials."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
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
_TRANSIENT: Final = (
    "08", "40", "53", "55006", "55P03", "57", "58", "XX", "72000", "25P03", "25P04", "HV00N",
)  # fmt: skip
_REFUSED: Final = ("28", "3D", "3F", "42501", "42P01", "42703", "0A", "25006")
#: Codes that mean several things: the words decide. 42704 is a snapshot whose session has died, or a missing role.
_BY_WORDS: Final = ("55000", "42704", "22023")

#: Words that mean "later" wherever they stand: a server that stops, starts, is full, or whose session with the snapshot died.
_LATER: Final = re.compile(
    r"snapshot \S+ does not exist|invalid snapshot|could not import the requested snapshot|"
    r"source (process|transaction) .*not running|snapshot too old|"
    r"terminating (connection|background worker)|canceling statement|the database system is|not currently accepting|"
    r"too many (clients|connections|open files)|connection slots|no more connections|pool timeout|query_wait_timeout|"
    r"server (closed the connection|conn crashed|login has been failing|shut ?down)|cannot connect to server|"
    r"out of (shared )?memory|no space left|could not (extend|resize|fork|open relation with oid)|cache lookup failed|"
    r"deadlock detected|could not serialize access|could not obtain lock|"
    r"(header for copy|binary copy data)[^:]*(:|, invalid header)\s*$",
    re.IGNORECASE,
)
#: Words of a connection that was not made or is gone, for errors that come without a SQLSTATE. What is denied goes before.
_LOST: Final = (
    "could not connect", "connection to server", "unable to connect", "ssl syscall", "ssl error",
    "ssl connection has been closed", "ssl negotiation", "connection refused", "timeout expired", "timed out",
    "no route to host", "network is unreachable", "host is down", "could not translate host name", "failed to resolve host",
    "name resolution", "could not receive data", "could not send data", "connection reset", "connection not open",
    "no connection to the server", "the connection is closed", "the connection is lost", "consuming input failed",
    "sending query failed", "lost synchronization", "broken pipe", "assign requested address",
)  # fmt: skip
_DENIED: Final = (
    "authentication failed", "no password supplied", "does not exist", "permission denied", "no pg_hba.conf entry",
    "not permitted to log in", "read-only transaction", "must be owner", "certificate verify failed",
    "does not support ssl", "root certificate file", "does not match host name",
)  # fmt: skip
#: What DuckDB's scanner and libpq say, and nobody else.
_OURS: Final = re.compile(
    r"postgres|libpq|(?-i:\b(ERROR|FATAL):)|for COPY|" + "|".join((*_LOST, _LATER.pattern)), re.IGNORECASE
)
#: The lake's catalog is read by the same scanner; only in these it does not say so.
_OF_EITHER: Final = re.compile(r'query "(BEGIN|COMMIT|ROLLBACK)', re.IGNORECASE)


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
    if _LATER.search(words):
        return SourceUnavailableError(f"Source {source} cannot answer now: {said}.")
    if any(sign in words for sign in _DENIED):
        return SourceRefusedError(f"Source {source} refuses: {said}.")
    if any(sign in words for sign in _LOST):
        return SourceUnavailableError(f"Source {source} does not answer: {said}.")
    return InputError(f"Source {source} cannot be read: {said}.")


def of_reading(
    error: Exception, source: str, fields: Mapping[str, str], table: Table, answers: Callable[[], bool]
) -> QuaysideError | None:
    """What an error of DuckDB means that came while a relation was read; None when it is not about the source.

    `answers` asks whether the source still does: the lake's catalog is a PostgreSQL too, and its errors are nobody else's.
    """
    text = str(error)
    if "ducklake" in text.lower() and "ducklake" not in table.relation.lower():
        return None
    if _OF_EITHER.search(text) and answers():
        return None
    if refused := refusal(text, [c.column.name for c in table.columns]):
        column, why = refused
        of = next(c.column for c in table.columns if c.column.name == column)
        return UnsupportedTypeError(
            f"Column {column!r} ({of.source_type}) of {table.name} in source {source} {why} in a query."
        )
    return of_text(text, source, fields) if _OURS.search(text) else None


def _of(state: str | None, primary: str, source: str, fields: Mapping[str, str]) -> QuaysideError:
    if state is None or state in _BY_WORDS:
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
