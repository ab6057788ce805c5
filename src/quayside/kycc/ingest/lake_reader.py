"""Batches as tables of the lake, as DataLoader lands them: ``lake:bronze.trade`` reads ``bronze.trade.parties`` and so on."""

# ruff: noqa: S608 - table and column names are constants of the contract; values are bound or quoted by `literal`

from __future__ import annotations

import hashlib
from typing import Final

import duckdb

from quayside.foundation.errors import InputError, NotFoundError
from quayside.foundation.lake.sql import identifier
from quayside.kycc.ingest.columns import refuse_labels, report_unused
from quayside.kycc.ingest.contract import CONTRACT
from quayside.kycc.ingest.source import RawTable, Source, shown

SCHEME: Final = "lake:"


def open_lake(con: duckdb.DuckDBPyConnection, name: str) -> Source:
    """The tables of a lake schema as a batch.

    DataLoader names tables catalog.schema.table. The lake is one catalog, in which the schema is called
    ``catalog.schema`` or, where dots are avoided, ``catalog_schema``.

    Raises:
        NotFoundError: the lake has no such schema.
        InputError: it holds no parties, or its columns cannot hold a batch.
    """
    label = shown(SCHEME + name, 100)
    schema = schema_of(con, name, label)
    rows = con.execute(
        "SELECT table_name, column_name, data_type FROM duckdb_columns() "
        "WHERE database_name = current_database() AND schema_name = ? ORDER BY column_index",
        [schema],
    ).fetchall()
    columns: dict[str, dict[str, str]] = {}
    for table, column, type_ in rows:
        if table in CONTRACT:
            columns.setdefault(table, {})[column] = type_
    if "parties" not in columns:
        raise InputError(f"{label} has no table parties: a batch is the tables {', '.join(CONTRACT)}.")
    source = Source(label, "", dict)
    tables: dict[str, RawTable] = {}
    for table in CONTRACT:
        if table in columns:
            refuse_labels(label, table, set(columns[table]))
            report_unused(source, CONTRACT[table], set(columns[table]))
            known = {n: t for n, t in columns[table].items() if n in CONTRACT[table].sources}
            # A table of the lake is read at one snapshot per statement; a copy keeps all statements on the same rows.
            copy = f"raw_{table}"
            con.execute(
                f"CREATE OR REPLACE TEMP TABLE {copy} AS SELECT {', '.join(map(identifier, known))} "
                f"FROM {identifier(schema)}.{identifier(table)}"
            )
            tables[table] = RawTable(f"temp.{copy}", "rowid", known)
    source.content_sha256 = digest_of(con, tables)
    source.read = lambda: tables
    return source


def schema_of(con: duckdb.DuckDBPyConnection, name: str, label: str) -> str:
    """The lake schema that ``catalog.schema`` means.

    Raises:
        NotFoundError: there is none.
    """
    candidates = [name, name.replace(".", "_")]
    found = con.execute(
        "SELECT schema_name FROM duckdb_schemas() WHERE database_name = current_database() AND schema_name IN (?, ?)",
        candidates,
    ).fetchall()
    present = {schema for (schema,) in found}
    for candidate in candidates:
        if candidate in present:
            return candidate
    raise NotFoundError(
        f"{label}: the lake has no schema {shown(name)}; `quayside lake tables` lists what it has."
    )


def digest_of(con: duckdb.DuckDBPyConnection, tables: dict[str, RawTable]) -> str:
    """A digest of the rows, whatever their order."""
    parts = []
    for table, raw in tables.items():
        values = ", ".join(map(identifier, raw.columns))
        row = con.execute(
            f"SELECT count(*), sum(hash({values})), bit_xor(hash({values}, 1)) FROM {raw.relation}"
        ).fetchone()
        parts.append(f"{table} {values} {row}\n")
    return hashlib.sha256("".join(parts).encode()).hexdigest()
