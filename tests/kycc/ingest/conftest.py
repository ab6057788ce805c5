"""A lake without services for the tests of what ingest accepts: plain DuckDB under the lake's two methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from quayside.kycc import tables


class PlainLake:
    """KYCC's tables in an in-memory DuckDB. Commits, and so possible snapshots, are counted."""

    def __init__(self, folder: Path) -> None:
        self._root = duckdb.connect(
            config={"temp_directory": str(folder / "tmp"), "preserve_insertion_order": False, "threads": 2}
        )
        self._root.execute("ATTACH ':memory:' AS lake; CREATE SCHEMA lake.kycc; USE lake")
        for table in tables.ALL:
            self._root.execute(table.ddl()[0])
        self.commits = 0

    def connect(self) -> duckdb.DuckDBPyConnection:
        con = self._root.cursor()
        con.execute("USE lake; SET TimeZone = 'UTC'")
        return con

    def transaction(self, work: Callable[[duckdb.DuckDBPyConnection], Any], con: Any = None) -> Any:
        con.execute("BEGIN")
        try:
            result = work(con)
            con.execute("COMMIT")
        except BaseException:
            con.execute("ROLLBACK")
            raise
        self.commits += 1
        return result

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with self.connect() as con:
            return con.execute(sql, list(values)).fetchall()

    def state(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of every table but the quarantine, in order, without the moment of loading."""
        skip = {"batches": "EXCLUDE (loaded_at)"}
        return {
            t.name: self.rows(f"SELECT * {skip.get(t.name, '')} FROM {t.qualified} ORDER BY ALL")
            for t in (
                tables.PARTIES,
                tables.ACCOUNTS,
                tables.TRANSACTIONS,
                tables.RELATIONSHIPS,
                tables.BATCHES,
            )
        }

    def close(self) -> None:
        self._root.close()


@pytest.fixture
def plain_lake(tmp_path: Path) -> Iterator[PlainLake]:
    lake = PlainLake(tmp_path)
    yield lake
    lake.close()
