"""What readers of a DuckLake table see while it is loaded: the table as it was, then the table as it is, nothing between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.dataloader.tables import Table

from quayside.foundation.lake import Lake

if TYPE_CHECKING:
    import duckdb

    from quayside.foundation.settings import Settings

pytestmark = pytest.mark.integration

ROWS = (
    "SELECT i AS id, 'old' AS v, TIMESTAMP '2026-01-01' + i * INTERVAL 1 minute AS upd FROM range(100) t(i)"
)


class Looking:
    """A fence; a reader looks at the table right before each commit, when everything is written."""

    def __init__(self, reader: duckdb.DuckDBPyConnection, table: str) -> None:
        self.seen: list[list[tuple[Any, ...]]] = []
        self._reader = reader
        self._table = table

    @contextmanager
    def hold(self) -> Iterator[None]:
        self.seen.append(self.look())
        yield

    def check(self) -> None:
        pass

    def look(self) -> list[tuple[Any, ...]]:
        return self._reader.execute(
            f'SELECT v, count(*) FROM lake."bronze.trade"."{self._table}" GROUP BY 1'
        ).fetchall()


@pytest.mark.parametrize(
    ("strategy", "change"), [("full", "columns"), ("rolling", "rows"), ("chunked_backfill", "columns")]
)
def test_readers_see_the_old_table_until_they_see_the_whole_new_one(
    shared_settings: Settings, shared_con: duckdb.DuckDBPyConnection, strategy: str, change: str
) -> None:
    # case 25 - a table that is emptied and filled in one commit, one that is replaced, one that is swapped in
    name = f"read_during_{strategy}_{change}"
    values: dict[str, Any] = {
        "incremental_column": "upd",
        "incremental_type": "timestamp",
        "primary_key_cols": ("id",),
        "rolling_column": "upd",
        "rolling_days": 10_000,
    }
    table = Table.new(shared_settings, shared_con, name, ROWS, load_strategy="full", **values)
    table.load()
    table.execute("DELETE FROM src WHERE id < 40")
    table.execute("UPDATE src SET v = 'new', upd = upd + INTERVAL 1 day")
    if change == "columns":
        table.execute("ALTER TABLE src ADD COLUMN more INTEGER DEFAULT 1")
    with closing(Lake(shared_settings).connect(read_only=True)) as reader:
        fence = Looking(reader, name)
        table.load(load_strategy=strategy, load_full=strategy == "chunked_backfill", fence=fence)
        assert fence.seen
        assert all(seen == [("old", 100)] for seen in fence.seen)
        assert fence.look() == [("new", 60)]
