"""How each type of PostgreSQL arrives, as the expression that selects it.

DuckDB's scanner reads a type it knows from the binary protocol and everything else as text. Where it would be wrong
without saying so (NaN in numeric(p,s) becomes 0, an infinite interval some number, a year beyond its own end wraps
around) the expression makes PostgreSQL itself refuse the row, in words that `refusal` understands. docs/dataloader/types.md is
generated from the test of this module.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from quayside.foundation.lake.sql import identifier

#: Types that the scanner reads exactly → the DuckDB type.
_EXACT: Final[dict[str, str]] = {
    "bool": "BOOLEAN",
    "int2": "SMALLINT",
    "int4": "INTEGER",
    "int8": "BIGINT",
    "float4": "FLOAT",
    "float8": "DOUBLE",
    "text": "VARCHAR",
    "varchar": "VARCHAR",
    "json": "VARCHAR",
    "bytea": "BLOB",
    "date": "DATE",
    "time": "TIME",
    "timetz": "TIME WITH TIME ZONE",
    "timestamp": "TIMESTAMP",
    "timestamptz": "TIMESTAMP WITH TIME ZONE",
    "interval": "INTERVAL",
    "uuid": "UUID",
}
#: Elements of which a one-dimensional array arrives as a list; arrays of others arrive as JSON text.
_ELEMENTS: Final = frozenset(
    {"bool", "int2", "int4", "int8", "float4", "float8", "text", "varchar", "date", "time", "timestamp",
     "timestamptz", "uuid"}
)  # fmt: skip
_TOO_LATE: Final = "'294247-01-01'"

_REASONS: Final[dict[str, str]] = {
    "nan": "holds NaN, which a decimal cannot; read it as text: {column}::text",
    "infinite": "holds an infinite interval; read it as text: {column}::text",
    "late": "holds a time after the year 294246; read it as text: {column}::text",
    "dimensions": "holds an array of several dimensions and is declared with one; read it as JSON: to_json({column})::text",
}
_MARK: Final = re.compile(r"quayside-refused:(\w+):(\d+):")


@dataclass(frozen=True)
class PostgresType:
    """A type as PostgreSQL describes a column: catalog names of the type and of its element, and the modifier."""

    name: str
    kind: str
    element: str | None
    element_kind: str | None
    modifier: int
    dimensions: int


def arrival(name: str, number: int, of: PostgresType) -> tuple[str, str]:
    """DuckDB type of column `number`, and the expression that delivers it; `name` is not quoted yet."""
    column = identifier(name)

    def refuse(condition: str, reason: str, type_: str) -> str:
        # The text depends on the row, or the planner would evaluate it for a table in which nothing is wrong.
        mark = f"('quayside-refused:{reason}:{number}:' || {column}::text)::{type_}"
        # The cast does nothing but for a domain, of which CASE would forget precision and scale.
        return f"CASE WHEN {condition} THEN {mark} ELSE {column}::{type_} END"

    if of.kind == "b" and of.name == "numeric":
        declared = decimal_of(of.modifier)
        if declared is None:
            return "VARCHAR", f"{column}::text"
        precision, scale = declared
        if precision < scale:
            column, precision = f"{column}::numeric({scale},{scale})", scale
        return f"DECIMAL({precision},{scale})", refuse(
            f"{column} = 'NaN'", "nan", f"numeric({precision},{scale})"
        )
    if of.kind == "b" and of.name in _EXACT:
        guarded = {
            "interval": (f"NOT isfinite({column})", "infinite"),
            "timestamp": (f"{column} >= {_TOO_LATE} AND {column} <> 'infinity'", "late"),
            "timestamptz": (f"{column} >= {_TOO_LATE} AND {column} <> 'infinity'", "late"),
        }.get(of.name)
        return _EXACT[of.name], column if guarded is None else refuse(*guarded, of.name)
    if of.kind == "b" and of.name == "oid":
        return "BIGINT", f"{column}::int8"
    if of.kind == "b" and of.name == "money":
        return "VARCHAR", f"{column}::numeric::text"
    if of.element is not None:
        flat = refuse(f"array_ndims({column}) > 1", "dimensions", f"{of.element}[]")
        return _array(column, number, of, flat)
    if of.kind == "c" or of.name == "record":
        return "VARCHAR", f"to_json({column})::text"
    return "VARCHAR", f"{column}::text"


def _array(column: str, number: int, of: PostgresType, one_dimension: str) -> tuple[str, str]:
    if of.dimensions > 1 or of.element_kind != "b" or of.element not in _ELEMENTS:
        return "VARCHAR", f"to_json({column})::text"
    if of.element in ("timestamp", "timestamptz"):
        last = f"(SELECT max(x) FROM unnest({column}) x WHERE isfinite(x))"  # noqa: S608  quoted
        mark = f"('quayside-refused:late:{number}:' || {column}::text)::{of.element}[]"
        one_dimension = f"CASE WHEN {last} >= {_TOO_LATE} THEN {mark} ELSE {one_dimension} END"
    return f"{_EXACT[of.element]}[]", one_dimension


def decimal_of(modifier: int) -> tuple[int, int] | None:
    """Precision and scale of a numeric's modifier; None when it has none, or not one that DuckDB can hold exactly."""
    if modifier < 0:
        return None
    precision, scale = ((modifier - 4) >> 16) & 0xFFFF, (((modifier - 4) & 0x7FF) ^ 1024) - 1024
    return (precision, scale) if scale >= 0 and max(precision, scale) <= 38 else None


def refusal(message: str, columns: list[str]) -> tuple[str, str] | None:
    """Column and reason, when PostgreSQL refused a row because of an expression of `arrival`."""
    found = _MARK.search(message)
    if found is None:
        return None
    column = columns[int(found[2])]
    return column, _REASONS[found[1]].format(column=identifier(column))
