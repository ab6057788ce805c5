"""A long load from each kind of source, onto each destination: it tells how far it is, and ends when it is told to."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import duckdb
import pytest
from tests.dataloader.servers import SourceServer, load_request

from quayside.dataloader.cancelling import Cancelling
from quayside.dataloader.errors import CancelledError
from quayside.dataloader.load import NoFence, load_table
from quayside.dataloader.request import LoadRequest
from quayside.dataloader.sources import counting, mark
from quayside.foundation import processes
from quayside.foundation.lake import Lake
from quayside.foundation.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.slow]

#: So many rows that no load of them ends by itself.
ENDLESS = {
    "postgresql": "SELECT a AS id, repeat('x', 100) AS note FROM generate_series(1, 90000) a, generate_series(1, 90000) b",
    "mariadb": "SELECT a.seq AS id, REPEAT('x', 100) AS note FROM seq_1_to_90000 a, seq_1_to_90000 b",
    "sqlite": "SELECT a.range AS id, repeat('x', 100) AS note FROM range(90000) a, range(90000) b",
}
#: Nothing comes for a long time; DuckDB waits inside the driver.
SILENT = {
    "postgresql": "SELECT pg_sleep(600)::text AS id",
    "mariadb": "SELECT SLEEP(600) AS id FROM one",
    "sqlite": "SELECT count(*) AS id FROM range(90000000) a, range(90000000) b WHERE a.range + b.range = 7",
}


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a table of one row."""
    path = tmp_path_factory.mktemp("lite") / "one.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE one (id int)")
    return path


@pytest.fixture
def request_of(
    source_pg: SourceServer, mariadb: SourceServer, lite: Path
) -> Callable[[str, str, str], LoadRequest]:
    """``request_of(db_type, query, destination catalog)``"""
    mariadb.run("CREATE TABLE IF NOT EXISTS one SELECT 1 AS id")
    values = {"postgresql": source_pg.values, "mariadb": mariadb.values, "sqlite": {"path": str(lite)}}
    return lambda db_type, query, catalog: load_request(
        db_type, values[db_type], "q", query=query, destination_catalog=catalog,
        destination_table_name=f"long_{db_type}", config_id=700 + len(db_type),
    )  # fmt: skip


@pytest.fixture
def loading(shared_settings: Settings) -> Iterator[Callable[[LoadRequest], Any]]:
    """``loading(request)``: the load on a thread, with `told` (what it said) and `stop`."""
    stop = threading.Event()

    class Loading:
        def __init__(self, request: LoadRequest) -> None:
            self.told: list[tuple[int, int | None]] = []
            self.stop = stop
            self.mark = ""
            self._some = threading.Event()
            self._ended = pool.submit(self._load, request)

        def _load(self, request: LoadRequest) -> None:
            self.mark = mark.mark()
            # A DuckDB of its own, as a worker's.
            with closing(Lake(shared_settings).connect(threads=2)) as con:
                load_table(shared_settings, request, con=con, on_progress=self._tell, cancelled=stop.is_set)

        def _tell(self, rows: int, total: int | None) -> None:
            self.told.append((rows, total))
            if rows:
                self._some.set()

        def until_rows(self) -> None:
            assert self._some.wait(300) or self._ended.result(0)

        def error(self) -> Exception | None:
            """How it ended; whoever drains its source would not end within minutes."""
            error = self._ended.exception(300)
            assert error is None or isinstance(error, Exception)
            return error

    pool = ThreadPoolExecutor(1)
    yield Loading
    stop.set()
    pool.shutdown(wait=False)


@pytest.mark.parametrize(
    ("db_type", "catalog"), [("postgresql", "bronze"), ("postgresql", "delta"), ("mariadb", "delta"), ("sqlite", "bronze")]
)  # fmt: skip
def test_a_long_load_tells_its_rows_and_ends_when_it_is_told(
    shared_settings: Settings, source_pg: SourceServer, request_of: Any, loading: Any, db_type: str, catalog: str
):  # fmt: skip
    load = loading(request_of(db_type, ENDLESS[db_type], catalog))
    load.until_rows()
    load.stop.set()
    error = load.error()
    assert isinstance(error, CancelledError)
    assert str(error) == "The load was told to stop."
    rows = [rows for rows, _ in load.told]
    assert rows == sorted(rows)
    # Nothing is there: files that no commit of the lake names are the maintenance's, Delta's are taken away at once.
    assert list(Path(shared_settings.delta_data_path).glob(f"*/*/long_{db_type}/*.parquet")) == []
    with closing(Lake(shared_settings).connect(read_only=True)) as con:
        tables = "SELECT 1 FROM duckdb_tables() WHERE table_name = ?"
        assert con.execute(tables, [f"long_{db_type}"]).fetchall() == []
    with closing(source_pg.connect()) as admin:
        left = "SELECT query FROM pg_stat_activity WHERE state = 'active' AND application_name LIKE %s"
        # The server ends a statement when it notices.
        assert processes.wait_until(lambda: not admin.execute(left, [f"%{load.mark}"]).fetchall(), 240)


@pytest.mark.parametrize("db_type", sorted(SILENT))
def test_a_source_that_gives_nothing_is_told_too(
    source_pg: SourceServer, mariadb: SourceServer, request_of: Any, loading: Any, db_type: str
):
    load = loading(request_of(db_type, SILENT[db_type], "bronze"))
    running = {
        "postgresql": (source_pg, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"),
        "mariadb": (mariadb, "SELECT 1 FROM information_schema.PROCESSLIST WHERE STATE = 'User sleep'"),
    }
    if db_type in running:
        server, question = running[db_type]
        with closing(server.connect()) as admin, closing(admin.cursor()) as cursor:
            deadline = time.monotonic() + 300
            while not (cursor.execute(question) and cursor.fetchall()):
                assert time.monotonic() < deadline
    load.stop.set()
    assert isinstance(load.error(), CancelledError)


def test_a_lookup_that_waits_is_told_too(mariadb: SourceServer, loading: Any):
    # The name of a table that is being made is locked: the server answers nothing about it until it is there.
    mariadb.run("CREATE TABLE IF NOT EXISTS one SELECT 1 AS id")
    sleep = "SELECT ID, INFO FROM information_schema.PROCESSLIST WHERE STATE = %s"
    with (
        closing(mariadb.connect()) as admin,
        closing(admin.cursor()) as cursor,
        ThreadPoolExecutor(1) as pool,
    ):

        def waiting(state: str) -> Any:
            cursor.execute(sleep, [state])
            return cursor.fetchall()

        maker = pool.submit(mariadb.run, "CREATE TABLE made AS SELECT SLEEP(600) AS id FROM one")
        try:
            assert processes.wait_until(lambda: waiting("User sleep"), 60)
            load = loading(mariadb.request("made", destination_table_name="made", config_id=730))
            assert processes.wait_until(lambda: waiting("Waiting for table metadata lock"), 60)
            load.stop.set()
            assert isinstance(load.error(), CancelledError)
            assert waiting("Waiting for table metadata lock") == ()
        finally:
            for number, _ in waiting("User sleep"):
                cursor.execute(f"KILL QUERY {number}")
            maker.exception(60)


def test_a_driver_that_does_not_like_to_be_told_does_not_end_the_watch(caplog: pytest.LogCaptureFixture):
    class Closed:
        def interrupt(self) -> None:
            raise RuntimeError("the connection is closed")

    stop, told = threading.Event(), threading.Event()
    with duckdb.connect() as con, Cancelling(con, NoFence(), stop.is_set, None, told.set) as watched:
        watched.reads(cast("Any", Closed()))
        stop.set()
        assert told.wait(60)
    assert "The source could not be told to stop: the connection is closed" in caplog.text


def test_rows_of_files_are_counted_while_they_pass(
    shared_settings: Settings, shared_con: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # DuckDB reads them by itself; only of large ones anybody will ask
    monkeypatch.setattr("quayside.dataloader.sources.files.LARGE_BYTES", 1)
    shared_con.execute(f"COPY (SELECT range AS id FROM range(100000)) TO '{tmp_path / 'numbers.parquet'}'")

    def filters() -> list[Any]:
        return shared_con.execute(
            "SELECT function_name FROM duckdb_functions() WHERE function_name LIKE 'quayside_source%' ORDER BY 1"
        ).fetchall()

    before = filters()
    request = load_request("parquet", {"path": str(tmp_path)}, "numbers.parquet", config_id=720)
    monkeypatch.setattr("quayside.dataloader.sources.duckdb_table.DuckTable.settle", lambda self: None)
    seen: list[int] = []
    around = counting.CountingFilter.around
    made: list[counting.CountingFilter] = []
    monkeypatch.setattr(
        counting.CountingFilter, "around", lambda self, relation: made.append(self) or around(self, relation)
    )
    for catalog in ("bronze", "delta"):
        made.clear()
        result = load_table(
            shared_settings,
            replace(request, destination_catalog=catalog, destination_table_name="counted"),
            con=shared_con,
        )
        seen.append(made[-1].rows)
        assert result.rows_total == 100_000
    assert seen == [100_000, 100_000]
    assert filters() == before
