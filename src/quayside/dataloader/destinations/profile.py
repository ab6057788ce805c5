"""How many rows a writing statement was given, counted by DuckDB's own operators while it ran."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import duckdb

_WRITERS: Final = (
    "DUCKLAKE",
    "COPY",
    "BATCH_COPY",
    "MERGE",
    "INSERT",
    "BATCH_INSERT",
    "CREATE_TABLE",
    "BATCH_CREATE_TABLE",
)


def rows_into(con: duckdb.DuckDBPyConnection, sql: str) -> tuple[int, int]:
    """Run an INSERT, MERGE or COPY; rows it says it wrote, and rows that the operators below gave to the writer."""
    answer, given = answer_and_rows_into(con, sql)
    return int(answer[0][0]), given


def answer_and_rows_into(con: duckdb.DuckDBPyConnection, sql: str) -> tuple[list[tuple[Any, ...]], int]:
    """As `rows_into`, with all that the statement answers."""
    import duckdb

    con.execute("SET enable_profiling = 'no_output'")
    try:
        answer = con.execute(sql).fetchall()
        profile = json.loads(con.get_profiling_information(format="json"))
    finally:
        with suppress(duckdb.Error):  # after an error the connection may take nothing but a ROLLBACK
            con.execute("PRAGMA disable_profiling")
    return answer, _given(profile)


def _given(operator: dict[str, Any]) -> int:
    name = operator.get("operator_name")
    if name is not None and not str(name).startswith(_WRITERS):
        return int(operator["operator_cardinality"])
    # A writer's input is its last child where it has several.
    return _given(operator["children"][-1])
