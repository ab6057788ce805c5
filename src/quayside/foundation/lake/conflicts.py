"""What an error of DuckDB means for a transaction: another writer was faster, the catalog is gone, or neither.

DuckLake says so in words alone; these were collected by provoking each case with PostgreSQL as the catalog.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import duckdb

#: The first is DuckLake's check against what others committed; the second its own short retries running out, which
#: happens when many commit at once; the rest is PostgreSQL's.
_CONFLICTS: Final = (
    "transaction conflict",
    "exceeded the maximum retry count",
    "could not serialize access",
    "deadlock detected",
)
_LOST: Final = (
    'failed to execute query "rollback"',
    "server closed the connection",
    "terminating connection",
    "unable to connect to postgres",
    "no connection to the server",
    "connection to server",
)


def is_conflict(error: duckdb.Error) -> bool:
    """Whether nothing was committed because of another writer, so that the same work can be run again."""
    text = str(error).lower()
    return any(sign in text for sign in _CONFLICTS)


def is_connection_lost(error: duckdb.Error) -> bool:
    """Whether the connection to the catalog broke. During a commit nobody knows then whether it took place."""
    text = str(error).lower()
    return any(sign in text for sign in _LOST)
