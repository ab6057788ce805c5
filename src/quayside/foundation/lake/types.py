"""Types of DuckDB that other systems lack, and what stands for them there. Nothing but nanoseconds is lost."""

from __future__ import annotations

import re
from typing import Final

from quayside.foundation.lake.sql import identifier

#: DuckDB type → (type in PostgreSQL, DuckDB type it travels as). Types not named here are nested or text.
_POSTGRES: Final[dict[str, tuple[str, str]]] = {
    "BOOLEAN": ("boolean", "BOOLEAN"),
    "TINYINT": ("smallint", "SMALLINT"),
    "SMALLINT": ("smallint", "SMALLINT"),
    "INTEGER": ("integer", "INTEGER"),
    "BIGINT": ("bigint", "BIGINT"),
    "HUGEINT": ("numeric(38,0)", "DECIMAL(38,0)"),
    "UTINYINT": ("smallint", "SMALLINT"),
    "USMALLINT": ("integer", "INTEGER"),
    "UINTEGER": ("bigint", "BIGINT"),
    "UBIGINT": ("numeric(20,0)", "DECIMAL(20,0)"),
    "UHUGEINT": ("numeric(38,0)", "DECIMAL(38,0)"),
    "FLOAT": ("real", "FLOAT"),
    "DOUBLE": ("double precision", "DOUBLE"),
    "VARCHAR": ("text", "VARCHAR"),
    "BLOB": ("bytea", "BLOB"),
    "DATE": ("date", "DATE"),
    "TIME": ("time", "TIME"),
    "TIMESTAMP": ("timestamp", "TIMESTAMP"),
    "TIMESTAMP_S": ("timestamp", "TIMESTAMP"),
    "TIMESTAMP_MS": ("timestamp", "TIMESTAMP"),
    "TIMESTAMP_NS": ("timestamp", "TIMESTAMP"),
    "TIMESTAMP WITH TIME ZONE": ("timestamptz", "TIMESTAMP WITH TIME ZONE"),
    "INTERVAL": ("interval", "INTERVAL"),
    "UUID": ("uuid", "UUID"),
    "JSON": ("jsonb", "VARCHAR"),
}

#: DuckDB type → type it becomes for Delta, where Delta has none like it.
_DELTA: Final[dict[str, str]] = {
    "HUGEINT": "DECIMAL(38,0)",
    "UTINYINT": "SMALLINT",
    "USMALLINT": "INTEGER",
    "UINTEGER": "BIGINT",
    "UBIGINT": "DECIMAL(20,0)",
    "UHUGEINT": "DECIMAL(38,0)",
    "TIME": "VARCHAR",
    "TIMESTAMP_S": "TIMESTAMP",
    "TIMESTAMP_MS": "TIMESTAMP",
    "TIMESTAMP_NS": "TIMESTAMP",
    "INTERVAL": "VARCHAR",
    "UUID": "VARCHAR",
    "JSON": "VARCHAR",
}


def for_postgres(name: str, duckdb_type: str) -> tuple[str, str]:
    """PostgreSQL type of a column, and the DuckDB expression that delivers it.

    Lists of plain types become arrays; structs, maps, unions and nested lists become ``jsonb``.
    """
    column = identifier(name)
    plain = _plain_postgres(duckdb_type)
    if plain is not None:
        return plain[0], column if plain[1] == duckdb_type else f"{column}::{plain[1]}"
    element = _plain_postgres(duckdb_type.removesuffix("[]")) if duckdb_type.endswith("[]") else None
    if element is not None and element[0] != "jsonb":
        return f"{element[0]}[]", f"{column}::{element[1]}[]"
    return "jsonb", f"to_json({column})::VARCHAR"


def for_delta(name: str, duckdb_type: str) -> str:
    """The DuckDB expression that delivers a column in a type Delta has."""
    column = identifier(name)
    if target := _DELTA.get(duckdb_type):
        return f"{column}::{target}"
    if duckdb_type.startswith("ENUM(") and not duckdb_type.endswith("]"):
        return f"{column}::VARCHAR"
    words = set(re.findall(r"\w+", duckdb_type.replace("WITH TIME ZONE", "")))
    return f"to_json({column})::VARCHAR" if words & {*_DELTA, "ENUM", "UNION"} else column


def _plain_postgres(duckdb_type: str) -> tuple[str, str] | None:
    if duckdb_type.startswith("DECIMAL("):
        return duckdb_type.replace("DECIMAL", "numeric"), duckdb_type
    if duckdb_type.startswith("ENUM(") and not duckdb_type.endswith("]"):
        return "text", "VARCHAR"
    return _POSTGRES.get(duckdb_type)
