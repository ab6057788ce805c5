"""Types between DuckDB and Delta: as what a column is stored, and the table's schema in Delta's own JSON.

Belongs here: what Delta has no type for, and names of folders. Does not belong here: which changes of a schema a
contract allows.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from quayside.dataloader.errors import UnsupportedTypeError
from quayside.foundation.lake.sql import identifier

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

#: DuckDB type → what stands for it in Delta. Nothing but nanoseconds is lost by the cast.
_STAND_INS: Final[dict[str, str]] = {
    "HUGEINT": "DECIMAL(38,0)",
    "UHUGEINT": "DECIMAL(38,0)",
    "UBIGINT": "DECIMAL(20,0)",
    "UINTEGER": "BIGINT",
    "USMALLINT": "INTEGER",
    "UTINYINT": "SMALLINT",
    "TIMESTAMP_S": "TIMESTAMP",
    "TIMESTAMP_MS": "TIMESTAMP",
    "TIMESTAMP_NS": "TIMESTAMP",
    **dict.fromkeys(
        (
            "TIME",
            "TIME_NS",
            "TIME WITH TIME ZONE",
            "INTERVAL",
            "UUID",
            "JSON",
            "BIT",
            "BIGNUM",
            "VARINT",
            '"NULL"',
        ),
        "VARCHAR",
    ),
}
_SEGMENT_BYTES: Final = 180


def stored_type(con: duckdb.DuckDBPyConnection, duckdb_type: str) -> str:
    """The DuckDB type a column has once it is stored in Delta; nested types keep their shape.

    Raises:
        UnsupportedTypeError: Delta can hold it in no way.
    """
    if duckdb_type in _PRIMITIVES:
        return duckdb_type
    return _stand_ins(con.sqltype(duckdb_type))


def _stand_ins(type_: Any) -> str:
    """For a `DuckDBPyType`, whose children are pairs of name and type."""
    text = str(type_)
    if text in _PRIMITIVES or type_.id == "decimal":
        return text
    if (stand_in := _STAND_INS.get(text)) is not None:
        return stand_in
    match type_.id:
        case "enum" | "union":
            return "VARCHAR"
        case "list" | "array":
            return f"{_stand_ins(type_.children[0][1])}[]"
        case "struct":
            fields = ", ".join(f"{identifier(name)} {_stand_ins(child)}" for name, child in type_.children)
            return f"STRUCT({fields})"
        case "map":
            key, value = (_stand_ins(child) for _, child in type_.children)
            return f"MAP({key}, {value})"
        case _:
            raise UnsupportedTypeError(
                f"Delta has nothing for DuckDB's type {text}: cast the column in the row's query."
            )


def delta_schema(con: duckdb.DuckDBPyConnection, columns: Mapping[str, str]) -> dict[str, Any]:
    """Delta's schema of columns whose types were stored already.

    Raises:
        UnsupportedTypeError: a type that Delta has nothing for.
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
        return kept or "~"
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{kept.encode()[: _SEGMENT_BYTES - 20].decode(errors='ignore')}~~{digest}"


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
    raise UnsupportedTypeError(
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
