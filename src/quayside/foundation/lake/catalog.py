"""What the lake holds: tables, snapshots, and the table a name means."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from quayside.foundation.errors import NotFoundError
from quayside.foundation.lake.session import CATALOG
from quayside.foundation.lake.sql import identifier, literal

if TYPE_CHECKING:
    import duckdb

_METADATA: Final = f"__ducklake_metadata_{CATALOG}.{CATALOG}"


@dataclass(frozen=True)
class TableState:
    """One table as it is now. Sizes are those of the Parquet files, in bytes."""

    table: str
    rows: int
    files: int
    bytes: int
    deleted_rows: int
    changed_at: datetime | None


@dataclass(frozen=True)
class Snapshot:
    """One commit. `changes`: in DuckLake's words what was done, and to which tables."""

    snapshot_id: int
    time: datetime
    changes: dict[str, list[str]]
    author: str | None
    message: str | None


@dataclass(frozen=True)
class TableAt:
    """One table at one snapshot; `relation` is what stands behind FROM. `columns` maps name to DuckDB type."""

    schema: str
    name: str
    snapshot_id: int
    columns: dict[str, str]

    @property
    def qualified(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def relation(self) -> str:
        return f"{_path(self.schema, self.name)} AT (VERSION => {self.snapshot_id})"


def tables(con: duckdb.DuckDBPyConnection) -> list[TableState]:
    """Every table, by name. Counts come from the catalog alone, so they cost the same whatever is stored."""
    rows = con.execute(
        f"""
        WITH data AS (
            SELECT table_id, sum(record_count) AS rows, count(*) AS files, sum(file_size_bytes) AS bytes,
                   max(begin_snapshot) AS last_change
            FROM {_METADATA}.ducklake_data_file WHERE end_snapshot IS NULL GROUP BY table_id
        ), deletes AS (
            SELECT table_id, sum(delete_count) AS rows, max(begin_snapshot) AS last_change
            FROM {_METADATA}.ducklake_delete_file WHERE end_snapshot IS NULL GROUP BY table_id
        )
        SELECT s.schema_name || '.' || t.table_name, coalesce(data.rows, 0) - coalesce(deletes.rows, 0),
               coalesce(data.files, 0), coalesce(data.bytes, 0), coalesce(deletes.rows, 0), snapshot_time
        FROM {_METADATA}.ducklake_table t
        JOIN {_METADATA}.ducklake_schema s ON s.schema_id = t.schema_id AND s.end_snapshot IS NULL
        LEFT JOIN data ON data.table_id = t.table_id
        LEFT JOIN deletes ON deletes.table_id = t.table_id
        LEFT JOIN {_METADATA}.ducklake_snapshot
            ON snapshot_id = greatest(data.last_change, deletes.last_change, t.begin_snapshot)
        WHERE t.end_snapshot IS NULL ORDER BY 1
        """  # noqa: S608  names of our own
    ).fetchall()
    return [TableState(table, int(n), int(f), int(b), int(d), at) for table, n, f, b, d, at in rows]


def ask(con: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    """Rows of one SELECT that PostgreSQL runs over the catalog's tables, which are in schema ``lake``, as last committed.

    A third of what DuckDB takes to plan the same over its attachment. Texts stand in it as `text` quotes them.
    """
    query = f"SELECT * FROM postgres_query('__ducklake_metadata_{CATALOG}', {literal(sql)})"  # noqa: S608  quoted
    return con.execute(query).fetchall()


def text(value: str) -> str:
    """A text quoted for PostgreSQL, however it treats backslashes."""
    return "E" + literal(value.replace("\\", "\\\\"))


def snapshots(con: duckdb.DuckDBPyConnection, limit: int | None = None) -> list[Snapshot]:
    """Snapshots that can still be read, the newest first."""
    rows = con.execute(
        "SELECT snapshot_id, snapshot_time, changes, author, commit_message FROM ducklake_snapshots(?) "
        "ORDER BY snapshot_id DESC LIMIT ?",
        [CATALOG, limit],
    ).fetchall()
    named = dict(
        con.execute(
            f"""
            SELECT table_id::VARCHAR, last(schema_name || '.' || table_name ORDER BY t.begin_snapshot)
            FROM {_METADATA}.ducklake_table t JOIN {_METADATA}.ducklake_schema s USING (schema_id) GROUP BY 1
            """  # noqa: S608  names of our own
        ).fetchall()
    )
    return [
        Snapshot(number, at, {what: [named.get(t, t) for t in which] for what, which in changes.items()}, *by)
        for number, at, changes, *by in rows
    ]


def resolve(con: duckdb.DuckDBPyConnection, name: str, snapshot_id: int | None = None) -> TableAt:
    """The table that ``schema.table`` means, at a snapshot (default: the current one).

    The last dot divides, so that a schema's name may contain dots.

    Raises:
        NotFoundError: there is no such table, or no such snapshot any more.
    """
    import duckdb

    schema, _, table = name.rpartition(".")
    schema = schema or "main"
    if snapshot_id is None:
        snapshot_id = int(_scalar(con, "SELECT id FROM ducklake_current_snapshot(?)", CATALOG))
    elif not _scalar(
        con, "SELECT count(*) FROM ducklake_snapshots(?) WHERE snapshot_id = ?", CATALOG, snapshot_id
    ):
        raise NotFoundError(
            f"The lake has no snapshot {snapshot_id} (any more): `quayside lake snapshots` lists those it has."
        )
    at = TableAt(schema, table, snapshot_id, {})
    try:
        described = con.execute(f"DESCRIBE SELECT * FROM {at.relation}").fetchall()  # noqa: S608  quoted
    except duckdb.CatalogException:
        raise NotFoundError(
            f"The lake has no table {schema}.{table} at snapshot {snapshot_id}: `quayside lake tables` lists all."
        ) from None
    return TableAt(schema, table, snapshot_id, {row[0]: row[1] for row in described})


def _path(schema: str, table: str) -> str:
    return f"{CATALOG}.{identifier(schema)}.{identifier(table)}"


def _scalar(con: duckdb.DuckDBPyConnection, sql: str, *values: object) -> Any:
    row = con.execute(sql, list(values)).fetchone()
    assert row is not None
    return row[0]
