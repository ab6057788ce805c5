"""The Parquet files of a Delta table, written and read by DuckDB, with the figures and bounds of each.

Belongs here: files and their statistics. Does not belong here: the log, and which rows a load wants.
"""

from __future__ import annotations

import logging
import math
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from quayside.dataloader.destinations.delta_log import DataFile
from quayside.dataloader.destinations.parallel import each
from quayside.dataloader.destinations.profile import answer_and_rows_into
from quayside.dataloader.errors import CountMismatchError
from quayside.foundation.errors import ServiceUnavailableError
from quayside.foundation.lake.sql import identifier, literal, reason

if TYPE_CHECKING:
    import duckdb

    from quayside.dataloader.destinations.delta_log import DeltaLog
    from quayside.dataloader.sources.source import Portions

#: Size at which DuckDB begins the next file. Small files make a merge of neighbouring keys cheap (it rewrites whole
#: files); readers prefer large ones.
FILE_BYTES: Final = 16 * 1024 * 1024

#: Names of the virtual columns that say which file a row comes from, and where in it the row is.
FILE_COLUMN: Final = "__quayside_file"
ROW_COLUMN: Final = "__quayside_row"

_FEW_ROWS: Final = 1_000_000
_LONGEST_BOUND: Final = 64
_EXACT_DIGITS: Final = 15
_NUMBERS: Final = frozenset({"TINYINT", "SMALLINT", "INTEGER", "BIGINT"})
_MOMENT: Final = re.compile(r"(\d{4}-\d\d-\d\d)(?: (\d\d:\d\d:\d\d(?:\.\d+)?)(\+00)?)?")

logger = logging.getLogger(__name__)


class FileSet:
    """The files that one change of a table writes; `discard` takes them away again when it comes to nothing."""

    def __init__(self, con: duckdb.DuckDBPyConnection, log: DeltaLog) -> None:
        self.files: list[DataFile] = []
        self.written = False
        self._con = con
        self._log = log
        self._prefix = f"part-{uuid.uuid4().hex}"

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(file.size for file in self.files)

    def write(self, select: str, columns: Mapping[str, str], expected: int | None = None) -> int:
        """Stream the rows of a query, whose columns have these stored types, into files; the number of rows.

        Each thread has a file of its own, unless so few rows are `expected` that the files would be small.
        """
        own = "" if expected is not None and expected < _FEW_ROWS else "PER_THREAD_OUTPUT, "
        given = self._write(self._con, select, columns, own)
        self.written = True
        return given

    def write_portions(
        self,
        portions: Portions,
        columns: Mapping[str, str],
        written: Callable[[int], None],
        check: Callable[[], None],
    ) -> None:
        """`write` for portions, several at once; `written` is told how many rows are, `check` asked whether to go on."""

        def one(cursor: duckdb.DuckDBPyConnection, select: str) -> None:
            self._write(cursor, select, columns, "")
            written(self.rows)

        _ = self._log.store  # made here, and not by several threads at once
        each(self._con, portions, one, check)
        self.written = True  # by all of them

    def _write(
        self, con: duckdb.DuckDBPyConnection, select: str, columns: Mapping[str, str], own: str
    ) -> int:
        _ = self._log.store  # makes the folder
        written, given = answer_and_rows_into(
            con,
            f"COPY ({select}) TO {literal(self._log.url)} (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, "
            f"{own}FILE_SIZE_BYTES {FILE_BYTES}, FILENAME_PATTERN '{self._prefix}-{{uuidv7}}', "
            "OVERWRITE_OR_IGNORE, RETURN_STATS)",
        )
        self._check(con, given, {str(row[0]): int(row[1]) for row in written})
        for name, count, size, _footer, statistics, _partition in written:
            file = DataFile(str(name).rpartition("/")[2], int(size), int(count))
            if file.rows:
                stats = _stats(columns, statistics)
                self.files.append(DataFile(file.path, file.size, file.rows, stats))
            else:
                self._remove(file.path)
        return given

    def discard(self) -> None:
        """Take the files away. What cannot be is told to the log, and `vacuum` finds it later."""
        paths = {file.path for file in self.files}
        if self._log.storage_options is None:  # also what a failed statement left
            paths |= {file.name for file in Path(self._log.url).glob(f"{self._prefix}-*")}
        for path in sorted(paths):
            self._remove(path)
        self.files = []
        self.written = False

    def _check(self, con: duckdb.DuckDBPyConnection, given: int, written: Mapping[str, int]) -> None:
        """What the files say themselves, read again, against what went into the writer and what it says it wrote."""
        paths = ", ".join(map(_path, written))
        found = con.execute(
            f"SELECT file_name, num_rows FROM parquet_file_metadata([{paths}])"  # noqa: S608  quoted
        ).fetchall()
        held = sum(written.values())
        if dict(found) != written or held != given:
            raise CountMismatchError(
                f"{given:,} rows were given to the writer of {self._log.url}, which says {held:,}, and its files hold "
                f"{sum(rows for _, rows in found):,}: nothing was committed."
            )

    def _remove(self, path: str) -> None:
        try:
            self._log.store.delete(path)
        except ServiceUnavailableError as error:
            logger.warning("%s stays in %s until it is vacuumed: %s.", path, self._log.url, reason(error))


def relation(
    con: duckdb.DuckDBPyConnection,
    url: str,
    files: Sequence[DataFile],
    columns: Mapping[str, str],
    *,
    located: bool = False,
) -> str:
    """SQL that stands behind FROM: the rows of these files with the table's columns, streamed.

    With `located` also `FILE_COLUMN`, the path of each row's file relative to the table, and `ROW_COLUMN`, the row's
    place in it.
    """
    if not files:
        nulls = [f"NULL::{type_} AS {identifier(name)}" for name, type_ in columns.items()]
        if located:
            nulls += [f"NULL::VARCHAR AS {FILE_COLUMN}", f"NULL::BIGINT AS {ROW_COLUMN}"]
        return f"(SELECT {', '.join(nulls)} WHERE false)"
    paths = ", ".join(_path(f"{url}/{file.path}") for file in files)
    scan = f"read_parquet([{paths}], union_by_name = true, hive_partitioning = false"
    described = con.execute(f"DESCRIBE SELECT * FROM {scan})").fetchall()  # noqa: S608  quoted
    present = {str(row[0]).lower(): str(row[1]) for row in described}  # old files lack a column added later
    listed = []
    for name, type_ in columns.items():
        found = present.get(name.lower())
        source = identifier(name) if found else "NULL"
        listed.append(f"{source if found == type_ else f'{source}::{type_}'} AS {identifier(name)}")
    if located:
        listed += [f"{FILE_COLUMN}[{len(url) + 2}:] AS {FILE_COLUMN}", f"file_row_number AS {ROW_COLUMN}"]
        scan += f", filename = {literal(FILE_COLUMN)}, file_row_number = true"
    return f"(SELECT {', '.join(listed)} FROM {scan}))"  # noqa: S608  quoted


def _path(path: str) -> str:
    """A path as SQL. DuckDB takes it for a pattern, in which a character in brackets stands for itself."""
    return literal(re.sub(r"[*?\[]", r"[\g<0>]", path))


def _stats(columns: Mapping[str, str], statistics: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Delta's statistics of a file: exact bounds or none. Nested columns have none."""
    least: dict[str, Any] = {}
    greatest: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    for name, type_ in columns.items():
        found = statistics.get(identifier(name))
        if found is None:
            continue
        nulls[name] = int(found["null_count"])
        low, high = (_bound(type_, found.get(which)) for which in ("min", "max"))
        if low is not None and high is not None and found.get("has_nan") != "true":
            least[name], greatest[name] = low, high
    return {"minValues": least, "maxValues": greatest, "nullCount": nulls}


def _bound(type_: str, text: str | None) -> Any:
    if text is None:
        return None
    if type_ in _NUMBERS:
        return int(text)
    if type_ == "DOUBLE":  # not FLOAT: its shortest text is another number as a double
        return number if math.isfinite(number := float(text)) else None
    if type_.startswith("DECIMAL("):  # a JSON number is read as a double by many
        return float(text) if sum(c.isdigit() for c in text) <= _EXACT_DIGITS else None
    if type_ == "VARCHAR":
        return text if len(text) <= _LONGEST_BOUND else None
    if type_ == "DATE" or type_.startswith("TIMESTAMP"):
        match = _MOMENT.fullmatch(text)  # not infinity, not before Christ, not past the year 9999
        if match is None:
            return None
        day, moment, zone = match.groups()
        return day if moment is None else f"{day}T{moment}{'Z' if zone else ''}"
    return None
