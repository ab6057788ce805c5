"""How many rows a writing statement was given, counted by DuckDB's own operators while it ran."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Flow:
    """`given`: rows that the operators below gave to the writer; `wrote`: rows it says it wrote."""

    given: int
    wrote: int


def rows_into(con: duckdb.DuckDBPyConnection, sql: str) -> Flow:
    """Run an INSERT, MERGE or CREATE TABLE AS."""
    answer, profile = _profiled(con, sql)
    return Flow(_given(profile), int(answer[0][0]))


def answer_and_rows_into(con: duckdb.DuckDBPyConnection, sql: str) -> tuple[list[tuple[Any, ...]], int]:
    """Run a COPY that answers with its files; also the rows that were given to it."""
    answer, profile = _profiled(con, sql)
    return answer, _given(profile)


def _profiled(con: duckdb.DuckDBPyConnection, sql: str) -> tuple[list[tuple[Any, ...]], dict[str, Any]]:
    import duckdb

    con.execute("SET enable_profiling = 'no_output'")
    try:
        answer = con.execute(sql).fetchall()
        return answer, json.loads(con.get_profiling_information(format="json"))
    finally:
        with suppress(duckdb.Error):  # after an error the connection may take nothing but a ROLLBACK
            con.execute("PRAGMA disable_profiling")


def _given(operator: dict[str, Any]) -> int:
    name = operator.get("operator_name")
    if name is not None and not str(name).startswith(_WRITERS):
        return int(operator["operator_cardinality"])
    # A writer's input is its last child where it has several.
    return _given(operator["children"][-1])
