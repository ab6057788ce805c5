"""Data files of a DuckLake table that several readers write at once, to be added to it in the load's transaction.

DuckLake's own INSERT is one statement and so one stream of a source (see `parallel`). These are the files it would have
written: in the table's folder, under its names, with the lake's options. Belongs here: writing, adding and discarding them.
Does not belong here: the transaction.
"""

# ruff: noqa: S608 - names and paths are quoted, values are bound

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final, Self

from quayside.dataloader.destinations.parallel import each
from quayside.dataloader.destinations.profile import answer_and_rows_into
from quayside.dataloader.errors import CountMismatchError
from quayside.foundation.lake.session import CATALOG
from quayside.foundation.lake.sql import literal

if TYPE_CHECKING:
    import duckdb

    from quayside.dataloader.sources.source import Portions

_METADATA: Final = f"__ducklake_metadata_{CATALOG}.{CATALOG}"

#: The lake's options → those of COPY.
_OPTIONS: Final = {
    "parquet_compression": "COMPRESSION",
    "parquet_compression_level": "COMPRESSION_LEVEL",
    "parquet_version": "PARQUET_VERSION",
    "parquet_row_group_size": "ROW_GROUP_SIZE",
    "parquet_row_group_size_bytes": "ROW_GROUP_SIZE_BYTES",
}
#: Where the lake has no option. The second version's encodings, and no dictionary of a column with many values, take a
#: fifth less CPU to write lineitem, a tenth less space and a quarter less CPU to read.
_DEFAULTS: Final = {"PARQUET_VERSION": "2", "DICTIONARY_SIZE_LIMIT": "1000"}
#: Types that Parquet has as DuckLake stores them; the others DuckLake writes itself.
_PLAIN: Final = re.compile(
    r"(BOOLEAN|TINYINT|SMALLINT|INTEGER|BIGINT|FLOAT|DOUBLE|DECIMAL\(\d+,\d+\)|VARCHAR|BLOB|UUID|DATE|TIME|TIMESTAMP"
    r"|TIMESTAMP WITH TIME ZONE)(\[\])?"
)
#: A table of such a name has a folder of that name, which is known before it is made; others have a number.
_FOLDER_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
_FILE_BYTES: Final = 512 * 1024 * 1024


class LakeFiles:
    """The files of one table that is about to be made. `rows` are those written so far."""

    def __init__(
        self, con: duckdb.DuckDBPyConnection, schema: str, table: str, folder: str, options: str
    ) -> None:
        self.rows = 0
        self._con = con
        self._schema = schema
        self._table = table
        self._folder = folder
        self._options = options
        self._prefix = f"ducklake-{uuid.uuid4().hex[:12]}"
        self._paths: list[str] = []
        self._lock = Lock()

    @classmethod
    def of(
        cls, con: duckdb.DuckDBPyConnection, schema: str, table: str, columns: Mapping[str, str]
    ) -> Self | None:
        """For a new table in an existing schema; None when its files have to be DuckLake's own."""
        if not _FOLDER_NAME.fullmatch(table) or not all(map(_PLAIN.fullmatch, columns.values())):
            return None
        settings = dict(
            con.execute(
                f"SELECT key, value FROM {_METADATA}.ducklake_metadata WHERE scope IS NULL"
            ).fetchall()
        )
        if settings.get("encrypted") == "true":
            return None
        [[path, is_relative]] = con.execute(
            f"SELECT path, path_is_relative FROM {_METADATA}.ducklake_schema WHERE schema_name = ? "
            "AND end_snapshot IS NULL",
            [schema],
        ).fetchall()
        folder = f"{settings['data_path'] if is_relative else ''}{path}{table}"
        options = _DEFAULTS | {name: settings[key] for key, name in _OPTIONS.items() if key in settings}
        options["PARQUET_VERSION"] = f"v{options['PARQUET_VERSION'][-1]}"
        said = [f"{name} {literal(str(value))}" for name, value in options.items()]
        return cls(con, schema, table, folder, ", ".join(["FORMAT parquet", *said]))

    def write(self, portions: Portions, written: Callable[[int], None], check: Callable[[], None]) -> None:
        """Write all rows of the portions; `written` is told how many, `check` asked whether to go on.

        Raises:
            CountMismatchError: the files do not hold what was read.
        """
        if "://" not in self._folder:
            Path(self._folder).mkdir(parents=True, exist_ok=True)
        copy = (
            f"TO {literal(self._folder)} ({self._options}, FILE_SIZE_BYTES {_FILE_BYTES}, "
            f"FILENAME_PATTERN '{self._prefix}-{{uuidv7}}', OVERWRITE_OR_IGNORE, "
            "WRITE_EMPTY_FILE false, RETURN_STATS)"
        )

        def one(cursor: duckdb.DuckDBPyConnection, select: str) -> None:
            files, given = answer_and_rows_into(cursor, f"COPY ({select}) {copy}")
            with self._lock:
                self._paths += [str(path) for path, *_ in files]
                held = sum(int(count) for _, count, *_ in files)
                if held != given:
                    raise CountMismatchError(
                        f"{self._schema}.{self._table}: {given} rows were read and {held} written. Nothing was committed."
                    )
                self.rows += given
                written(self.rows)

        each(self._con, portions, one, check)

    def add(self) -> None:
        """Add the files to the table, which the open transaction has made; their own footers say what is in them."""
        for path in self._paths:
            self._con.execute(
                "CALL ducklake_add_data_files(?, ?, ?, schema => ?)",
                [CATALOG, self._table, path, self._schema],
            )

    def discard(self) -> None:
        """Take the files away again, broken ones too. On S3 they are left to the lake's upkeep."""
        if "://" not in self._folder:
            for path in Path(self._folder).glob(f"{self._prefix}-*"):
                path.unlink(missing_ok=True)
        self._paths, self.rows = [], 0
