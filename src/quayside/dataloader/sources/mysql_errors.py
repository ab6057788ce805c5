"""What an error of MariaDB, MySQL or DuckDB's scanner means for a load, in one sentence without credentials.

The scanner gives words alone; the server's number stands in few of them. Words that mean "later" go before words that mean
"no", since a server that is full or stops may say so in the answer to a login.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from quayside.dataloader.errors import SourceRefusedError, SourceUnavailableError
from quayside.dataloader.sources.failures import without_secrets
from quayside.foundation.errors import InputError, QuaysideError

_LATER: Final = re.compile(
    r"too many connections|max_user_connections|server shutdown|shutdown in progress|was killed|interrupted|"
    r"max_statement_time|maximum statement execution time|lock wait timeout|deadlock found|try restarting transaction|"
    r"retry transaction|has changed since last read|needs to be re-prepared|has not yet prepared node|lost connection|"
    r"gone away|server closed statement|can't create (a new )?thread|out of (memory|resources)|is full|no space left|"
    r"too many open files|temporarily unavailable|pool timeout",
    re.IGNORECASE,
)
_DENIED: Final = re.compile(
    r"access denied|unknown database|doesn't exist|command denied|unknown column|read only transaction|read-only|"
    r"is not allowed to connect|is blocked because|authentication|certificate|fingerprint verification",
    re.IGNORECASE,
)
_LOST: Final = re.compile(
    r"can't connect|connection refused|timed out|unknown (mysql )?server host|failed to connect|server handshake|"
    r"communication packet|tls/ssl error|ssl connection error|connection reset|broken pipe|name resolution|"
    r"error packet without further",
    re.IGNORECASE,
)


def of_text(text: str, source: str, fields: Mapping[str, str]) -> QuaysideError:
    """What an error means."""
    lines = text.strip().splitlines() or ["nothing was said"]
    # The statement, which may be long, stands in quotes before what the server said.
    said = without_secrets(
        re.sub(r'^.*?(?:query|database) ".*": ', "", text.strip(), flags=re.DOTALL), fields
    )
    said = (said.splitlines() or lines)[0].strip().rstrip(".")
    if _LATER.search(said):
        return SourceUnavailableError(f"Source {source} cannot answer now: {said}.")
    if _DENIED.search(said):
        return SourceRefusedError(f"Source {source} refuses: {said}.")
    if _LOST.search(said):
        return SourceUnavailableError(f"Source {source} does not answer: {said}.")
    return InputError(f"Source {source} cannot be read: {said}.")


def of_reading(text: str, source: str, fields: Mapping[str, str]) -> QuaysideError | None:
    """What an error of DuckDB means that came while a relation was read; None when it is not about the source."""
    if "ducklake" in text.lower():
        return None
    if "mysql" in text.lower() or _LATER.search(text) or _LOST.search(text):
        return of_text(text, source, fields)
    return None
