"""A load as a whole: a real source, other readers, threads, cancelling, names, and what stays behind when it fails."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import Any

import duckdb
import pytest
from tests.dataloader.hostile import HOSTILE
from tests.dataloader.servers import SourceServer
from tests.dataloader.tables import Table

from quayside.dataloader.errors import CancelledError, SourceRefusedError
from quayside.dataloader.load import load_table
from quayside.dataloader.result import LoadResult
from quayside.foundation.lake import Lake
from quayside.foundation.settings import Settings

pytestmark = pytest.mark.integration

BY_TIME = {"load_strategy": "incremental", "incremental_column": "at", "incremental_type": "timestamp"}


def test_a_table_of_postgresql_is_loaded_without_a_control_database(
    source_pg: SourceServer, shared_settings: Settings
):
    source_pg.run(
        "CREATE TABLE orders (id int PRIMARY KEY, amount numeric(15,2), at timestamptz)",
        "INSERT INTO orders SELECT g, g * 1.25, now() - interval '1 day' * g FROM generate_series(1, 300) g",
    )
    request = source_pg.request("orders", config_id=501, destination_table_name="orders", **BY_TIME)
    first = load_table(shared_settings, request)
    assert (first.rows_inserted, first.columns["amount"]) == (300, "DECIMAL(15,2)")
    assert LoadResult.of_json(json.loads(json.dumps(first.to_json()))) == first
    source_pg.run(
        "UPDATE orders SET amount = 0, at = now() WHERE id <= 3", "INSERT INTO orders VALUES (301, 1, now())"
    )
    second = load_table(shared_settings, replace(request, attempt=2))
    assert (second.rows_read, second.rows_inserted, second.rows_updated) == (4, 1, 3)
    assert second.cursor_before == first.cursor_after


def test_an_error_of_the_source_is_told_as_one(
    source_pg: SourceServer, shared_settings: Settings, shared_con: Any
):
    source_pg.run("CREATE TABLE wrong (id int PRIMARY KEY, n int)", "INSERT INTO wrong VALUES (1, 0)")
    request = source_pg.request(
        "wrong", config_id=502, destination_table_name="wrong", query="SELECT id, 1 / n AS n FROM wrong"
    )
    with pytest.raises(Exception, match="division by zero") as caught:
        load_table(shared_settings, request, con=shared_con)
    assert not isinstance(caught.value, duckdb.Error)
    with pytest.raises(SourceRefusedError):
        load_table(shared_settings, replace(request, query=None, source_table_name="none"), con=shared_con)
    [left] = shared_con.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'wrong'").fetchone()
    assert left == 0


def test_threads_load_side_by_side(source_pg: SourceServer, shared_settings: Settings, shared_con: Any):
    # case 43 (loads of one batch do not cross)
    source_pg.run(
        *[
            f"CREATE TABLE many_{i} AS SELECT g AS id, {i} AS n FROM generate_series(1, {100 + i}) g"
            for i in range(8)
        ]
    )

    def load(tables: range) -> list[LoadResult]:
        # A DuckDB each: DuckLake's catalog in one of them does not bear tables being made on several threads.
        with closing(Lake(shared_settings).connect(threads=1)) as con:
            return [
                load_table(
                    shared_settings,
                    source_pg.request(f"many_{i}", config_id=600 + i, destination_table_name=f"many_{i}"),
                    con=con,
                )
                for i in tables
            ]

    with ThreadPoolExecutor(2) as pool:
        results = [r for part in pool.map(load, (range(4), range(4, 8))) for r in part]
    assert [r.rows_inserted for r in results] == [100 + i for i in range(8)]
    for i in range(8):
        found = shared_con.execute(
            f'SELECT count(*), min(n), max(n) FROM lake."bronze.s".many_{i}'
        ).fetchone()
        assert found == (100 + i, i, i)


def test_cancelling_interrupts_the_statement_and_leaves_nothing(shared_settings: Settings, shared_con: Any):
    t = Table.new(shared_settings, shared_con, "cancelled", "id BIGINT")
    small, t.source.of = t.source.of, "range(1000000000000) endless(id)"
    answers = iter([False])  # before it begins; from then on it is to stop

    with pytest.raises(CancelledError):
        load_table(
            shared_settings, t.request, con=shared_con, source=t.source, cancelled=lambda: next(answers, True)
        )
    [left] = shared_con.execute(
        "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'cancelled'"
    ).fetchone()
    assert left == 0
    t.source.of = small
    assert t.load().rows_total == 0


def test_readers_see_the_old_table_until_they_see_the_new_one(shared_settings: Settings, shared_con: Any):
    # case 25
    t = Table.new(
        shared_settings, shared_con, "read_meanwhile", "SELECT range AS id, 'old' AS v FROM range(1000)"
    )
    t.load()
    seen: list[Any] = []

    class Looking:
        """Reads the table when everything is written and nothing committed."""

        def hold(self) -> Any:
            seen.append(shared_con.cursor().execute(f"SELECT count(*), max(v) FROM {t.stored}").fetchone())
            return nullcontext()

        def check(self) -> None:
            pass

    t.execute("UPDATE src SET v = 'new'")
    t.execute("INSERT INTO src VALUES (1000, 'new')")
    t.load(fence=Looking())
    t.load(
        fence=Looking(), load_strategy="chunked_backfill", incremental_column="id", incremental_type="integer"
    )
    assert seen[0] == (1000, "old")
    assert set(seen[1:]) == {(1001, "new")}


@pytest.mark.parametrize("strategy", ["incremental", "scd2"])
def test_names_that_break_what_is_spliced(shared_settings: Settings, shared_con: Any, strategy: str):
    # cases 27, 34, 47: all of them as columns of one table, each value quoted as well
    columns = ", ".join('"' + name.replace('"', '""') + '" VARCHAR' for name in HOSTILE)
    name = f'Robert\'); DROP "x" {strategy}'
    t = Table.new(
        shared_settings, shared_con, name, f'"the ""key""" VARCHAR, upd TIMESTAMP, {columns}',
        load_strategy=strategy, incremental_column="upd", incremental_type="timestamp",
        primary_key_cols=('the "key"', HOSTILE[0]), is_delete=True, destination_schema_name="s'; --",
    )  # fmt: skip
    marks = ", ".join("?" * len(HOSTILE))
    t.execute(f"INSERT INTO src VALUES ('a''; --', '2026-01-01', {marks})", *HOSTILE)
    t.execute(f"INSERT INTO src VALUES ('b', '2026-01-01', {marks})", *HOSTILE)
    t.load()
    t.execute('UPDATE src SET "select" = \'changed\', upd = \'2026-01-02\' WHERE "the ""key""" = \'b\'')
    assert t.load(deletes_checked_at=None).rows_updated == 1
    t.execute('DELETE FROM src WHERE "the ""key""" = \'b\'')
    assert t.load(deletes_checked_at=None).rows_deleted == 1


def test_states_that_were_replaced_are_taken_away_and_those_in_files_are_found(
    shared_settings: Settings, shared_con: Any
):
    t = Table.new(shared_settings, shared_con, "states", "SELECT 1 AS id, 1 AS n", load_strategy="incremental",
                  incremental_column="n", incremental_type="integer")  # fmt: skip

    def states() -> int:
        sql = "SELECT count(*) FROM lake.dataloader.load_states WHERE config_id = ?"
        return shared_con.execute(sql, [t.request.config_id]).fetchone()[0]

    t.load()
    for n in (2, 3):
        t.execute("UPDATE src SET n = ?", n)
        t.load()
    assert states() == 3
    t.request = replace(t.request, attempt=31)
    t.execute("UPDATE src SET n = 4")
    assert t.load().cursor_before == "3"
    assert states() == 1
    shared_con.execute(
        "CALL ducklake_flush_inlined_data('lake', table_name => 'load_states', schema_name => 'dataloader')"
    )
    assert t.load().cursor_before == "4"


def test_a_large_table_is_written_in_portions_and_told(
    source_pg: SourceServer, shared_settings: Settings, shared_con: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("quayside.dataloader.strategies.strategy.PORTION_ROWS", 9_000)
    source_pg.run(
        "CREATE TABLE passing (id int, note text)",
        "INSERT INTO passing SELECT g, repeat('x', g % 99) FROM generate_series(1, 50000) g",
        "ANALYZE passing",
        "INSERT INTO passing SELECT g, 'later' FROM generate_series(50001, 50100) g",  # not in the estimate
    )
    request = source_pg.request("passing", config_id=503, destination_table_name="passing")
    told: list[tuple[int, int | None]] = []
    known = "quayside.dataloader.cancelling.Cancelling.know"
    monkeypatch.setattr(known, lambda self, done, total: told.append((done, total)))
    for attempt in (1, 2):
        told.clear()
        result = load_table(shared_settings, replace(request, attempt=attempt), con=shared_con)
        assert (result.rows_read, result.rows_total) == (50_100, 50_100)
        done = [rows for rows, _ in told[-6:]]
        assert done == sorted(set(done))
        assert (len(done), told[-1]) == (6, (50_100, 50_000))
    counted = f'SELECT count(DISTINCT id) FROM lake."{request.destination_catalog}.{request.destination_schema_name}".passing'
    assert shared_con.execute(counted).fetchone() == (50_100,)
