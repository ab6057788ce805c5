"""Compute the features of one batch as of one moment and store them.

Each function works inside the caller's transaction on a DuckDB connection whose current catalog holds the tables of
`quayside.kycc.tables` and `registry.TABLES`. It replaces the rows of its (batch_id, as_of), and touches nothing when
exactly these rows are there already.
"""
# ruff: noqa: S608 - statements are made of constants of this package; values are bound

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from quayside.foundation.errors import CheckFailedError, NotFoundError
from quayside.kycc.features import kyc, network, registry, transactions
from quayside.kycc.features.moment import Moment
from quayside.kycc.tables import PARTIES, Table

if TYPE_CHECKING:
    import duckdb

    from quayside.kycc.features.distribution import Distribution

_ROWS = "temp.feature_rows"


@dataclass(frozen=True)
class Extraction:
    """What one extraction did. `changed` is False when the table held exactly these rows before; `distributions` has one
    entry per feature of the table."""

    table: str
    rows: int
    changed: bool
    seconds: float
    distributions: dict[str, Distribution]


def extract_kyc(con: duckdb.DuckDBPyConnection, batch_id: str, as_of: datetime) -> Extraction:
    """Features of the parties themselves, into `kycc.features_kyc`.

    Raises:
        NotFoundError: the batch has no parties in the lake.
        InputError: `as_of` has no zone or is before 1901.
    """
    started = time.monotonic()
    return _store(con, Moment(batch_id, as_of), registry.FEATURES_KYC, kyc.query(), started)


def extract_transactions(con: duckdb.DuckDBPyConnection, batch_id: str, as_of: datetime) -> Extraction:
    """Features of the parties' transactions, into `kycc.features_transaction`. Raises like `extract_kyc`."""
    started = time.monotonic()
    return _store(con, Moment(batch_id, as_of), registry.FEATURES_TRANSACTION, transactions.query(), started)


def extract_network(con: duckdb.DuckDBPyConnection, batch_id: str, as_of: datetime) -> Extraction:
    """Features of the trading network, into `kycc.features_network`. Raises like `extract_kyc`.

    Where the network is too dense for an exact answer, `network_is_estimate` marks the party and `network_size_error`
    gives the relative standard error.
    """
    from quayside.kycc.features.measures import measure_network

    started, moment = time.monotonic(), Moment(batch_id, as_of)
    con.register("feature_measures", measure_network(con, moment))
    try:
        result = _store(con, moment, registry.FEATURES_NETWORK, network.query(), started)
    finally:
        con.unregister("feature_measures")
    con.execute("DROP TABLE temp.feature_nodes")
    return result


def extract_features(con: duckdb.DuckDBPyConnection, batch_id: str, as_of: datetime) -> Extraction:
    """Join what the three others stored for this batch and moment into `kycc.features`: one row per party.

    Raises:
        NotFoundError: the batch has no parties in the lake.
        CheckFailedError: one of the three was not extracted, or from other parties than the batch has now.
    """
    started, moment = time.monotonic(), Moment(batch_id, as_of)
    parties = _count(con, moment, f"SELECT count(*) FROM {PARTIES.qualified} WHERE batch_id = $batch_id")
    for source, table in registry.SOURCE_TABLES.items():
        rows = _count(con, moment, f"SELECT count(*) FROM {_stored(table)}")
        if rows != parties:
            raise CheckFailedError(
                f"Batch {batch_id!r} has {parties} parties but {rows} rows of {source} features as of "
                f"{as_of.isoformat()}: extract the {source} features again."
            )
    columns = ", ".join(f'"{name}"' for name in list(registry.FEATURES_WIDE.columns)[2:])
    kyc_, *others = (
        f"(SELECT * EXCLUDE (batch_id, as_of) FROM {_stored(t)})" for t in registry.SOURCE_TABLES.values()
    )
    select = f"SELECT {columns} FROM {kyc_} " + " ".join(f"JOIN {other} USING (party_id)" for other in others)
    return _store(con, moment, registry.FEATURES_WIDE, select, started)


def publish_definitions(con: duckdb.DuckDBPyConnection) -> bool:
    """Write the registry to `kycc.feature_definitions`, where other systems read it; False when it was there already."""
    table = registry.FEATURE_DEFINITIONS
    wanted = [tuple(row.values()) for row in registry.definitions()]
    if con.execute(f"SELECT * FROM {table.qualified} ORDER BY name").fetchall() == sorted(wanted):
        return False
    con.execute(f"DELETE FROM {table.qualified}")
    marks = ", ".join(f"({', '.join('?' * len(table.columns))})" for _ in wanted)
    con.execute(f"INSERT INTO {table.qualified} VALUES {marks}", [value for row in wanted for value in row])
    return True


def _store(
    con: duckdb.DuckDBPyConnection, moment: Moment, table: Table, select: str, started: float
) -> Extraction:
    """Run `select` (party_id and the columns of `table`) and make its rows those of this batch and moment."""
    from quayside.kycc.features.distribution import distributions

    made = f"CREATE OR REPLACE TEMP TABLE feature_rows AS SELECT $batch_id AS batch_id, $as_of AS as_of, * FROM ({select}) ORDER BY party_id"
    con.execute(made, moment.parameters(made))
    rows, content = _fingerprint(con, moment, table, _ROWS)
    if not rows:
        raise NotFoundError(f"Batch {moment.batch_id!r} has no parties in the lake: ingest it first.")
    changed = (rows, content) != _fingerprint(con, moment, table, _stored(table))
    if changed:
        delete = f"DELETE FROM {_stored(table)}"
        con.execute(delete, moment.parameters(delete))
        con.execute(f"INSERT INTO {table.qualified} SELECT * FROM {_ROWS}")
    found = distributions(con, _ROWS, [f for f in registry.FEATURES if f.name in table.columns])
    con.execute(f"DROP TABLE {_ROWS}")  # on an error the caller's roll-back takes it away
    return Extraction(table.qualified, rows, changed, time.monotonic() - started, found)


def _stored(table: Table) -> str:
    return f"{table.qualified} WHERE batch_id = $batch_id AND as_of = $as_of"


def _fingerprint(con: duckdb.DuckDBPyConnection, moment: Moment, table: Table, rows: str) -> tuple[Any, ...]:
    """Number of rows and a hash of their contents, whatever their order."""
    columns = ", ".join(f'"{name}"' for name in table.columns)
    sql = f"SELECT count(*), sum(CAST(hash({columns}) AS HUGEINT)) FROM {rows}"
    return con.execute(sql, moment.parameters(sql)).fetchall()[0]


def _count(con: duckdb.DuckDBPyConnection, moment: Moment, sql: str) -> int:
    return con.execute(sql, moment.parameters(sql)).fetchall()[0][0]
