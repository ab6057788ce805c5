"""Types between DuckDB and Delta: as what a column is stored, and the table's schema in Delta's own JSON.

Belongs here: what Delta has no type for, and names of folders. Does not belong here: which changes of a schema a
contract allows.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from quayside.foundation.errors import InputError
from quayside.foundation.lake.sql import identifier
from quayside.foundation.lake.types import for_delta

if TYPE_CHECKING:
    import duckdb

_PRIMITIVES: Final[dict[str, str]] = {
    "BOOLEAN": "boolean",
    "TINYINT": "byte",
    "SMALLINT": "short",
    "INTEGER": "integer",
    "BIGINT": "long",
    "FLOAT": "float",
    "DOUBLE": "double",
    "VARCHAR": "string",
    "BLOB": "binary",
    "DATE": "date",
    "TIMESTAMP": "timestamp_ntz",
    "TIMESTAMP WITH TIME ZONE": "timestamp",
}
_OF_DELTA: Final = {delta: duckdb_type for duckdb_type, delta in _PRIMITIVES.items()}

#: What `for_delta` does not name; a nested column that holds one of these is stored as JSON text.
_AS_TEXT: Final = ("TIME WITH TIME ZONE", "TIME_NS", "BIT", "BIGNUM", "VARINT", "GEOMETRY")
_SEGMENT_BYTES: Final = 180


def stored(name: str, duckdb_type: str) -> str:
    """The DuckDB expression that delivers a column in a type that Delta has."""
    column = identifier(name)
    if duckdb_type in {*_AS_TEXT, '"NULL"', "NULL"}:
        return f"{column}::VARCHAR"
    if re.search(rf"\b({'|'.join(_AS_TEXT)})\b", _without_names(duckdb_type)):
        return f"to_json({column})::VARCHAR"
    if re.search(r"\[\d+\]", duckdb_type):  # arrays of fixed length are lists there
        lists = re.sub(r"\[\d+\]", "[]", duckdb_type)
        return f"{column}::{lists}"
    return for_delta(name, _without_names(duckdb_type))


def stored_types(con: duckdb.DuckDBPyConnection, columns: Mapping[str, str]) -> dict[str, str]:
    """Column → the DuckDB type it has once it was stored."""
    if not columns:
        return {}
    nulls = ", ".join(f"NULL::{type_} AS {identifier(name)}" for name, type_ in columns.items())
    listed = ", ".join(f"{stored(name, type_)} AS {identifier(name)}" for name, type_ in columns.items())
    rows = con.execute(f"DESCRIBE SELECT {listed} FROM (SELECT {nulls})").fetchall()  # noqa: S608  quoted
    return {row[0]: row[1] for row in rows}


def delta_schema(con: duckdb.DuckDBPyConnection, columns: Mapping[str, str]) -> dict[str, Any]:
    """Delta's schema of columns whose types were stored already.

    Raises:
        InputError: a type that Delta has nothing for.
    """
    fields = [_field(name, _delta_type(name, con.sqltype(type_))) for name, type_ in columns.items()]
    return {"type": "struct", "fields": fields}


def duckdb_columns(schema: Mapping[str, Any]) -> dict[str, str]:
    """Column → DuckDB type of a schema in Delta's JSON."""
    return {field["name"]: _duckdb_type(field["type"]) for field in schema["fields"]}


def segment(name: str) -> str:
    """A catalog's, schema's or table's name as the name of a folder: no two names share one, and none leads out.

    Letters, digits, ``-``, ``_`` and inner dots stay; everything else becomes ``~`` and its UTF-8 bytes in hexadecimal;
    what is longer than a file system takes ends in a digest.
    """
    kept = re.sub(r"[^\w.-]|^\.|\.$", lambda m: "".join(f"~{byte:02X}" for byte in m.group().encode()), name)
    if len(kept.encode()) <= _SEGMENT_BYTES:
        return kept
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{kept.encode()[: _SEGMENT_BYTES - 20].decode(errors='ignore')}~~{digest}"


def _without_names(duckdb_type: str) -> str:
    return re.sub(r'"(?:[^"]|"")*"', "", duckdb_type)


def _field(name: str, type_: Any) -> dict[str, Any]:
    return {"name": name, "type": type_, "nullable": True, "metadata": {}}


def _delta_type(column: str, type_: Any) -> Any:
    """Delta's type of a `DuckDBPyType`, whose children are pairs of name and type."""
    if (primitive := _PRIMITIVES.get(str(type_))) is not None:
        return primitive
    kind = type_.id
    if kind == "decimal":
        return str(type_).lower().replace(" ", "")
    if kind in ("list", "array"):
        return {
            "type": "array",
            "elementType": _delta_type(column, type_.children[0][1]),
            "containsNull": True,
        }
    if kind == "struct":
        return {
            "type": "struct",
            "fields": [_field(name, _delta_type(column, child)) for name, child in type_.children],
        }
    if kind == "map":
        key, value = (child for _, child in type_.children)
        return {
            "type": "map",
            "keyType": _delta_type(column, key),
            "valueType": _delta_type(column, value),
            "valueContainsNull": True,
        }
    raise InputError(
        f"Column {column!r} has type {type_}, which Delta has nothing for: cast it in the row's query."
    )


def _duckdb_type(type_: Any) -> str:
    if isinstance(type_, str):
        return _OF_DELTA.get(type_) or type_.upper()
    match type_["type"]:
        case "array":
            return f"{_duckdb_type(type_['elementType'])}[]"
        case "map":
            return f"MAP({_duckdb_type(type_['keyType'])}, {_duckdb_type(type_['valueType'])})"
        case _:
            fields = ", ".join(f"{identifier(f['name'])} {_duckdb_type(f['type'])}" for f in type_["fields"])
            return f"STRUCT({fields})"
