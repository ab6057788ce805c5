from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import duckdb
import pytest
from tests.conftest import make_settings
from tests.foundation.lake.conftest import (
    ROWS,
    Table,
    data_files,
    go_on,
    result,
    wait_for,
    wait_for_sessions,
)

from quayside.foundation.errors import ConflictError, ServiceUnavailableError, SettingsError
from quayside.foundation.lake import Lake
from quayside.foundation.lake import lake as lake_module
from quayside.foundation.postgres import connect
from quayside.foundation.settings import Settings

pytestmark = pytest.mark.integration
Start = Callable[..., "subprocess.Popen[str]"]


def one(con: duckdb.DuckDBPyConnection, sql: str) -> object:
    row = con.execute(sql).fetchone()
    assert row is not None
    return row[0]


class TestConnect:
    def test_lake_is_in_use_and_everything_stays_below_home(
        self, settings: Settings, con: duckdb.DuckDBPyConnection
    ) -> None:
        assert one(con, "SELECT current_database()") == "lake"
        assert one(con, "SELECT current_setting('TimeZone')") == "UTC"
        for setting in ("extension_directory", "temp_directory"):
            assert Path(str(one(con, f"SELECT current_setting('{setting}')"))).is_relative_to(settings.home)
        for setting in ("autoinstall_known_extensions", "autoload_known_extensions"):
            assert one(con, f"SELECT current_setting('{setting}')") is False
        for link in (settings.home / "duckdb" / "extensions").rglob("*.duckdb_extension"):
            assert link.is_symlink()

    def test_of_the_platforms_database_only_the_catalogs_schema_is_looked_at(
        self, settings: Settings, con: duckdb.DuckDBPyConnection
    ) -> None:
        """What other schemas hold would be read at every attaching."""
        with connect(settings) as connection:
            connection.execute("CREATE TABLE public.other (n int)")
        with closing(Lake(settings).connect()) as again:
            assert one(again, "SELECT count(*) > 0 FROM __ducklake_metadata_lake.lake.ducklake_snapshot")
            with pytest.raises(duckdb.CatalogException):
                again.execute("FROM __ducklake_metadata_lake.public.other")

    def test_threads_and_memory_by_argument_then_by_setting(self, settings: Settings) -> None:
        given = settings.model_copy(update={"threads": 3, "memory_limit": "512MiB"})
        with closing(Lake(given).connect()) as con:
            assert one(con, "SELECT current_setting('threads')") == 3
            assert one(con, "SELECT current_setting('memory_limit')") == "512.0 MiB"
        with closing(Lake(given).connect(threads=1, memory_limit="256MiB")) as con:
            assert one(con, "SELECT current_setting('threads')") == 1
            assert one(con, "SELECT current_setting('memory_limit')") == "256.0 MiB"

    def test_a_link_into_a_deleted_environment_is_replaced(self, lake: Lake) -> None:
        lake.connect().close()
        [link] = (lake.settings.home / "duckdb" / "extensions").rglob("ducklake.duckdb_extension")
        link.unlink()
        link.symlink_to("/nowhere/ducklake.duckdb_extension")
        lake.connect().close()
        assert link.exists()

    def test_read_only_sees_but_does_not_write(self, lake: Lake, rows_table: Table) -> None:
        with closing(lake.connect(read_only=True)) as con:
            assert one(con, "SELECT count(*) FROM s.rows") == 0
            with pytest.raises(duckdb.InvalidInputException, match="read-only"):
                con.execute("INSERT INTO s.rows VALUES ('b', 1)")

    def test_read_only_comes_first_on_an_empty_database(self, lake: Lake) -> None:
        with closing(lake.connect(read_only=True)) as con:
            assert one(con, "SELECT count(*) FROM duckdb_tables()") == 0

    def test_rows_are_in_files_not_in_the_catalog(
        self, lake: Lake, con: duckdb.DuckDBPyConnection, rows_table: Table
    ) -> None:
        con.execute("INSERT INTO s.rows VALUES ('b', 1)")
        [file] = data_files(lake.settings)
        assert file.parent.name == "batch=b"
        assert one(con, f"SELECT DISTINCT compression FROM parquet_metadata('{file}')") == "ZSTD"

    def test_temporary_files_of_a_dead_process_are_removed(self, settings: Settings, lake: Lake) -> None:
        with closing(lake.connect()) as con:
            mine = Path(str(one(con, "SELECT current_setting('temp_directory')")))
        host, _, _ = mine.name.rsplit("-", 2)
        with subprocess.Popen(["true"]) as ended:
            ended.wait()
        dead = mine.with_name(f"{host}-{ended.pid}-0")
        alive = mine.with_name(f"{host}-1-0")
        for folder in (dead, alive):
            folder.mkdir()
        lake.connect().close()
        assert alive.exists()
        assert not dead.exists()

    def test_another_data_path_is_refused(self, settings: Settings, lake: Lake, tmp_path: Path) -> None:
        lake.connect().close()
        moved = settings.model_copy(update={"lake_url": str(tmp_path / "elsewhere")})
        with pytest.raises(
            SettingsError, match=r"made for data in .*/home/lake/ but QUAYSIDE_LAKE_URL says .*elsewhere"
        ):
            Lake(moved).connect()

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://someone:pl4nted-pw@127.0.0.1:1/none",
            "postgresql://someone:pl4nted-pw@127.0.0.1:1/none?sslmode=bad",
            "postgresql://someone:pl4nted-pw@no.such.host.invalid/none",
            "postgresql://someone:pl4nted-pw@[::1/none",
        ],
    )
    def test_errors_are_one_sentence_without_the_password(self, url: str, tmp_path: Path) -> None:
        settings = make_settings(QUAYSIDE_HOME=str(tmp_path), QUAYSIDE_DATABASE_URL=url)
        with pytest.raises((ServiceUnavailableError, SettingsError)) as raised:
            Lake(settings).connect()
        assert "\n" not in str(raised.value)
        seen: BaseException | None = raised.value
        while seen is not None:
            assert "pl4nted" not in str(seen)
            seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)

    def test_password_shows_nowhere_in_the_connection(
        self, lake: Lake, con: duckdb.DuckDBPyConnection
    ) -> None:
        assert lake.settings.database_url is not None
        planted = make_settings(
            QUAYSIDE_HOME=str(lake.settings.home),
            QUAYSIDE_DATABASE_URL=lake.settings.database_url.get_secret_value() + "&password=pl4nted-pw",
        )
        with closing(Lake(planted).connect()) as con:
            Lake(planted).attach_postgres(con)
            for view in ("duckdb_secrets()", "duckdb_databases()", "duckdb_settings()", "duckdb_logs"):
                assert "pl4nted" not in str(con.execute(f"FROM {view}").fetchall())

    def test_attach_postgres(self, lake: Lake, con: duckdb.DuckDBPyConnection) -> None:
        lake.attach_postgres(con)
        con.execute("CREATE TABLE pg.public.told AS SELECT 7 AS n")
        with closing(lake.connect()) as reader:
            lake.attach_postgres(reader, 'other "name', read_only=True)
            assert one(reader, 'SELECT n FROM "other ""name".public.told') == 7
            with pytest.raises(duckdb.InvalidInputException, match="read-only"):
                reader.execute('DROP TABLE "other ""name".public.told')


class TestEnsureTables:
    def test_nothing_is_committed_when_all_exist(self, lake: Lake, con: duckdb.DuckDBPyConnection) -> None:
        tables = [ROWS, Table("s.other", "n BIGINT"), Table("a.b.c", "n BIGINT")]
        tables[2].ddl = lambda: ['CREATE TABLE "a.b".c (n BIGINT)']  # type: ignore[method-assign]
        lake.ensure_tables(tables, con)
        first = one(con, "SELECT id FROM ducklake_current_snapshot('lake')")
        lake.ensure_tables(tables, con)
        lake.ensure_tables(tables)
        assert one(con, "SELECT id FROM ducklake_current_snapshot('lake')") == first

    @pytest.mark.slow
    def test_many_processes_on_an_empty_database(self, lake: Lake, start: Start) -> None:
        names = [f"s{n % 2}.t{n}" for n in range(6)]
        workers = [start("ensure", *names) for _ in range(6)]
        for worker in workers:
            wait_for(worker, "ready")
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("\n")
            worker.stdin.flush()
        assert [result(worker) for worker in workers] == [6] * 6
        with closing(lake.connect()) as con:
            found = con.execute(
                "SELECT schema_name || '.' || table_name FROM duckdb_tables() ORDER BY 1"
            ).fetchall()
        assert found == [(name,) for name in sorted(names)]


class TestTransaction:
    def test_error_rolls_back_and_leaves_the_connection_usable(
        self, lake: Lake, con: duckdb.DuckDBPyConnection, rows_table: Table
    ) -> None:
        def work(con: duckdb.DuckDBPyConnection) -> None:
            con.execute("INSERT INTO s.rows VALUES ('b', 1)")
            raise ValueError("stop")

        with pytest.raises(ValueError, match="stop"):
            lake.transaction(work, con)
        assert one(con, "SELECT count(*) FROM s.rows") == 0
        assert data_files(lake.settings) == set()

    def test_own_connection_gives_the_result(self, lake: Lake, rows_table: Table) -> None:
        assert lake.transaction(lambda c: one(c, "SELECT 41 + 1")) == 42

    def test_conflict_is_tried_again_and_ends(
        self, lake: Lake, con: duckdb.DuckDBPyConnection, rows_table: Table, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lake_module, "FIRST_WAIT_SECONDS", 0.001)
        con.execute("INSERT INTO s.rows VALUES ('b', 1)")
        attempts = 0

        def lose(c: duckdb.DuckDBPyConnection, until: int) -> None:
            nonlocal attempts
            attempts += 1
            c.execute("UPDATE s.rows SET n = n + 1")
            if attempts < until:
                with closing(lake.connect(threads=1)) as other:
                    other.execute("UPDATE s.rows SET n = n + 10")

        lake.transaction(lambda c: lose(c, 3), con)
        assert attempts == 3
        assert one(con, "SELECT n FROM s.rows") == 22

        attempts = 0
        monkeypatch.setattr(lake_module, "ATTEMPTS", 3)
        with pytest.raises(ConflictError, match="3 times in a row"):
            lake.transaction(lambda c: lose(c, 100), con)
        assert attempts == 3

    def test_other_errors_are_not_tried_again(self, lake: Lake, con: duckdb.DuckDBPyConnection) -> None:
        attempts = 0

        def work(c: duckdb.DuckDBPyConnection) -> None:
            nonlocal attempts
            attempts += 1
            c.execute("FROM nowhere")

        with pytest.raises(duckdb.CatalogException):
            lake.transaction(work, con)
        assert attempts == 1

    def test_lost_catalog_is_not_tried_again(
        self, lake: Lake, con: duckdb.DuckDBPyConnection, rows_table: Table
    ) -> None:
        from quayside.foundation.postgres import connect

        attempts = 0

        def work(c: duckdb.DuckDBPyConnection) -> None:
            nonlocal attempts
            attempts += 1
            c.execute("INSERT INTO s.rows VALUES ('b', 1)")
            with connect(lake.settings, autocommit=True) as postgres:
                postgres.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )

        with pytest.raises(ServiceUnavailableError, match="broke during a transaction"):
            lake.transaction(work, con)
        assert attempts == 1
        assert one(con, "SELECT count(*) FROM s.rows") == 0

    @pytest.mark.slow
    def test_many_writers_lose_nothing_and_double_nothing(
        self, lake: Lake, con: duckdb.DuckDBPyConnection, rows_table: Table, start: Start
    ) -> None:
        lake.ensure_tables([Table("s.counter", "n BIGINT")], con)
        con.execute("INSERT INTO s.counter VALUES (0)")
        appending = [start("append", f"w{n}", 15) for n in range(3)]
        counting = [start("count_up", 10) for _ in range(3)]
        for worker in counting:
            wait_for(worker, "begun")
        for worker in counting:
            go_on(worker)  # of three that have begun together, two lose
        assert [result(worker) for worker in appending] == [15] * 3
        attempts = [result(worker) for worker in counting]
        assert sum(attempts) >= 32
        assert one(con, "SELECT n FROM s.counter") == 30
        assert con.execute("SELECT count(*), count(DISTINCT (batch, n)) FROM s.rows").fetchall() == [(45, 45)]

    @pytest.mark.slow
    @pytest.mark.parametrize("lock, rows", [("load b", 100), ("", 200)])
    def test_lock_lets_one_of_two_loaders_insert(
        self,
        settings: Settings,
        con: duckdb.DuckDBPyConnection,
        rows_table: Table,
        start: Start,
        lock: str,
        rows: int,
    ) -> None:
        # Without the lock both insert, since two inserts do not conflict: that is what the lock is for.
        first = start("load_once", "b", lock)
        wait_for(first, "looked")
        second = start("load_once", "b", lock)
        if lock:
            wait_for_sessions(settings, "wait_event_type = 'Lock' AND wait_event = 'advisory'")
        else:
            wait_for(second, "looked")
        workers = [first, second]
        for worker in workers:
            go_on(worker)
        assert sum(result(worker) for worker in workers) == rows // 100
        assert one(con, "SELECT count(*) FROM s.rows") == rows

    def test_killed_writer_leaves_no_visible_row(
        self, lake: Lake, con: duckdb.DuckDBPyConnection, rows_table: Table, start: Start
    ) -> None:
        writer = start("hold", "dead")
        wait_for(writer, "written")
        assert len(data_files(lake.settings)) == 1, "it had written before it was killed"
        writer.kill()
        writer.wait()
        assert one(con, "SELECT count(*) FROM s.rows") == 0
        lake.transaction(lambda c: c.execute("INSERT INTO s.rows VALUES ('b', 1)"), con)
        assert one(con, "SELECT count(*) FROM s.rows") == 1
