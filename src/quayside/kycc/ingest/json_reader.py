"""Batches as JSON: one object with four arrays, or a bare list of profiles.

The rows are staged as Parquet whose columns hold the raw text of each JSON value, so that nothing is coerced on the
way: whether ``"1"`` was a string or a number is still known where it is judged.
"""

# ruff: noqa: S608 - table and column names are constants of the contract; values are bound or quoted by `literal`

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import duckdb

from quayside.foundation.errors import InputError
from quayside.foundation.lake.sql import literal
from quayside.kycc.ingest.columns import refuse_labels, report_unused
from quayside.kycc.ingest.contract import CONTRACT, PROVENANCE_KEYS, TableContract
from quayside.kycc.ingest.json_stream import JsonStream, Rows
from quayside.kycc.ingest.source import RawTable, Source, digest, identity, shown

if TYPE_CHECKING:
    import pyarrow as pa

_LIST: Final = "profiles"
_SEPARATOR: Final = "\x1f"
#: Files have one or a few sets of keys per table; a file with more of them than this is not a table.
MAX_KEY_SETS: Final = 10_000

#: A list of profiles has no ids. The same name and tax id make the same id in every batch.
_DERIVED_ID: Final = """
    CASE WHEN party_id IS NULL AND coalesce(name, company_name) IS NOT NULL
    THEN '"P-' || sha256(lower(trim(coalesce(name, company_name))) || chr(31) || coalesce(tax_id, ''))[1:16] || '"'
    ELSE party_id END"""


def open_json(con: duckdb.DuckDBPyConnection, file: BinaryIO, path: Path, folder: Path) -> Source:
    """A JSON file as a batch; `folder` takes the staged rows.

    Raises:
        InputError: it is not a batch.
    """
    label = shown(path.name, 100)
    before = identity(file)
    source = Source(label, digest(file), dict, unchanged=lambda: identity(file) == before)

    def read() -> dict[str, RawTable]:
        return _read(con, source, file, folder)

    source.read = read
    return source


def _read(
    con: duckdb.DuckDBPyConnection, source: Source, file: BinaryIO, folder: Path
) -> dict[str, RawTable]:
    found: dict[str, RawTable] = {}
    unknown: list[str] = []
    for member in JsonStream(file, source.label, frozenset(CONTRACT) | {_LIST, "outcomes"}):
        if isinstance(member, Rows):
            if member.key == "outcomes":
                raise InputError(
                    f"{source.label} holds outcomes, not a batch: outcomes are what came after a batch was scored and are not ingested with it."
                )
            if member.key == _LIST:
                raise InputError(
                    f"{source.label} has a list called profiles, as files of labels have, and is no batch: a batch is an "
                    "object with parties, accounts, transactions and relationships, or a bare list of profiles."
                )
            table = "parties" if member.key is None else member.key
            contract = CONTRACT[table]
            found[table], keys = stage(con, source, contract, member, file, folder)
            refuse_labels(source.label, table, keys)
            report_unused(source, contract, keys)
            if member.key is None:
                found[
                    table
                ].relation = f"(SELECT * REPLACE ({_DERIVED_ID} AS party_id) FROM {found[table].relation})"
                source.warnings.append(
                    f"{source.label} is a list of profiles: parties without a party_id got one from their name and tax_id."
                )
        elif member.key == "batch_id" or member.key in PROVENANCE_KEYS:
            source.header[member.key] = member.value
        else:
            unknown.append(member.key)
    if unknown:
        source.warnings.append(
            f"Keys that no batch has were left out: {', '.join(shown(k, 30) for k in unknown[:10])}."
        )
    if "parties" not in found:
        raise InputError(
            f"{source.label} has no parties: a batch is an object with parties, accounts, transactions and relationships."
        )
    return found


def stage(
    con: duckdb.DuckDBPyConnection,
    source: Source,
    contract: TableContract,
    rows: Rows,
    file: BinaryIO,
    folder: Path,
) -> tuple[RawTable, set[str]]:
    """Write the elements of one array as Parquet; the raw table, and every key that stands in any of them.

    Raises:
        InputError: an element is no JSON object, or they are no table.
    """
    import pyarrow as pa

    table = contract.name
    staged = folder / f"{table}.parquet"
    wanted = ", ".join(f'"{name}": "JSON"' for name in contract.sources)
    as_text = ", ".join(f'"{name}" VARCHAR' for name in contract.sources)
    problem: list[InputError] = []

    def batches() -> Iterator[pa.RecordBatch]:
        # An exception cannot cross DuckDB as itself, so it waits here until the statement is over.
        try:
            yield from rows.batches
        except InputError as error:
            problem.append(error)

    schema = pa.schema([("position", pa.int64()), ("element", pa.string())])
    con.register("elements", pa.RecordBatchReader.from_batches(schema, batches()))
    try:
        con.execute(f"""
            COPY (SELECT position, array_to_string(json_keys(element), chr(31)) AS keys,
                         unnest(json_transform(element, '{{{wanted}}}')::STRUCT({as_text}))
                  FROM elements) TO {literal(str(staged))} (FORMAT parquet, COMPRESSION snappy)
        """)
    except duckdb.Error as error:
        if problem:
            raise problem[0] from None
        if not isinstance(error, duckdb.InvalidInputException):
            raise
        raise _malformed(con, source, table, rows.key, file, error) from None
    finally:
        con.unregister("elements")
    if problem:
        raise problem[0]
    relation = f"read_parquet({literal(str(staged))})"
    columns: dict[str, str] = dict.fromkeys(contract.sources, "JSON")
    keys, repeated = _look_at_keys(con, source, table, relation)
    return RawTable(relation, "position", columns, repeated), keys


def _look_at_keys(
    con: duckdb.DuckDBPyConnection, source: Source, table: str, relation: str
) -> tuple[set[str], str | None]:
    """Every key of the rows, and SQL that says in which rows one stands twice."""
    found = con.execute(f"SELECT keys FROM {relation} GROUP BY keys LIMIT {MAX_KEY_SETS + 1}").fetchall()
    if len(found) > MAX_KEY_SETS:
        raise InputError(
            f"{source.label}: the rows of {table} have more than {MAX_KEY_SETS:,} different sets of keys; they are no table."
        )
    key_sets = [keys.split(_SEPARATOR) for (keys,) in found]
    present = {key for keys in key_sets for key in keys if key}
    twice = [_SEPARATOR.join(keys) for keys in key_sets if len(set(keys)) < len(keys)]
    return present, f"keys IN ({', '.join(map(literal, twice))})" if twice else None


def _malformed(
    con: duckdb.DuckDBPyConnection,
    source: Source,
    table: str,
    key: str | None,
    file: BinaryIO,
    error: duckdb.Error,
) -> InputError:
    """Read once more to say which row it was that could not be parsed."""
    reason = re.search(r"of input: ([^.]*)\.", str(error))
    why = f" ({reason[1]})" if reason else ""
    for member in JsonStream(file, source.label, frozenset(CONTRACT) | {key or ""}):
        if not isinstance(member, Rows):
            continue
        for batch in member.batches:
            if member.key == key and (row := _first_invalid(con, batch)) is not None:
                return InputError(
                    f"{source.label} is not valid JSON: row {row + 1:,} of {table} cannot be read{why}; correct the file."
                )
    return InputError(f"{source.label} is not valid JSON: {table} cannot be read{why}; correct the file.")


def _first_invalid(con: duckdb.DuckDBPyConnection, batch: Any) -> int | None:
    con.register("elements", batch)
    row = con.execute("SELECT min(position) FROM elements WHERE NOT json_valid(element)").fetchone()
    con.unregister("elements")
    return row[0] if row else None
