"""Writing a judged batch to the lake: everything in one transaction, or nothing.

A batch that is new is inserted as it is. Of a batch that is known only what differs is written: rows that are new are
added, rows that changed are replaced, rows that the input no longer has stay unless ``replace`` is asked for.
"""

# ruff: noqa: S608 - table and column names are constants of the contract; values are bound or quoted by `literal`

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeVar

import duckdb

from quayside.foundation.lake.sql import literal
from quayside.foundation.statements import one_row
from quayside.kycc import tables
from quayside.kycc.ingest.query import TableQuery
from quayside.kycc.ingest.result import IngestResult
from quayside.kycc.ingest.source import Source
from quayside.kycc.ingest.validate import used

T = TypeVar("T")

#: Of a batch that is refused, so many rows per table and reason are kept for a person to look at.
MAX_REFUSED_ROWS: Final = 1_000


class LakeLike(Protocol):
    """What ingest needs of the lake; see `quayside.foundation.lake.Lake`."""

    def connect(self) -> duckdb.DuckDBPyConnection: ...

    def transaction(
        self, work: Callable[[duckdb.DuckDBPyConnection], T], con: duckdb.DuckDBPyConnection | None = None
    ) -> T: ...


@dataclass(frozen=True)
class Known:
    """The last load of a batch, as ``kycc.batches`` has it."""

    batch_id: str
    content_sha256: str
    as_of: datetime
    base_currency: str | None
    rates_sha256: str
    counts: dict[str, dict[str, int]]


def last_load(
    con: duckdb.DuckDBPyConnection, *, batch_id: str | None = None, content: str | None = None
) -> Known | None:
    """The last load of the batch, or of the batch that has this content, None when there is none."""
    row = con.execute(
        """
        SELECT batch_id, content_sha256, as_of, base_currency, rates_sha256, rows_read, rows_kept, rows_quarantined
        FROM (FROM kycc.batches WHERE $batch IS NULL OR batch_id = $batch
              QUALIFY row_number() OVER (PARTITION BY batch_id ORDER BY loaded_at DESC) = 1)
        WHERE $content IS NULL OR content_sha256 = $content LIMIT 1
        """,
        {"batch": batch_id, "content": content},
    ).fetchone()
    if row is None:
        return None
    counts: dict[str, dict[str, int]] = dict(
        zip(("rows_read", "rows_kept", "rows_quarantined"), map(json.loads, row[5:]), strict=True)
    )
    return Known(row[0], row[1], row[2], row[3], row[4], counts)


def insert_all(
    con: duckdb.DuckDBPyConnection, queries: Mapping[str, TableQuery], result: IngestResult
) -> None:
    """Insert every used row of a batch the lake knows nothing of."""
    for table, query in queries.items():
        clean = result.rows_kept[table] == result.rows_read[table]
        rows = (
            f"SELECT * EXCLUDE (position) FROM ({query.stored()})" if clean else used(query, query.stored())
        )
        con.execute(f"INSERT INTO {query.contract.table.qualified} {rows}")


def find_differences(
    con: duckdb.DuckDBPyConnection, queries: Mapping[str, TableQuery], result: IngestResult, *, replace: bool
) -> None:
    """Collect, in temporary tables ``new_<table>`` and ``gone_<table>``, how the lake has to change, and count it.

    Reads the files of this batch alone, whatever else the lake holds.
    """
    for table, query in queries.items():
        columns = list(query.contract.table.columns)
        mine, theirs = (", ".join(f'{side}."{c}"' for c in columns) for side in ("n", "l"))
        key = query.key
        stored = f"(FROM {query.contract.table.qualified} WHERE batch_id = {literal(query.batch_id)})"
        con.execute(f"""
            CREATE OR REPLACE TEMP TABLE new_{table} AS
            SELECT n.*, l.{key} IS NOT NULL AS known
            FROM ({used(query, query.stored())}) n LEFT JOIN {stored} l ON n.{key} = l.{key}
            WHERE l.{key} IS NULL OR ({mine}) IS DISTINCT FROM ({theirs})
        """)
        con.execute(f"""
            CREATE OR REPLACE TEMP TABLE gone_{table} AS
            SELECT l.{key} AS key FROM {stored} l ANTI JOIN ({used(query, query.values())}) n ON n.{key} = l.{key}
        """)
        changed, total, missing = one_row(
            con,
            f"SELECT (SELECT count(*) FROM new_{table} WHERE known), (SELECT count(*) FROM new_{table}), (SELECT count(*) FROM gone_{table})",
        )
        result.rows_changed[table] = changed
        result.rows_added[table] = total - changed
        result.rows_unchanged[table] = result.rows_kept[table] - total
        result.rows_missing[table] = missing
        result.rows_removed[table] = missing if replace else 0


def apply_differences(
    con: duckdb.DuckDBPyConnection, queries: Mapping[str, TableQuery], result: IngestResult
) -> None:
    """Write what `find_differences` found."""
    for table, query in queries.items():
        target, key = query.contract.table.qualified, query.key
        out = [f"SELECT {key} FROM new_{table} WHERE known"] if result.rows_changed[table] else []
        out += [f"SELECT key FROM gone_{table}"] if result.rows_removed[table] else []
        if out:
            con.execute(
                f"DELETE FROM {target} WHERE batch_id = {literal(query.batch_id)} AND {key} IN ({' UNION ALL '.join(out)})"
            )
        if result.rows_changed[table] or result.rows_added[table]:
            con.execute(f"INSERT INTO {target} SELECT * EXCLUDE (known) FROM new_{table}")


def record_load(
    con: duckdb.DuckDBPyConnection, source: Source, label: str, result: IngestResult, rates_sha256: str
) -> None:
    """Note the load itself, in the transaction of its rows."""
    provenance = {key: value for key, value in source.header.items() if key != "batch_id"}
    values: dict[str, Any] = {
        "batch_id": result.batch_id,
        "content_sha256": result.content_sha256,
        "source": label,
        "as_of": result.as_of,
        "base_currency": result.base_currency,
        "rates_sha256": rates_sha256,
        "provenance": json.dumps(provenance),
        "rows_read": json.dumps(result.rows_read),
        "rows_kept": json.dumps(result.rows_kept),
        "rows_quarantined": json.dumps(result.rows_quarantined),
        "loaded_at": datetime.now(UTC),
    }
    names = ", ".join(values)
    marks = ", ".join("?" * len(values))
    con.execute(f"INSERT INTO {tables.BATCHES.qualified} ({names}) VALUES ({marks})", list(values.values()))


def record_quarantine(
    con: duckdb.DuckDBPyConnection,
    queries: Mapping[str, TableQuery],
    result: IngestResult,
    *,
    at_most: int | None = None,
) -> None:
    """Write the rows that are not used, with their reasons; what an earlier attempt with this content wrote is replaced.

    Args:
        at_most: so many per table and reason, for a batch that is refused as a whole.
    """
    target = tables.QUARANTINE.qualified
    mine = f"batch_id = {literal(result.batch_id)} AND content_sha256 = {literal(result.content_sha256)}"
    if con.execute(f"SELECT 1 FROM {target} WHERE {mine} LIMIT 1").fetchone():
        con.execute(f"DELETE FROM {target} WHERE {mine}")
    for table, query in queries.items():
        if not result.rows_quarantined[table]:
            continue
        limit = (
            f"QUALIFY row_number() OVER (PARTITION BY reason ORDER BY position) <= {at_most}"
            if at_most
            else ""
        )
        key_text = f"text_{query.contract.key}"
        con.execute(f"""
            INSERT INTO {target} ({", ".join(tables.QUARANTINE.columns)})
            WITH bad AS (
                SELECT position, reason, string_agg(DISTINCT detail, '; ' ORDER BY detail) AS detail
                FROM bad_{table} WHERE reason IS NOT NULL GROUP BY position, reason {limit}
            ), keys AS (
                SELECT position, replace(left({key_text}, 200), chr(0), '\\0') AS key
                FROM ({query.values()}) SEMI JOIN bad USING (position)
            ), raw AS (
                SELECT {query.raw.position} AS position, {query.raw_json()} AS row FROM {query.raw.relation}
                WHERE {query.raw.position} IN (SELECT position FROM bad)
            )
            SELECT {literal(result.batch_id)}, {literal(result.content_sha256)}, {literal(table)}, position, key, reason,
                   detail, row::JSON
            FROM bad JOIN keys USING (position) JOIN raw USING (position)
        """)
