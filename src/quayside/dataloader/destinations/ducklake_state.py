"""The table ``dataloader.load_states`` of the lake: what each load's commit said of itself, one row per commit.

A row is written in the transaction of the rows it speaks of, and the newest of a configuration and table counts. It says
nothing about a table that was made later than the row, so a table dropped by hand starts anew. Rows are kept in the
catalog (DuckLake's data inlining): a file for each would double the files of small loads. Belongs here: reading, writing
and pruning those rows. Does not belong here: what a strategy remembers.
"""

# ruff: noqa: S608 - names are our own, values are bound

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from quayside.dataloader.destinations.destination import LoadState
from quayside.foundation.lake.catalog import ask, text
from quayside.foundation.lake.session import CATALOG
from quayside.foundation.lake.sql import identifier
from quayside.foundation.postgres import advisory_lock

if TYPE_CHECKING:
    import duckdb

    from quayside.foundation.settings import Settings

SCHEMA: Final = "dataloader"
TABLE: Final = "load_states"
_STATES: Final = f"{CATALOG}.{SCHEMA}.{TABLE}"
_METADATA: Final = f"__ducklake_metadata_{CATALOG}.{CATALOG}"

#: Rows of one commit that are kept in the catalog; a commit writes one.
_INLINED_ROWS: Final = 100


def read(con: duckdb.DuckDBPyConnection, config_id: int, table: str, made_at: int) -> LoadState | None:
    """The newest state of a configuration that speaks of `table` (``schema.table``) as it is since snapshot `made_at`."""
    import duckdb

    row = None
    for kept in _kept_in(con):
        # Read where DuckLake keeps them, texts as bytes: a scan of the lake takes ten times as long, and fetches those of
        # all tables.
        rows = ask(
            con,
            f"SELECT convert_from(state, 'UTF8'), begin_snapshot FROM {CATALOG}.{identifier(kept)} WHERE config_id = {config_id} "
            f"AND table_name = convert_to({text(table)}, 'UTF8') AND end_snapshot IS NULL ORDER BY row_id DESC LIMIT 1",
        )
        row = rows[0] if rows else None
    if row is None:  # somebody had DuckLake write them to files, or there is none
        try:
            row = con.execute(
                f"SELECT state, snapshot_id FROM {_STATES} WHERE config_id = ? AND table_name = ? "
                "ORDER BY rowid DESC LIMIT 1",
                [config_id, table],
            ).fetchone()
        except duckdb.CatalogException:  # no load has committed yet
            return None
    if row is None or row[1] < made_at:
        return None
    return LoadState(**json.loads(row[0]))


def write(con: duckdb.DuckDBPyConnection, state: LoadState, table: str) -> None:
    """Add a state of `table` in the open transaction."""
    con.execute(
        f"INSERT INTO {_STATES} VALUES (?, ?, ?, ?, now())",
        [state.config_id, state.attempt, table, json.dumps(asdict(state), default=list)],
    )


def prune(con: duckdb.DuckDBPyConnection, config_id: int, table: str) -> None:
    """Take away the states that newer ones of the same configuration and table have replaced.

    Past DuckLake, in its catalog: a DELETE of the lake would be a conflict for every load that is about to commit, and
    nobody travels back in time to a state.
    """
    for kept in _kept_in(con):
        rows = f"{_METADATA}.{identifier(kept)}"
        con.execute(
            f"DELETE FROM {rows} WHERE config_id = ? AND table_name = ? AND row_id < "
            f"(SELECT max(row_id) FROM {rows} WHERE config_id = ? AND table_name = ?)",
            [config_id, table, config_id, table],
        )


def ensure(con: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Make the table where it is missing."""
    # Asked of the catalog itself: by its name DuckLake would read all tables' columns, and once more in the transaction to come.
    there = (
        f"SELECT 1 FROM {CATALOG}.ducklake_table t JOIN {CATALOG}.ducklake_schema s USING (schema_id) "
        f"WHERE t.table_name = {text(TABLE)} AND t.end_snapshot IS NULL "
        f"AND s.schema_name = {text(SCHEMA)} AND s.end_snapshot IS NULL"
    )
    if ask(con, there):
        return
    with advisory_lock(settings, "quayside.dataloader.load_states"):
        con.execute(f"CREATE SCHEMA IF NOT EXISTS {CATALOG}.{SCHEMA}")
        con.execute(
            f"CREATE TABLE IF NOT EXISTS {_STATES} (config_id BIGINT, attempt BIGINT, table_name VARCHAR, "
            "state VARCHAR, written_at TIMESTAMP WITH TIME ZONE)"
        )
        con.execute(
            f"CALL {CATALOG}.set_option('data_inlining_row_limit', {_INLINED_ROWS}, "
            f"schema => '{SCHEMA}', table_name => '{TABLE}')"
        )


def is_missing(error: Exception) -> bool:
    """Whether a statement failed because there is no such table yet."""
    return f"{TABLE} does not exist" in str(error) or f'"{SCHEMA}" does not exist' in str(error)


def _kept_in(con: duckdb.DuckDBPyConnection) -> list[str]:
    """The catalog's tables of rows kept there, the newest layout last."""
    rows = ask(
        con,
        f"SELECT i.table_name FROM {CATALOG}.ducklake_inlined_data_tables i "
        f"JOIN {CATALOG}.ducklake_table t USING (table_id) JOIN {CATALOG}.ducklake_schema s USING (schema_id) "
        f"WHERE t.table_name = {text(TABLE)} AND t.end_snapshot IS NULL AND s.schema_name = {text(SCHEMA)} "
        "AND s.end_snapshot IS NULL ORDER BY i.schema_version",
    )
    return [row[0] for row in rows]
