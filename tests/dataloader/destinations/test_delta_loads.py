"""Whole loads into Delta: the random histories of the strategies, and a backfill that is killed and goes on."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from tests.dataloader.strategies import test_histories as histories
from tests.dataloader.tables import NOW, Table

from quayside.dataloader.destinations.destination import open_destination
from quayside.dataloader.errors import FencedError

if TYPE_CHECKING:
    import duckdb

    from quayside.foundation.settings import Settings

pytestmark = pytest.mark.integration


class TableOnDelta(Table):
    """A source table whose destination is Delta."""

    @classmethod
    def new(cls, *given: Any, **request: Any) -> Table:
        return super().new(*given, **{"destination_catalog": "delta", **request})

    @property
    def stored(self) -> str:
        return open_destination(self.settings, self.con, self.request).relation()


class GivenUpAfter:
    """A fence that lets some commits pass and then none."""

    def __init__(self, commits: int) -> None:
        self.left = commits

    def hold(self) -> AbstractContextManager[None]:
        if self.left == 0:
            raise FencedError("The attempt was given up.")
        self.left -= 1
        return nullcontext()

    def check(self) -> None:
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy", ["full", "incremental", "append_only", "rolling", "check_and_load", "scd2"]
)
def test_random_histories(
    shared_settings: Settings,
    shared_con: duckdb.DuckDBPyConnection,
    strategy: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """cases 16, 19, 20, 22"""
    monkeypatch.setattr(histories, "Table", TableOnDelta)
    histories.test_histories(shared_settings, shared_con, strategy, 101)


def test_a_killed_backfill_goes_on_where_it_was(
    shared_settings: Settings, shared_con: duckdb.DuckDBPyConnection
) -> None:
    """cases 24, 25, 45: the chunk and its mark are one commit, and readers have the old table until the swap."""
    table = TableOnDelta.new(
        shared_settings,
        shared_con,
        "delta_backfill",
        f"SELECT range AS id, TIMESTAMP '{NOW:%Y-%m-%d}' - INTERVAL 100 DAY + INTERVAL 1 HOUR * range AS at FROM range(100)",
        load_strategy="full",
        incremental_column="at",
        incremental_type="timestamp",
        primary_key_cols=("id",),
        partition_column="id",
    )
    table.load()
    table.settings = shared_settings.model_copy(update={"dataloader_rows_per_chunk": 25})
    table.execute("DELETE FROM src WHERE id = 99")
    with pytest.raises(FencedError):
        table.load(load_strategy="chunked_backfill", fence=GivenUpAfter(3))  # two are chunks
    assert len(table.rows()) == 100
    table.source.reads.clear()
    done = table.load()
    assert (done.handed_over, done.rows_total, done.rows_inserted) == (True, 99, 99)
    assert done.rows_read < 99
    assert table.rows() == table.at_source()
    table.execute(f"INSERT INTO src VALUES (500, TIMESTAMP '{NOW:%Y-%m-%d}')")
    assert table.load(load_strategy="incremental").rows_inserted == 1
    assert table.rows() == table.at_source()
