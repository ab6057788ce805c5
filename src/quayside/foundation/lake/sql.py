"""Quoting for the places where DuckDB and PostgreSQL take no parameter, and what their errors say."""

from __future__ import annotations

from quayside.foundation.errors import sentence


def identifier(name: str) -> str:
    """`name` quoted as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """`text` quoted as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def reason(error: BaseException) -> str:
    """First line of a driver's error, to stand inside a sentence of ours."""
    return sentence(error).rstrip(".! ")
