"""The table ``dataloader.load_states`` of the lake: what each load's commit said of itself, one row per commit.

A row is written in the transaction of the rows it speaks of, and the newest of a configuration and table counts. It says
nothing about a table that was made later than the row, so a table dropped by hand starts anew. Rows are kept in the
catalog (DuckLake's data inlining): a file for each would double the files of small loads. Belongs here: reading and
writing those rows. Does not belong here: what a strategy remembers.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from quayside.dataloader.destinations.destination import LoadState
from quayside.foundation.lake.session import CATALOG
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


def read(con: duckdb.DuckDBPyConnection, config_id: int, schema: str, table: str) -> LoadState | None:
    """The newest state of a configuration that speaks of the table as it is; the table exists."""
    row = con.execute(
        f"SELECT state, snapshot_id FROM {_STATES} WHERE config_id = ? AND table_name = ? "  # noqa: S608  own names
        "ORDER BY rowid DESC LIMIT 1",
        [config_id, f"{schema}.{table}"],
    ).fetchone()
    if row is None or row[1] < _made_at(con, schema, table):
        return None
    return LoadState(**json.loads(row[0]))


def write(con: duckdb.DuckDBPyConnection, state: LoadState, schema: str, table: str) -> None:
    """Add a state in the open transaction."""
    con.execute(
        f"INSERT INTO {_STATES} VALUES (?, ?, ?, ?, now())",  # noqa: S608  own names
        [state.config_id, state.attempt, f"{schema}.{table}", json.dumps(asdict(state), default=list)],
    )


def ensure(con: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Make the table where it is missing."""
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


def _made_at(con: duckdb.DuckDBPyConnection, schema: str, table: str) -> int:
    row = con.execute(
        f"SELECT t.begin_snapshot FROM {_METADATA}.ducklake_table t "  # noqa: S608  own names
        f"JOIN {_METADATA}.ducklake_schema s USING (schema_id) "
        "WHERE t.table_name = ? AND t.end_snapshot IS NULL AND s.schema_name = ? AND s.end_snapshot IS NULL",
        [table, schema],
    ).fetchone()
    assert row is not None
    return int(row[0])
