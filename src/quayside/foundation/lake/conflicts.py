"""Which errors of DuckDB mean that another writer was faster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import duckdb

_SIGNS: Final = (
    "transaction conflict",
    "failed to commit ducklake transaction",
    "could not serialize access",
    "deadlock detected",
    "duplicate key value violates unique constraint",
)


def is_conflict(error: duckdb.Error) -> bool:
    """Whether running the same transaction again can succeed."""
    text = str(error).lower()
    return any(sign in text for sign in _SIGNS)
