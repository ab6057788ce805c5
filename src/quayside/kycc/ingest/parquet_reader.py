"""Batches as a folder of Parquet files: ``parties``, ``accounts``, ``transactions``, ``relationships`` ``.parquet``.

``batch.json`` beside them holds what the JSON form has beside its tables (batch_id, generated_at, seed …); without it
the rows say which batch they are of.
"""

# ruff: noqa: S608 - table and column names are constants of the contract; values are bound or quoted by `literal`

from __future__ import annotations

import hashlib
import re
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Final

import duckdb

from quayside.foundation.errors import InputError, sentence
from quayside.foundation.lake.sql import literal
from quayside.kycc.ingest.columns import refuse_labels, report_unused
from quayside.kycc.ingest.contract import CONTRACT, PROVENANCE_KEYS
from quayside.kycc.ingest.json_stream import MAX_VALUE_BYTES
from quayside.kycc.ingest.source import (
    RawTable,
    Source,
    digest,
    identity,
    open_file,
    parse_json,
    shown,
    unreadable,
)

MANIFEST: Final = "batch.json"


def open_parquet(con: duckdb.DuckDBPyConnection, path: Path, folder: Path, opened: ExitStack) -> Source:
    """A folder of Parquet files as a batch; `folder` is for our own use, `opened` closes the files in the end.

    Raises:
        InputError: it is not a batch.
    """
    label = shown(path.name or str(path), 100)
    try:
        names = {entry.name for entry in path.iterdir()}
    except OSError as error:
        raise unreadable(path, error) from None
    files = {
        name: opened.enter_context(open_file(path / name))
        for name in (*(f"{table}.parquet" for table in CONTRACT), MANIFEST)
        if name in names
    }
    if "parties.parquet" not in files:
        wanted = ", ".join(f"{table}.parquet" for table in CONTRACT)
        raise InputError(f"The folder {label} has no parties.parquet: a batch folder holds {wanted}.")
    before = {name: identity(file) for name, file in files.items()}
    digests = "".join(f"{name} {digest(file)}\n" for name, file in sorted(files.items()))
    source = Source(
        label,
        hashlib.sha256(digests.encode()).hexdigest(),
        dict,
        unchanged=lambda: all(identity(file) == before[name] for name, file in files.items()),
    )
    if MANIFEST in files:
        _read_manifest(source, files[MANIFEST])

    def read() -> dict[str, RawTable]:
        # A link of a name of ours: the folder's own may hold wildcards, which DuckDB would expand.
        link = folder / "source"
        link.symlink_to(path.absolute())
        return {
            table: _table(con, source, table, link / f"{table}.parquet")
            for table in CONTRACT
            if f"{table}.parquet" in files
        }

    source.read = read
    return source


def _read_manifest(source: Source, file: BinaryIO) -> None:
    file.seek(0)
    where = f"{MANIFEST} of {source.label}"
    content = file.read(MAX_VALUE_BYTES + 1)
    if len(content) > MAX_VALUE_BYTES:
        raise InputError(
            f"{where} is longer than {MAX_VALUE_BYTES:,} bytes: it holds batch_id, generated_at and the like."
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{where} is not UTF-8: save it as UTF-8.") from None
    value = parse_json(text, where)
    if not isinstance(value, dict):
        raise InputError(f"{where} is not a JSON object: it holds batch_id, generated_at and the like.")
    source.header.update({k: v for k, v in value.items() if k == "batch_id" or k in PROVENANCE_KEYS})


def _table(con: duckdb.DuckDBPyConnection, source: Source, table: str, file: Path) -> RawTable:
    relation = f"read_parquet({literal(str(file))}, file_row_number = true, hive_partitioning = false)"
    try:
        described = con.execute(f"DESCRIBE SELECT * EXCLUDE (file_row_number) FROM {relation}").fetchall()
    except duckdb.Error as error:
        raise unusable(source.label, table, error) from None
    columns = {name: type_ for name, type_, *_ in described}
    refuse_labels(source.label, table, set(columns))
    report_unused(source, CONTRACT[table], set(columns))
    known = {name: type_ for name, type_ in columns.items() if name in CONTRACT[table].sources}
    return RawTable(relation, "file_row_number", known)


def unusable(label: str, table: str, error: Exception) -> InputError:
    """The one sentence for a Parquet file that DuckDB cannot read."""
    reason = re.sub(
        r"( in| of)? [Ff]ile ['\"].*?['\"]:?", "", " " + sentence(error).split(": ", 1)[-1]
    ).strip()
    return InputError(
        f"{table}.parquet of {label} is not readable Parquet ({reason[:120]}): write or copy it again."
    )
