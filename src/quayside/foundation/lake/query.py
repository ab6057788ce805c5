"""SQL of a person, read-only for certain.

DuckDB's and PostgreSQL's read-only modes do not suffice: a table function can hand PostgreSQL a text that ends the
read-only transaction. So a statement has to be one SELECT (as DuckDB parses it, not as it looks) which calls no table
function but those named here, and it runs on a connection that is attached read-only, may reach no file but the
lake's, and takes no more settings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import duckdb

from quayside.foundation.errors import InputError
from quayside.foundation.lake.sql import literal, reason

if TYPE_CHECKING:
    from quayside.foundation.lake.lake import Lake

#: Table functions that read nothing but their arguments or the catalog. ``query`` would run any text, ``read_*`` any
#: file, ``postgres_*`` anything at all, and several of ``ducklake_*`` write.
_TABLE_FUNCTIONS: Final = frozenset(
    {
        "range",
        "generate_series",
        "unnest",
        "json_each",
        "json_tree",
        "duckdb_tables",
        "duckdb_columns",
        "duckdb_schemas",
        "duckdb_views",
        "duckdb_functions",
        "duckdb_types",
        "duckdb_settings",
        "pragma_table_info",
        "pragma_show",
        "pragma_version",
        "show_tables",
        "summary",
        "ducklake_snapshots",
        "ducklake_current_snapshot",
        "ducklake_last_committed_snapshot",
        "ducklake_table_info",
        "ducklake_table_changes",
        "ducklake_table_insertions",
        "ducklake_table_deletions",
        "ducklake_list_files",
        "ducklake_options",
        "snapshots",
        "current_snapshot",
        "last_committed_snapshot",
        "table_info",
        "table_changes",
        "table_insertions",
        "table_deletions",
        "options",
    }
)
_BATCH_ROWS: Final = 1000


@dataclass(frozen=True)
class QueryResult:
    """Column names and rows, the rows read as they are asked for."""

    columns: list[str]
    rows: Iterator[tuple[Any, ...]]


@contextmanager
def run_query(lake: Lake, sql: str) -> Iterator[QueryResult]:
    """Run one SELECT; the result is open as long as the block.

    Raises:
        InputError: it is not one SELECT, reads something other than the lake, or DuckDB refuses it.
    """
    with closing(lake.connect(read_only=True)) as con:
        check_select(con, sql)
        con.execute("SET python_enable_replacements = false")
        con.execute(f"SET allowed_directories = [{literal(lake.settings.lake_data_path + '/')}]")
        con.execute("SET enable_external_access = false")
        con.execute("SET lock_configuration = true")
        try:
            con.execute(sql)
            yield QueryResult([column[0] for column in con.description or ()], _rows(con))
        except duckdb.Error as error:
            raise InputError(f"The query failed: {reason(error)}.") from None


def check_select(con: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Refuse everything but one SELECT over the lake and harmless table functions.

    Raises:
        InputError: with the reason.
    """
    try:
        row = con.execute("SELECT json_serialize_sql(?)", [sql]).fetchone()
    except duckdb.Error as error:
        raise InputError(f"The query cannot be parsed: {reason(error)}.") from None
    assert row is not None
    parsed: dict[str, Any] = json.loads(row[0])
    if parsed["error"]:
        if parsed.get("error_type") == "not implemented":
            raise InputError("Only one SELECT can be run here: to change the lake use the API or a job.")
        message = str(parsed.get("error_message", "syntax error")).splitlines()[0].rstrip(".")
        raise InputError(f"The query cannot be parsed: {message}.")
    if len(parsed["statements"]) != 1:
        raise InputError("Only one SELECT can be run at a time.")
    for name in _table_functions(parsed["statements"][0]):
        if name not in _TABLE_FUNCTIONS:
            raise InputError(
                f"The table function {name} cannot be used here: a query reads tables of the lake and nothing else."
            )


def _table_functions(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if node.get("type") == "TABLE_FUNCTION":
            yield str(node["function"]["function_name"]).lower()
        for value in node.values():
            yield from _table_functions(value)
    elif isinstance(node, list):
        for value in node:
            yield from _table_functions(value)


def _rows(con: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while batch := con.fetchmany(_BATCH_ROWS):
        yield from batch
