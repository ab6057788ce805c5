"""How many rows have the key of another row, in memory that does not grow with the rows.

Hashes of the keys are counted; keys themselves only when two hashes are the same. More than `KEYS_AT_ONCE` hashes are first
written to files by their lowest bits, eight bytes a row beside what DuckDB spills, and counted file by file: counting them
all takes 60 bytes a row, and reading the table once for each part a second for 60 M rows. Belongs here: that count. Does
not belong here: what follows from it.
"""

# ruff: noqa: S608 - relations and keys are quoted by the caller, paths and numbers are our own

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from quayside.dataloader.destinations.parallel import threads_for
from quayside.foundation.lake.sql import literal
from quayside.foundation.processes import private_folder

if TYPE_CHECKING:
    import duckdb

#: Hashes counted in one go: about 20 MB.
KEYS_AT_ONCE: Final = 250_000
#: Files written at once; each holds back some rows. What one holds beyond `KEYS_AT_ONCE` is counted in several passes.
MOST_FILES: Final = 256
#: Rows that a file holds back before they are written.
_HELD_ROWS: Final = 8_192


def duplicates(con: duckdb.DuckDBPyConnection, relation: str, key: str) -> int:
    """Rows of `relation` with the key of another row; `key` is a list of columns. `con` may be in a transaction."""
    rows = _number(con, f"SELECT count(*) FROM {relation}")
    hashes = f"SELECT hash({key}) AS h FROM {relation}"
    if rows <= KEYS_AT_ONCE:
        met = _met(con, f"({hashes})")
    else:
        with (
            threads_for(con, one_stream=True),
            _uncached(con),
            _in_files(con, hashes, rows) as (parts, passes),
        ):
            met = any(
                _met(con, f"{part} WHERE h // {MOST_FILES} % {passes} = {n}")
                for part in parts
                for n in range(passes)
            )
    return _number(con, f"SELECT count(*) - count(DISTINCT row({key})) FROM {relation}") if met else 0


@contextmanager
def _uncached(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """What is read once does not stay in memory, up to the limit of it."""
    with closing(con.cursor()) as apart:
        [kept] = apart.execute("SELECT current_setting('enable_external_file_cache')").fetchone() or [True]
        apart.execute("SET enable_external_file_cache = false")
        try:
            yield
        finally:
            apart.execute(f"SET enable_external_file_cache = {bool(kept)}")


@contextmanager
def _in_files(con: duckdb.DuckDBPyConnection, hashes: str, rows: int) -> Iterator[tuple[list[str], int]]:
    """Relations that hold the hashes, each all that end in the same bits, and in how many passes to count one."""
    wanted = -(-rows // KEYS_AT_ONCE)
    files = min(wanted, MOST_FILES)
    # Its name says whose it is, so that what a killed process leaves is removed like what DuckDB spilled.
    [spilled] = con.execute("SELECT current_setting('temp_directory')").fetchone() or [""]
    folder = Path(f"{spilled}-keys-{uuid.uuid4().hex[:12]}")
    private_folder(folder)
    try:
        con.execute(
            f"COPY (SELECT h, h % {files} AS part FROM ({hashes})) TO {literal(str(folder))} (FORMAT parquet, "
            f"COMPRESSION uncompressed, ROW_GROUP_SIZE {_HELD_ROWS}, PARTITION_BY (part), OVERWRITE_OR_IGNORE)"
        )
        names = [f"{escape(str(part))}/*.parquet" for part in sorted(folder.iterdir())]
        found = [f"read_parquet({literal(name)}, hive_partitioning = false)" for name in names]
        yield found, -(-wanted // files)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _met(con: duckdb.DuckDBPyConnection, hashes: str) -> bool:
    return _number(con, f"SELECT count(*) - count(DISTINCT h) FROM {hashes}") > 0


def _number(con: Any, sql: str) -> int:
    return int(con.execute(sql).fetchone()[0])
