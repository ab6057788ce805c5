"""Portions that several readers write at once: what arrives, where it is, and what is left when it goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
from deltalake import DeltaTable
from tests.dataloader.servers import SourceServer

from quayside.dataloader.destinations import parallel
from quayside.dataloader.destinations.ducklake_files import LakeFiles
from quayside.dataloader.destinations.parallel import each, threads_for
from quayside.dataloader.errors import CancelledError, FencedError
from quayside.dataloader.load import load_table
from quayside.dataloader.request import LoadRequest
from quayside.dataloader.sources import postgresql
from quayside.dataloader.sources.source import Portions
from quayside.foundation.errors import QuaysideError
from quayside.foundation.lake import Lake, maintain
from quayside.foundation.settings import Settings

ENDLESS = "SELECT sum(range) FROM range(10000000000000)"
COLUMNS = """id int PRIMARY KEY, small smallint, big bigint, amount numeric(15,2), rate float8, yes boolean, name text,
    raw bytea, code uuid, day date, hour time, at timestamp NOT NULL, zoned timestamptz, many int[]"""
ROWS = """SELECT g, g % 100, g * 1000000000::bigint, g * 1.25, CASE WHEN g % 7 = 0 THEN 'NaN' ELSE g / 3.0 END,
    g % 2 = 0, CASE WHEN g % 5 > 0 THEN repeat('x', g % 90) END, decode(md5(g::text), 'hex'), md5(g::text)::uuid,
    date '2024-01-01' + g % 300, time '01:02:03' + g % 600 * interval '1 s', timestamp '2024-01-01' + g * interval '1 minute',
    timestamptz '2024-01-01 00:00+00' + g * interval '1 hour', ARRAY[g, NULL, 1]
    FROM generate_series({}, {}) g"""


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch, shared_con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Small tables are cut too, and there are four threads to read them."""
    monkeypatch.setattr(postgresql, "PARALLEL_PAGES", 2)
    monkeypatch.setattr("quayside.dataloader.strategies.strategy.PORTION_ROWS", 700)
    [threads] = shared_con.execute("SELECT current_setting('threads')").fetchone() or [0]
    shared_con.execute("SET threads = 4")
    yield
    assert shared_con.execute("SELECT current_setting('threads')").fetchone() == (4,)
    shared_con.execute(f"SET threads = {threads}")


def files_of(con: duckdb.DuckDBPyConnection, table: str) -> list[tuple[str, bool, int]]:
    """Path, whether it is relative, and rows of the table's current files."""
    return con.execute(
        "SELECT f.path, f.path_is_relative, record_count FROM __ducklake_metadata_lake.lake.ducklake_data_file f "
        "JOIN __ducklake_metadata_lake.lake.ducklake_table t USING (table_id) "
        "WHERE t.table_name = ? AND t.end_snapshot IS NULL AND f.end_snapshot IS NULL",
        [table],
    ).fetchall()


def on_disk(settings: Settings, table: str) -> set[str]:
    return {file.name for file in Path(settings.lake_data_path).rglob(f"{table}/*.parquet")}


def request_of(server: SourceServer, table: str, number: int) -> LoadRequest:
    return server.request(table, config_id=number, destination_table_name=table)


@pytest.mark.integration
def test_every_type_arrives_and_the_table_is_like_any_other(
    source_pg: SourceServer, shared_settings: Settings, shared_con: duckdb.DuckDBPyConnection, in_parts: None
):
    source_pg.run(
        f"CREATE TABLE apart ({COLUMNS})", f"INSERT INTO apart {ROWS.format(1, 3000)}", "ANALYZE apart"
    )
    request = replace(
        request_of(source_pg, "apart", 701),
        load_strategy="incremental",
        incremental_column="at",
        incremental_lookback_hours=1,
    )
    first = load_table(shared_settings, request, con=shared_con)
    assert (first.rows_inserted, first.rows_total) == (3000, 3000)
    files = files_of(shared_con, "apart")
    assert len(files) >= 5
    assert sum(rows for *_, rows in files) == 3000
    assert min(rows for *_, rows in files) > 0
    # A lake that is moved takes its files with it.
    assert all(relative and path.startswith("ducklake-") for path, relative, _ in files)
    stored = f'lake."{request.destination_catalog}.{request.destination_schema_name}".apart'
    alone = replace(request, destination_table_name="alone", config_id=702)
    shared_con.execute("SET threads = 1")
    load_table(shared_settings, alone, con=shared_con)
    shared_con.execute("SET threads = 4")
    for one, other in (("apart", "alone"), ("alone", "apart")):
        [found] = shared_con.execute(
            f"SELECT count(*) FROM (FROM {stored[:-5]}{one} EXCEPT FROM {stored[:-5]}{other})"
        ).fetchone() or [1]
        assert found == 0
    source_pg.run(
        "UPDATE apart SET name = 'changed', at = '2024-01-03 03:00' WHERE id IN (5, 2000)",
        f"INSERT INTO apart {ROWS.format(3001, 3010)}",
    )
    second = load_table(shared_settings, replace(request, attempt=2), con=shared_con)
    assert (second.rows_inserted, second.rows_updated) == (10, 2)
    shared_con.execute("CALL ducklake_merge_adjacent_files('lake')")
    found = shared_con.execute(
        f"SELECT count(*), count(DISTINCT id), count(*) FILTER (name = 'changed') FROM {stored}"
    )
    assert found.fetchone() == (3010, 3010, 2)


@pytest.mark.integration
def test_a_type_that_parquet_lacks_is_written_by_ducklake(
    source_pg: SourceServer, shared_settings: Settings, shared_con: duckdb.DuckDBPyConnection, in_parts: None
):
    source_pg.run(
        "CREATE TABLE spans AS SELECT g AS id, g * interval '1 microsecond' AS span FROM generate_series(1, 3000) g",
        "ANALYZE spans",
    )
    result = load_table(shared_settings, request_of(source_pg, "spans", 703), con=shared_con)
    assert result.rows_total == 3000
    [[longest]] = shared_con.execute('SELECT max(span)::VARCHAR FROM lake."bronze.s".spans').fetchall()
    assert longest == "00:00:00.003"


class Fenced:
    """A fence that is taken away at the last moment."""

    @contextmanager
    def hold(self) -> Iterator[None]:
        raise FencedError("given up")
        yield

    def check(self) -> None:
        pass


@pytest.mark.integration
def test_nothing_is_left_of_a_load_that_fails(
    source_pg: SourceServer, shared_settings: Settings, shared_con: duckdb.DuckDBPyConnection, in_parts: None
):
    source_pg.run(
        f"CREATE TABLE spoilt ({COLUMNS})", f"INSERT INTO spoilt {ROWS.format(1, 3000)}", "ANALYZE spoilt"
    )
    source_pg.run("DELETE FROM spoilt WHERE id < 500")  # pages without a row make no file
    request = request_of(source_pg, "spoilt", 704)
    load_table(shared_settings, request, con=shared_con)
    before = on_disk(shared_settings, "spoilt")
    with pytest.raises(FencedError):
        load_table(shared_settings, replace(request, attempt=2), con=shared_con, fence=Fenced())
    assert on_disk(shared_settings, "spoilt") == before
    source_pg.run("UPDATE spoilt SET amount = 'NaN' WHERE id = 2999")
    with pytest.raises(QuaysideError, match="holds NaN"):
        load_table(shared_settings, replace(request, attempt=3), con=shared_con)
    assert (
        on_disk(shared_settings, "spoilt") == before == {path for path, *_ in files_of(shared_con, "spoilt")}
    )
    assert shared_con.execute('SELECT count(*) FROM lake."bronze.s".spoilt').fetchone() == (2501,)
    assert min(rows for *_, rows in files_of(shared_con, "spoilt")) > 0


@pytest.mark.integration
def test_upkeep_leaves_the_files_of_a_running_load_alone(
    source_pg: SourceServer,
    shared_settings: Settings,
    shared_con: duckdb.DuckDBPyConnection,
    in_parts: None,
    monkeypatch: pytest.MonkeyPatch,
):
    source_pg.run(
        "CREATE TABLE long (id int)", "INSERT INTO long SELECT generate_series(1, 3000)", "ANALYZE long"
    )
    seen: list[bool] = []
    write = LakeFiles.write

    def watched(files: LakeFiles, *args: Any) -> None:
        began, _ = maintain._clock(Lake(shared_settings))
        write(files, *args)
        # It removes nothing that is younger than the oldest transaction.
        _, oldest = maintain._clock(Lake(shared_settings))
        seen.append(oldest is not None and oldest <= began)

    monkeypatch.setattr(LakeFiles, "write", watched)
    assert load_table(shared_settings, request_of(source_pg, "long", 707), con=shared_con).rows_total == 3000
    assert seen == [True]


@pytest.mark.integration
def test_onto_delta_too(
    source_pg: SourceServer, shared_settings: Settings, shared_con: duckdb.DuckDBPyConnection, in_parts: None
):
    source_pg.run(
        "CREATE TABLE onto AS SELECT g AS id, (g * 1.25)::numeric(15,2) AS amount FROM generate_series(1, 3000) g",
        "ANALYZE onto",
    )
    request = replace(request_of(source_pg, "onto", 705), destination_catalog="delta")
    for attempt in (1, 2):
        result = load_table(shared_settings, replace(request, attempt=attempt), con=shared_con)
        assert (result.rows_read, result.rows_inserted, result.rows_total) == (3000, 3000, 3000)
    source_pg.run("UPDATE onto SET amount = 'NaN' WHERE id = 2999")
    with pytest.raises(QuaysideError, match="holds NaN"):
        load_table(shared_settings, replace(request, attempt=3), con=shared_con)
    table = DeltaTable(f"{shared_settings.delta_data_path}/delta/s/onto")
    assert len(table.file_uris()) >= 3
    assert table.to_pyarrow_table().num_rows == 3000
    assert len(on_disk_below(Path(table.table_uri.removeprefix("file://")))) == 2 * len(table.file_uris())


def on_disk_below(folder: Path) -> list[Path]:
    return list(folder.rglob("*.parquet"))


def joined(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("SELECT 1")


@pytest.mark.unit
@pytest.mark.parametrize("raised", [CancelledError("told to stop"), KeyboardInterrupt()])
def test_readers_end_when_the_load_does(monkeypatch: pytest.MonkeyPatch, raised: BaseException):
    monkeypatch.setattr(parallel, "_LOOK_EVERY_SECONDS", 0.05)

    def check() -> None:
        raise raised

    with closing(duckdb.connect()) as con, pytest.raises(type(raised)):
        each(con, Portions([ENDLESS] * 5, 2, joined), run, check)


@pytest.mark.unit
def test_the_error_of_one_reader_ends_the_others():
    with closing(duckdb.connect(config={"threads": 3})) as con:
        with pytest.raises(duckdb.InvalidInputException, match="broken"):
            each(con, Portions([ENDLESS, "SELECT error('broken')", ENDLESS], 3, joined), run, lambda: None)
        assert con.execute("SELECT current_setting('threads')").fetchone() == (3,)


@pytest.mark.unit
def test_each_portion_is_written_once_and_in_a_transaction_that_joined():
    done: list[str] = []
    began: list[Any] = []

    def join(con: duckdb.DuckDBPyConnection) -> None:
        began.append(con.execute("SELECT current_transaction_id()").fetchone())

    def write(con: duckdb.DuckDBPyConnection, select: str) -> None:
        assert con.execute("SELECT current_transaction_id()").fetchone() in began
        done.append(select)

    with closing(duckdb.connect()) as con:
        selects = [f"SELECT {i}" for i in range(20)]
        each(con, Portions(selects, 3, join), write, lambda: None)
    assert (sorted(done), len(began)) == (sorted(selects), 3)


@pytest.mark.unit
def test_threads_come_back_after_an_error_in_a_transaction():
    with closing(duckdb.connect(config={"threads": 2})) as con:
        con.execute("BEGIN")
        with pytest.raises(duckdb.Error, match="broken"), threads_for(con, one_stream=True):
            con.execute("SELECT error('broken')")
        con.execute("ROLLBACK")
        assert con.execute("SELECT current_setting('threads')").fetchone() == (2,)


def run(con: duckdb.DuckDBPyConnection, select: str) -> None:
    con.execute(select)
