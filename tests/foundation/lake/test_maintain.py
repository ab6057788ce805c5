from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta

import duckdb
import pytest
from tests.foundation.lake.conftest import (
    Table,
    data_files,
    go_on,
    result,
    wait_for,
    wait_for_sessions,
)

from quayside.foundation.errors import ConflictError
from quayside.foundation.lake import Lake, catalog
from quayside.foundation.lake import maintain as maintain_module
from quayside.foundation.lake.maintain import maintain
from quayside.foundation.postgres import advisory_lock

pytestmark = pytest.mark.integration
Start = Callable[..., "subprocess.Popen[str]"]
NOW = timedelta(0)


@pytest.fixture(autouse=True)
def _no_writers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintain_module, "_CLOCKS", NOW)


@pytest.fixture
def _one_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside writers: database and files are on one machine here, but times of files are in whole seconds."""
    monkeypatch.setattr(maintain_module, "_CLOCKS", timedelta(seconds=1.5))


@pytest.fixture
def worn(lake: Lake, con: duckdb.DuckDBPyConnection, rows_table: Table) -> Lake:
    """Many small files of batch a, deletions in batch b."""
    for n in range(6):
        con.execute("INSERT INTO s.rows SELECT 'a', range FROM range(?, ?)", [n * 10, n * 10 + 10])
    con.execute("INSERT INTO s.rows SELECT 'b', range FROM range(100)")
    con.execute("DELETE FROM s.rows WHERE batch = 'b' AND n < 50")
    return lake


def contents(lake: Lake) -> list[tuple[object, ...]]:
    with closing(lake.connect(read_only=True)) as con:
        return con.execute("SELECT batch, count(*), sum(n) FROM s.rows GROUP BY 1 ORDER BY 1").fetchall()


@pytest.mark.slow
def test_everything_is_put_in_order_and_nothing_is_lost(worn: Lake) -> None:
    before = contents(worn)
    told = maintain(worn, keep=NOW, grace=NOW, dry_run=True)
    assert (told.merged, told.rewritten, told.removed_files, told.removed_orphans) == ({}, {}, [], [])
    assert told.expired_snapshots > 5
    assert len(data_files(worn.settings)) == 8

    done = maintain(worn, keep=NOW, grace=NOW)
    assert done.merged == {"s.rows": 6}
    assert done.rewritten == {"s.rows": 1}
    assert done.expired_snapshots > 5
    assert contents(worn) == before
    maintain(worn, keep=NOW, grace=NOW)
    assert len(data_files(worn.settings)) == 2
    assert contents(worn) == before
    with closing(worn.connect(read_only=True)) as con:
        [state] = catalog.tables(con)
        assert len(catalog.snapshots(con)) == 1
    assert (state.rows, state.files, state.deleted_rows) == (110, 2, 0)
    again = maintain(worn, keep=NOW, grace=NOW)
    assert (again.merged, again.rewritten, again.expired_snapshots, again.removed_files) == ({}, {}, 0, [])


def test_what_is_young_is_kept(worn: Lake) -> None:
    with closing(worn.connect(read_only=True)) as con:
        [first, *_] = catalog.snapshots(con)
    maintain(worn)
    assert len(data_files(worn.settings)) > 8
    with closing(worn.connect(read_only=True)) as con:
        row = con.execute(f"SELECT count(*) FROM s.rows AT (VERSION => {first.snapshot_id})").fetchone()
    assert row == (110,)


def test_orphans_of_a_killed_writer_go_once_they_are_old_enough(
    lake: Lake, rows_table: Table, start: Start
) -> None:
    writer = start("hold", "dead")
    wait_for(writer, "written")
    writer.kill()
    writer.wait()
    # The server keeps a killed client's transaction until it notices.
    wait_for_sessions(lake.settings, "xact_start IS NOT NULL", gone=True)
    [orphan] = data_files(lake.settings)
    assert maintain(lake).removed_orphans == []
    assert maintain(lake, grace=NOW, dry_run=True).removed_orphans == [str(orphan)]
    assert orphan.exists()
    assert maintain(lake, grace=NOW).removed_orphans == [str(orphan)]
    assert data_files(lake.settings) == set()


@pytest.mark.usefixtures("_one_clock")
@pytest.mark.slow
def test_files_of_a_writer_at_work_are_never_taken(
    lake: Lake, con: duckdb.DuckDBPyConnection, rows_table: Table, start: Start
) -> None:
    """With no grace at all: the writer's open transaction alone protects its files."""
    writer = start("hold", "slow")
    wait_for(writer, "written")
    for n in range(3):
        con.execute("INSERT INTO s.rows VALUES ('other', ?)", [n])
    time.sleep(3)  # well past the margin for clocks: what protects the file now is the open transaction alone
    done = maintain(lake, keep=NOW, grace=NOW)
    assert done.held_back_since is not None
    assert done.removed_orphans == []
    go_on(writer)
    assert result(writer) == 1000
    maintain(lake, keep=NOW, grace=NOW)
    assert contents(lake) == [("other", 3, 3), ("slow", 1000, 499500)]


@pytest.mark.usefixtures("_one_clock")
@pytest.mark.slow
def test_a_reader_at_work_keeps_its_files(worn: Lake) -> None:
    with closing(worn.connect()) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM s.rows").fetchall()
        maintain(worn, keep=NOW, grace=NOW)
        time.sleep(3)
        maintain(worn, keep=NOW, grace=NOW)
        assert reader.execute("SELECT count(*) FROM s.rows").fetchall() == [(110,)]
        reader.execute("ROLLBACK")
    time.sleep(3)
    maintain(worn, keep=NOW, grace=NOW)
    assert len(data_files(worn.settings)) == 2


def test_one_upkeep_at_a_time(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintain_module, "_WAIT_SECONDS", 0.1)
    with (
        advisory_lock(lake.settings, "quayside.lake.maintain"),
        pytest.raises(ConflictError, match="lock"),
    ):
        maintain(lake)


@pytest.mark.slow
@pytest.mark.usefixtures("_one_clock")
def test_beside_writers_nothing_is_lost(
    lake: Lake, con: duckdb.DuckDBPyConnection, rows_table: Table, start: Start
) -> None:
    lake.ensure_tables([Table("s.counter", "n BIGINT")], con)
    con.execute("INSERT INTO s.counter VALUES (0)")
    writers = [start("append", "w", 25), start("count_up", 15)]
    wait_for(writers[1], "begun")
    maintain(lake, keep=NOW, grace=NOW)
    go_on(writers[1])
    while any(writer.poll() is None for writer in writers):
        maintain(lake, keep=NOW, grace=NOW)
    for writer in writers:
        result(writer)
    assert contents(lake) == [("w", 25, 300)]
    assert con.execute("SELECT n FROM s.counter").fetchall() == [(15,)]
