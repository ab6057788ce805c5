"""A lake without services for the tests of what ingest accepts: plain DuckDB under the lake's two methods."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from quayside.foundation.lake import Lake
from quayside.foundation.settings import Settings
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


@pytest.fixture
def kycc_lake(settings: Settings) -> Lake:
    """The real lake, DuckLake on PostgreSQL, with KYCC's tables."""
    lake = Lake(settings)
    lake.ensure_tables(tables.ALL)
    return lake


GOOD = Path(__file__).parent / "hostile" / "files" / "good.json"


def small_batch(batch_id: str = "B1", transactions: int = 4) -> dict[str, Any]:
    """The good batch of the hostile cases, under another id and with more transactions."""
    batch = json.loads(GOOD.read_text(encoding="utf-8").replace('"B1"', json.dumps(batch_id)))
    first = batch["transactions"][0]
    batch["transactions"] += [first | {"txn_id": f"Y{i}"} for i in range(transactions - 4)]
    return batch


def write(batch: dict[str, Any], folder: Path) -> Path:
    path = folder / "batch.json"
    path.write_text(json.dumps(batch), encoding="utf-8")
    return path
