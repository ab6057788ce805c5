"""How each type of MySQL and MariaDB arrives: an expression for the server, and a cast for DuckDB.

DuckDB's scanner takes tinyint(1) for a boolean, a zero date for NULL, a wide decimal for a double and text in a binary
collation for bytes. So what it would get wrong travels in another type. docs/dataloader/types.md is generated from the
test of this module.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_INTEGERS: Final[dict[str, tuple[str, str]]] = {
    "tinyint": ("TINYINT", "UTINYINT"),
    "smallint": ("SMALLINT", "USMALLINT"),
    "mediumint": ("INTEGER", "UINTEGER"),
    "int": ("INTEGER", "UINTEGER"),
    "bigint": ("BIGINT", "UBIGINT"),
}
_TEXT: Final = frozenset(
    {"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set", "json"}
)
_BYTES: Final = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"})
_GEOMETRY: Final = frozenset(
    {"geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon",
     "geometrycollection", "geomcollection"}
)  # fmt: skip
_MARK: Final = re.compile(r"quayside-refused:date:(\d+):")


@dataclass(frozen=True)
class Arrival:
    """DuckDB type of a column, what selects it at the server, and whether DuckDB has to cast what comes."""

    type: str
    expression: str
    cast: bool = False


def of_table(
    column: str,
    number: int,
    data_type: str,
    declared: str,
    numbers: tuple[int, int] | None,
    collation: str | None,
) -> Arrival:
    """A column of a table. `column` is quoted, `declared` the whole type in words, `numbers` precision and scale."""
    unsigned = "unsigned" in declared
    if data_type in _INTEGERS:
        type_ = _INTEGERS[data_type][unsigned]
        if declared.startswith("tinyint(1)"):
            return Arrival(type_, f"{column} + 0", cast=True)
        return Arrival(type_, column)
    if data_type == "decimal" and numbers is not None:
        return _decimal(column, *numbers, exact=not unsigned and numbers[1] > 0)
    if data_type in ("float", "double"):
        return Arrival(data_type.upper(), column)
    if data_type == "bit":
        return Arrival("UBIGINT", f"CAST({column} AS UNSIGNED)", cast=True)
    if data_type == "year":
        return Arrival("INTEGER", column)
    if data_type == "time":
        return Arrival("VARCHAR", column)
    if data_type in ("date", "datetime"):
        return Arrival("DATE" if data_type == "date" else "TIMESTAMP", _no_zero_date(column, number))
    if data_type == "timestamp":
        # The session's time zone is UTC.
        return Arrival("TIMESTAMP WITH TIME ZONE", _no_zero_date(column, number), cast=True)
    if data_type in _TEXT:
        # The scanner takes a binary collation for bytes.
        binary = collation is None or collation.endswith("_bin")
        return Arrival("VARCHAR", _text(column) if binary else column)
    if data_type in _BYTES | _GEOMETRY:
        return Arrival("BLOB", column)
    return Arrival(
        "UUID" if data_type == "uuid" else "VARCHAR", f"CAST({column} AS CHAR)", cast=data_type == "uuid"
    )


def of_query(column: str, number: int, scanned: str, exact: bool, charset: str) -> Arrival:
    """A column of a query, of which nothing is known but what the scanner makes of it.

    `exact`: arithmetic on it is exact. `charset`: of its text, ``binary`` when it is none.
    """
    if scanned == "BOOLEAN":
        return Arrival("SMALLINT", f"{column} + 0", cast=True)
    if found := re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", scanned):
        # The scanner takes the sign and the point to be there always, and is up to two digits short.
        return _decimal(column, min(38, int(found[1]) + 2), int(found[2]), exact=False)
    if scanned == "DOUBLE" and exact:
        return Arrival("VARCHAR", f"CAST({column} AS CHAR)")
    if scanned in ("DATE", "TIMESTAMP"):
        return Arrival(scanned, _no_zero_date(column, number))
    if scanned == "BLOB" and charset != "binary":
        return Arrival("VARCHAR", _text(column))
    return Arrival(scanned, column)


def refused_column(message: str) -> int | None:
    """Number of the column when the server refused a row because of a date that is none."""
    found = _MARK.search(message)
    return None if found is None else int(found[1])


def _decimal(column: str, precision: int, scale: int, *, exact: bool) -> Arrival:
    if precision > 38:
        return Arrival("VARCHAR", f"CAST({column} AS CHAR)")
    type_ = f"DECIMAL({precision},{scale})"
    return Arrival(type_, column) if exact else Arrival(type_, f"CAST({column} AS CHAR)", cast=True)


def _text(column: str) -> str:
    return f"CONVERT({column} USING utf8mb4)"


def _no_zero_date(column: str, number: int) -> str:
    # exp() of so much is the error that both servers raise whatever their sql_mode, and repeat in words.
    mark = f"EXP(10000 + CHAR_LENGTH(CONCAT('quayside-refused:date:{number}:', {column})))"
    # The first branch is cheap and takes nearly every row.
    return (
        f"CASE WHEN DAYOFMONTH({column}) BETWEEN 1 AND 28 AND MONTH({column}) > 0 THEN {column} "
        f"WHEN MONTH({column}) = 0 OR DAYOFMONTH({column}) = 0 OR DAYOFMONTH({column}) > DAYOFMONTH(LAST_DAY({column})) "
        f"THEN IF({mark} > 0, NULL, {column}) ELSE {column} END"
    )
